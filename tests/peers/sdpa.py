"""Times PyTorch's scaled_dot_product_attention on the shapes of docs/performance.md, and the machine's ceilings.

The query rows that share a KV head are packed, [batch, kv_heads, group * rows, 128], so flash and cuDNN read each key
once per KV head, as our kernel does. Run on the GPU host, in the same session as the CUDA benchmark:

    python3 tests/peers/sdpa.py
"""
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def timed(work, repeats=7, inner=4):
    """Median time of one call in microseconds."""
    for _ in range(2):
        work()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(inner):
            work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / inner)
    return statistics.median(times)


def ceilings():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    us = timed(lambda: a @ b, inner=10)
    print(f"bf16 GEMM 8192^3: {2 * 8192**3 / us * 1e-6:.0f} TFLOP/s", end="")
    us = timed(lambda: a @ b, repeats=7, inner=300)   # seconds of load: the clocks that the power limit allows
    print(f", sustained {2 * 8192**3 / us * 1e-6:.0f} TFLOP/s")
    x, y = (torch.empty(2**32, device="cuda", dtype=torch.uint8).random_(0, 255) for _ in range(2))
    us = timed(lambda: y.copy_(x))
    print(f"copy of 4 GiB: {2 * 2**32 / us * 1e-6:.2f} TB/s", flush=True)


def attention(query_heads, kv_heads, batch, keys, rows=32):
    group = query_heads // kv_heads
    q = torch.randn(batch, kv_heads, group * rows, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, kv_heads, keys + rows, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    line = f"{query_heads}/{kv_heads} batch {batch} keys {keys}:"
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        try:
            with sdpa_kernel(backend):
                us = timed(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))
            line += f" {name} {us:.0f} us"
        except RuntimeError as problem:
            line += f" {name} failed ({str(problem).splitlines()[0]})"
    print(line, flush=True)


def prefill(query_heads, kv_heads, keys):
    """Causal, which is the nearest that SDPA has to block-causal: half a block per row fewer keys."""
    q = torch.randn(1, query_heads, keys, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, query_heads, keys, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    line = f"causal prefill {query_heads} heads, {keys}:"
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        try:
            with sdpa_kernel(backend):
                us = timed(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True), 3, 1)
            line += f" {name} {us:.0f} us {2 * query_heads * 128 * keys * keys / us * 1e-6:.0f} TFLOP/s"
        except RuntimeError as problem:
            line += f" {name} failed ({str(problem).splitlines()[0]})"
    print(line, flush=True)


if __name__ == "__main__":
    print(torch.__version__, torch.cuda.get_device_name())
    ceilings()
    for shape in ((28, 4, 1, 32768), (28, 4, 1, 131072), (28, 4, 8, 131072), (12, 2, 8, 131072), (32, 8, 1, 131072),
                  (32, 8, 8, 131072)):
        attention(*shape)
    prefill(28, 4, 32768)
    prefill(28, 4, 131072)
