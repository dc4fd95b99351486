"""Our exact block attention and prefill beside FlashAttention-3, FlashInfer and PyTorch's SDPA on one GPU.

Every kernel runs in turn in one process, as replays of a CUDA graph that holds one call, so that all of them meet
the same clocks; the table has medians, and the ratio to the best setting of FlashAttention-3. Outputs are compared
with FlashAttention-3's. Build attention_peer.so first (attention_peer.cu says how); peers that are not installed
are left out (pip install fa3-fwd==0.0.3 flashinfer-python==0.6.8).

    python3 tests/peers/attention.py ./attention_peer.so [block,prefill,dims,sparse] [rounds]

Block attention: 32 query rows a sequence, all of them see all keys. FlashAttention-3 and FlashInfer keep a token's
heads together ([batch, keys, heads, channels]), our cache a head's tokens.

Sparse attention: every KV head has pages of its own, which for FlashInfer makes it a request of one head. A graph holds
one call for each of 24 selections, so that keys come from device memory; without FlashInfer ours stands alone.
"""
import ctypes
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

try:
    import fa3_fwd_interface as fa3
except ImportError:
    fa3 = None
try:
    import flashinfer
except ImportError:
    flashinfer = None

COPY_TBS, GEMM_TFLOPS = 4.27, 750.0     # for the floors of docs/performance.md
ROWS = 32


class Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32)
                for name in ("batch", "rows", "query_heads", "kv_heads", "head_dim", "capacity", "keys")]


def load(path):
    library = ctypes.CDLL(path)
    library.peer_workspace.restype = library.peer_sparse_workspace.restype = ctypes.c_size_t
    if library.peer_start() != 0:
        sys.exit(1)
    return library


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def stream():
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def graph(call):
    call()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        call()
    return captured


def in_turn(graphs, rounds, inner):
    """Median and fastest time of each graph in microseconds."""
    times = {name: [] for name in graphs}
    for turn in range(rounds + 1):
        for name, captured in graphs.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(inner):
                captured.replay()
            end.record()
            end.synchronize()
            if turn > 0:
                times[name].append(start.elapsed_time(end) * 1000 / inner)
    return {name: (statistics.median(values), min(values)) for name, values in times.items()}


def normal(*sizes):
    return torch.randn(*sizes, device="cuda", dtype=torch.bfloat16)


def relative(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def report(title, floor, results, errors, flops):
    best = min((median for name, (median, _) in results.items() if name.startswith("FA3")), default=None)
    print(f"{title}: floor {floor:.0f} us")
    for name, (median, fastest) in results.items():
        line = f"  {name:24s} {median:9.1f} us (fastest {fastest:9.1f}) {flops / median * 1e-6:5.0f} TFLOP/s"
        if best:
            line += f"  / FA3 {median / best:.3f}"
        print(line + errors.get(name, ""), flush=True)


def flashinfer_block(q, k, v):
    """FlashInfer's paged wrapper, its two back ends that serve Hopper."""
    batch, keys, kv_heads, dim = k.shape
    page, heads = 16, q.shape[2]
    pages = keys // page
    kv = torch.stack([x.view(batch * pages, page, kv_heads, dim) for x in (k, v)], 1).contiguous()
    calls = {}
    for backend in ("fa2", "fa3"):
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
            torch.empty(512 << 20, dtype=torch.uint8, device="cuda"), "NHD", backend=backend)
        count = torch.arange(batch + 1, device="cuda", dtype=torch.int32)
        wrapper.plan(count * ROWS, count * pages, torch.arange(batch * pages, device="cuda", dtype=torch.int32),
                     torch.full((batch,), page, device="cuda", dtype=torch.int32), heads, kv_heads, dim, page,
                     causal=False, q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
        rows = q.reshape(batch * ROWS, heads, dim)
        calls[f"FlashInfer {backend}"] = lambda wrapper=wrapper: wrapper.run(rows, kv)
    return calls


def sdpa_block(q, k, v):
    """SDPA reads a key once per KV head when the rows that share it are packed."""
    batch, _, heads, dim = q.shape
    kv_heads = k.shape[1]
    packed = q.view(batch, ROWS, kv_heads, heads // kv_heads, dim).permute(0, 2, 3, 1, 4)
    packed = packed.reshape(batch, kv_heads, -1, dim).contiguous()

    def call():
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(packed, k, v)
    return {"SDPA flash": call}


def block(ours, query_heads, kv_heads, batch, keys, dim, rounds):
    q = normal(batch, ROWS, query_heads, dim)
    k, v = normal(batch, keys, kv_heads, dim), normal(batch, keys, kv_heads, dim)
    k_heads, v_heads = k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()
    shape = Shape(batch, ROWS, query_heads, kv_heads, dim, keys, keys)
    prefix = torch.full((batch,), keys, device="cuda", dtype=torch.int32)
    out, lse = torch.empty_like(q), torch.empty(batch, ROWS, query_heads, device="cuda")
    size = ours.peer_workspace(ctypes.byref(shape))
    workspace = torch.empty(size + 256, device="cuda", dtype=torch.uint8)

    def call():
        if ours.peer_attend(ctypes.byref(shape), pointer(q), pointer(k_heads), pointer(v_heads), pointer(prefix),
                            pointer(out), pointer(lse), pointer(workspace), ctypes.c_size_t(size), stream()) != 0:
            sys.exit(1)
    graphs, errors = {"ours": graph(call)}, {}
    graphs["ours"].replay()
    first = out.clone()
    graphs["ours"].replay()
    torch.cuda.synchronize()
    errors["ours"] = ", bit-equal" if torch.equal(first, out) else ", NOT bit-equal"
    if fa3:
        for splits in (0, 16) if batch == 1 else (0,):
            def peer(splits=splits):
                return fa3.flash_attn_with_kvcache(q, k, v, causal=False, num_splits=splits, pack_gqa=True,
                                                   return_softmax_lse=True)
            result = peer()
            errors["ours"] = (f", differs by {relative(out, result[0]):.1e}, log-sum-exp by "
                              f"{(lse - result[1].transpose(1, 2)).abs().max().item():.1e}" +
                              errors["ours"][errors["ours"].rindex(","):])
            graphs["FA3 " + (f"{splits} splits" if splits else "own splits")] = graph(peer)
    others = sdpa_block(q, k_heads, v_heads)
    if flashinfer and dim == 128:
        others.update(flashinfer_block(q, k, v))
    for name, other in others.items():
        try:
            graphs[name] = graph(other)
        except RuntimeError as problem:
            print(f"  {name} failed: {str(problem).splitlines()[0]}")
    moved = 2 * k.numel() * 2
    flops = 4 * batch * query_heads * ROWS * keys * dim
    floor = max(moved / COPY_TBS, flops / GEMM_TFLOPS) * 1e-6
    report(f"block {query_heads}/{kv_heads}, head_dim {dim}, batch {batch}, {keys} keys", floor,
           in_turn(graphs, rounds, 10 if moved < 1e9 else 3), errors, flops)


def prefill(ours, query_heads, kv_heads, keys, rows, dim, rounds):
    """The last `rows` rows of a prompt of `keys`; ours is causal by blocks of 32, the peers by rows."""
    q = normal(1, rows, query_heads, dim)
    k, v = normal(1, keys, kv_heads, dim), normal(1, keys, kv_heads, dim)
    k_heads, v_heads = k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()
    shape, out = Shape(1, rows, query_heads, kv_heads, dim, keys, keys), torch.empty_like(q)

    def call():
        if ours.peer_prefill(ctypes.byref(shape), pointer(q), pointer(k_heads), pointer(v_heads), 32, pointer(out),
                             stream()) != 0:
            sys.exit(1)
    graphs, errors = {"ours": graph(call)}, {}
    graphs["ours"].replay()
    torch.cuda.synchronize()
    if fa3:
        def peer():
            return fa3.flash_attn_func(q, k, v, causal=True)
        # The last row of a block of 32 sees the same keys in both.
        errors["ours"] = f", differs by {relative(out[:, 31::32], peer()[:, 31::32]):.1e}"
        graphs["FA3 causal"] = graph(peer)
    if flashinfer and dim == 128:
        graphs["FlashInfer fa3 causal"] = graph(
            lambda: flashinfer.single_prefill_with_kv_cache(q[0], k[0], v[0], causal=True, backend="fa3"))
    flops = 2 * query_heads * dim * (keys * keys - (keys - rows) * (keys - rows))
    report(f"prefill {query_heads}/{kv_heads}, head_dim {dim}, {rows} rows at {keys}", flops / GEMM_TFLOPS * 1e-6,
           in_turn(graphs, rounds, 1), errors, flops)


def flashinfer_sparse(rows_of_head, kv, chosen, page):
    """One wrapper a selection, planned beforehand; they run one after the other and share their work memory."""
    calls, work = {}, torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    requests, group = chosen[0].shape[0], rows_of_head.shape[1]
    count = torch.arange(requests + 1, device="cuda", dtype=torch.int32)
    for backend in ("fa2", "fa3"):
        wrappers = []
        for ids in chosen:
            pages = ids.shape[1]
            first = torch.arange(requests, device="cuda", dtype=torch.int32)[:, None] * (kv.shape[0] // requests)
            wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(work, "NHD", backend=backend)
            wrapper.plan(count * ROWS, count * pages, (ids + first).flatten().int(),
                         torch.full((requests,), page, device="cuda", dtype=torch.int32), group, 1, 128, page,
                         causal=False, q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
            wrappers.append(wrapper)
        calls[f"FlashInfer {backend}"] = lambda wrappers=wrappers: [w.run(rows_of_head, kv) for w in wrappers]
    return calls


def sparse(ours, batch, keep, page, rounds, query_heads=28, kv_heads=4, keys=131072, selections=24):
    group, heads, chosen = query_heads // kv_heads, batch * kv_heads, keep // page
    q = normal(batch, ROWS, query_heads, 128)
    k, v = normal(batch, kv_heads, keys, 128), normal(batch, kv_heads, keys, 128)
    ids = [torch.rand(heads, keys // page, device="cuda").topk(chosen, 1).indices.sort(1).values.int()
           for _ in range(selections)]
    counts = torch.full((heads,), chosen, device="cuda", dtype=torch.int32)
    prefix = torch.full((batch,), keys, device="cuda", dtype=torch.int32)
    shape, out = Shape(batch, ROWS, query_heads, kv_heads, 128, keys, keys), torch.empty_like(q)
    size = ours.peer_sparse_workspace(ctypes.byref(shape), page, chosen)
    workspace = torch.empty(size + 256, device="cuda", dtype=torch.uint8)

    def call(which=range(selections)):
        for i in which:
            if ours.peer_sparse(ctypes.byref(shape), pointer(q), pointer(k), pointer(v), pointer(prefix), page, chosen,
                                pointer(ids[i]), pointer(counts), pointer(out), pointer(workspace),
                                ctypes.c_size_t(size), stream()) != 0:
                sys.exit(1)
    graphs, errors = {"ours": graph(call)}, {}
    if flashinfer:
        rows_of_head = q.view(batch, ROWS, kv_heads, group, 128).transpose(1, 2).reshape(heads * ROWS, group, 128)
        kv = torch.stack([x.view(heads * keys // page, page, 1, 128) for x in (k, v)], 1).contiguous()
        others = flashinfer_sparse(rows_of_head.contiguous(), kv, ids, page)
        for name, other in others.items():
            result = other()[0].view(batch, kv_heads, ROWS, group, 128).transpose(1, 2).reshape(out.shape)
            call([0])
            errors[name] = f", ours differs by {relative(out, result):.1e}"
            graphs[name] = graph(other)
    times = {name: tuple(x / selections for x in pair) for name, pair in in_turn(graphs, rounds, 4).items()}
    best = min((median for name, (median, _) in times.items() if name != "ours"), default=None)
    print(f"sparse {query_heads}/{kv_heads}, batch {batch}, {keep} of {keys} keys, pages of {page}")
    for name, (median, fastest) in times.items():
        ratio = f"  / FlashInfer {median / best:.3f}" if best else ""
        print(f"  {name:24s} {median:9.1f} us (fastest {fastest:9.1f})" + ratio + errors.get(name, ""), flush=True)


def ceilings():
    a, b = normal(8192, 8192), normal(8192, 8192)
    line = "bf16 GEMM 8192^3, TFLOP/s:"
    for calls in (10, 300):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a @ b
        start.record()
        for _ in range(calls):
            a @ b
        end.record()
        end.synchronize()
        line += f" {2 * 8192**3 * calls / start.elapsed_time(end) * 1e-9:.0f} over {calls} calls"
    print(line, flush=True)


def main():
    ours = load(sys.argv[1])
    parts = sys.argv[2].split(",") if len(sys.argv) > 2 else ["block", "prefill", "dims"]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    print(torch.__version__, torch.cuda.get_device_name())
    ceilings()
    if "block" in parts:
        for shape in ((28, 4, 1, 32768), (28, 4, 1, 131072), (28, 4, 8, 131072), (12, 2, 8, 131072),
                      (32, 8, 1, 131072), (32, 8, 8, 131072)):
            block(ours, *shape, 128, rounds)
    if "prefill" in parts:
        for keys, rows in ((32768, 32768), (131072, 2048), (131072, 131072)):
            prefill(ours, 28, 4, keys, rows, 128, 5 if rows < keys else 3)
    if "dims" in parts:
        for dim in (64, 80, 96, 256):
            block(ours, 16, 4, 4, 32768, dim, rounds)
            prefill(ours, 16, 4, 16384, 16384, dim, 5)
    if "sparse" in parts:
        for batch in (1, 8):
            for keep, page in ((512, 1), (512, 16), (512, 64), (2048, 1)):
                sparse(ours, batch, keep, page, rounds)
    ceilings()


if __name__ == "__main__":
    main()
