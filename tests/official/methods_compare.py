#!/usr/bin/env python3
"""Sets of keys that our methods and their authors' own code choose on the same tensors, head by head.

    MASKBENCH_OFFICIAL=FOLDER python3 tests/official/methods_compare.py [METHOD ...]

FOLDER holds clones of the authors' repositories under their own names (Quest, TidalDecode, LessIsMore, SparseD, SnapKV,
H2O, DoubleSparse, Sparse-dLLM, RocketKV, Model-Optimizer, Twilight); those that are not there are skipped and say so. Needs torch.
The authors' files are executed as they are: what they import of transformers is replaced by stubs, because only their
choice is wanted, and where a choice stays inside a function the call that receives it is watched. Nothing of them is
copied. build/tests/official/methods_play makes the tensors and plays our method (make build/tests/official/methods_play).

Without MASKBENCH_OFFICIAL: says so and exits 0 without a count. A set that differs is printed; exit 1 when one differs
that is no documented difference.
"""
import importlib.machinery, importlib.util, json, math, os, subprocess, sys, types

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLAY = os.path.join(ROOT, os.environ.get("BUILD", "build"), "tests/official/methods_play")
FOLDER = os.environ.get("MASKBENCH_OFFICIAL")
if not FOLDER:
    print("skipped: MASKBENCH_OFFICIAL names no folder with the authors' repositories")
    sys.exit(0)
import torch

SEEDS = range(1, 1 + int(os.environ.get("SEEDS", 4)))
HEADS = 4


# ---- stubs of what the authors' files import ----

class Stub(types.ModuleType):
    """A module in which every name is an empty class."""
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__class_getitem__": classmethod(lambda c, x: c)})


def repeat_kv(x, n):
    return x.repeat_interleave(n, dim=1)


class StubFinder:
    """Whatever the authors import of these packages is a stub."""
    PACKAGES = ("transformers", "modelopt", "datasets", "tqdm", "awq", "flash_attn")

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = Stub(spec.name)
        module.repeat_kv = repeat_kv
        module.apply_rotary_pos_emb = lambda q, k, *args: (q, k)
        return module

    def exec_module(self, module):
        pass


def load(path, name="official"):
    path = os.path.join(FOLDER, path)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# ---- our side ----

def play(method, settings, tensors, index, rows=1, group=1, blocks=1, prefix=104, seed=1, heads=HEADS):
    """The tensors of one moment and our index of another: q [heads, rows, dim], k, v [kv_heads, slots, dim]."""
    out = subprocess.run([PLAY, method, settings, tensors, index, f"{heads} {group} {rows} {blocks} {prefix} {seed}"],
                         capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{method} {settings}: {out.stderr.strip()}")
    shown = json.loads(out.stdout)
    t = lambda name: torch.tensor(shown[name])
    kv = (shown["kv_heads"], shown["slots"], shown["dim"])
    q = t("q").view(shown["rows"], shown["query_heads"], shown["dim"]).transpose(0, 1)
    tokens = [{p * shown["granularity"] + i for p in ids for i in range(shown["granularity"])
               if p * shown["granularity"] + i < shown["prefix"]} for ids in shown["index"]]
    return q, t("k").view(kv), t("v").view(kv), shown["prefix"], tokens


def sets_of(mask):
    """[heads, keys] -> a set of each head."""
    return [set(torch.nonzero(row).flatten().tolist()) for row in mask.bool()]


class Cache:
    """A cache of which the last token is the one that comes."""
    def __init__(self, k, v): self.k, self.v = k, v
    def update(self, *args, **kw): return self.k, self.v
    def get_seq_length(self, *args): return self.k.shape[2]


def attention_stub(q, k, v, **more):
    """What the authors' forward() finds in self: projections that hand out the last token's tensors."""
    flat = lambda x: x.transpose(1, 2).reshape(1, x.shape[2], -1)
    me = types.SimpleNamespace(num_heads=q.shape[1], num_key_value_heads=k.shape[1], head_dim=q.shape[3],
                               num_key_value_groups=q.shape[1] // k.shape[1], hidden_size=q.shape[1] * q.shape[3],
                               attention_dropout=0.0, training=False, scaling=1 / math.sqrt(q.shape[3]))
    me.q_proj = lambda x: flat(q)
    me.k_proj = lambda x: flat(k[:, :, -1:])
    me.v_proj = lambda x: flat(v[:, :, -1:])
    me.o_proj = lambda x: x
    me.rotary_emb = lambda *args, **kw: (torch.zeros(1), torch.zeros(1))
    me.q_norm = me.k_norm = lambda x: x
    me.config = types.SimpleNamespace(pretraining_tp=1, _attn_implementation="eager", num_hidden_layers=4)
    for name, value in more.items():
        setattr(me, name, value)
    return me


# ---- the methods: each yields (what, ours, theirs), sets of tokens for each head ----

def quest():
    """The page that is being filled is no exception in this file: keep_last=never."""
    module = load("Quest/evaluation/quest_attention.py")
    real, seen = module.local_heavy_hitter_mask, []
    module.local_heavy_hitter_mask = lambda *a: seen.append(real(*a)) or seen[-1]
    for seed in SEEDS:
        for k, prefix in ((48, 104), (64, 101), (20, 160)):
            q, keys, v, n, ours = play("quest", f"k={k} rounding=official keep_last=never", "0.2.3", "0.2.3",
                                       seed=seed, prefix=prefix)
            me = attention_stub(q[None], keys[None, :, :n], v[None, :, :n], layer_id=5, chunk_size=16, token_budget=k)
            module.forward(me, torch.zeros(1, 1, 1), position_ids=torch.tensor([[n - 1]]),
                           past_key_value=(keys[None, :, :n - 1], v[None, :, :n - 1]))
            yield f"k={k} of {n}", ours, sets_of(seen[-1][0, :, 0])


def tidal():
    module = load("TidalDecode/src/tidal_build/modify_llama.py")
    for seed in SEEDS:
        for score in ("mass", "logits"):
            for k in (12, 24, 60):
                q, keys, v, n, ours = play("tidal", f"k={k} score={score} reselect_layer=9", "0.2.2", "0.2.3",
                                           seed=seed)
                me = attention_stub(q[None], keys[None, :, :n], v[None, :, :n], layer_idx=2)
                module.llama_tidal_attention_forward(
                    me, torch.zeros(1, 1, 1), past_key_value=Cache(keys[None, :, :n], v[None, :, :n]),
                    position_embeddings=(None, None), top_k=k, sparse_layer_start=2, correction_layer=9)
                yield f"{score} k={k}", ours, sets_of(me.pos_dict[0, :, 0])


def less_is_more():
    module = load("LessIsMore/src/tidal_build/modify_qwen3_lim.py")
    for seed in SEEDS:
        for k, recent, sink in ((24, 0.25, 4), (40, 0.5, 0), (13, 0.25, 4)):
            q, keys, v, n, ours = play("less_is_more", f"k={k} recent={recent} sink={sink} reselect_layer=9", "0.2.2",
                                       "0.2.3", seed=seed)
            me = attention_stub(q[None], keys[None, :, :n], v[None, :, :n], layer_idx=2)
            module.qwen_tidal_attention_forward(
                me, torch.zeros(1, 1, 1), (None, None), past_key_value=Cache(keys[None, :, :n], v[None, :, :n]),
                top_k=k, sparse_layer_start=2, correction_layer=9, attention_sink=sink, tidal_ratio=1 - recent)
            yield f"k={k} recent={recent}", ours, sets_of(me.pos_mask[0, :, 0])


def probabilities(q, k, n):
    """Of the prefix's keys, the softmax over all that a block row sees: [heads, rows, n]."""
    logits = q @ k[:, :n + q.shape[1]].transpose(1, 2) / math.sqrt(q.shape[2])
    return torch.softmax(logits, -1)[:, :, :n]


def sparsed():
    """At our quota, which is the prefix's alone (methods/sparsed.c)."""
    module = load("SparseD/models/Dream/SparseD_utils.py")
    for seed in SEEDS:
        for ratio, page in ((0.3, 16), (0.5, 16), (0.3, 32)):
            q, keys, v, n, ours = play("sparsed", f"k=0 ratio={ratio} page={page} skip=0.5", "0.2.3", "0.3.3", rows=8,
                                       seed=seed, prefix=160)
            mask = module.create_attention_block_mask(probabilities(q, keys, n)[None], page, ratio)
            tokens = mask[0, :, 0].repeat_interleave(page, dim=-1)[:, :n]
            yield f"ratio={ratio} page={page}", ours, sets_of(tokens)


def snapkv():
    """Their window is the block's one row, which the window's causal mask leaves whole."""
    module = load("SnapKV/snapkv/monkeypatch/snapkv_utils.py")
    for seed in SEEDS:
        for k, pool in ((24, "mean"), (40, "mean"), (24, "max")):
            q, keys, v, n, ours = play("snapkv", f"k={k} window=0 kernel=5 pool={pool}", "0.1.3", "0.2.3", seed=seed)
            cluster = module.SnapKVCluster(1, k + 1, 5, "avgpool" if pool == "mean" else "maxpool")
            at = torch.arange(n + 1, dtype=torch.float32)[None, None, :, None].expand(1, HEADS, -1, 32)
            queries = torch.zeros(1, HEADS, n + 1, 32)
            queries[:, :, -1] = q[:, 0]
            _, kept = cluster.update_kv(keys[None, :, :n + 1], queries, at, None, 1)
            yield f"k={k} {pool}", ours, [set(h[:-1, 0].int().tolist()) for h in kept[0]], pool == "max" and 5


def h2o():
    """One query's counts. Theirs can never keep the key in front of the recent ones, so sets that differ in it alone
    are their off-by-one."""
    module = load("H2O/h2o_hf/utils_hh/modify_llama.py")
    for seed in SEEDS:
        q, keys, v, n, ours = play("h2o", "k=24 recent=0.5", "0.1.3", "0.2.3", seed=seed)
        me = attention_stub(q[None], keys[None, :, :n], v[None, :, :n], heavy_budget_ratio=12.5 / n,
                            recent_budget_ratio=13.5 / n, attention_masks_next=None, previous_scores=None,
                            cache_budget_records=[], input_length=[])
        module.LlamaAttention_heavy_hitter.forward(me, torch.zeros(1, 1, 1),
                                                   past_key_value=(keys[None, :, :n - 1], v[None, :, :n - 1]))
        yield "k=24", ours, sets_of(me.attention_masks_next[0, :, 0, :n]), {n - 13}


def double_sparsity():
    """Labels of 4 bits on channels that are given, and channels from their statistic of the block's token."""
    module = load("DoubleSparse/evaluation/modify_llama.py")
    calibration = load("DoubleSparse/config/offline_calibration.py", "calibration")
    for seed in SEEDS:
        for k, bits in ((24, 4), (24, 0), (40, 4)):
            q, keys, v, n, ours = play("double_sparsity", f"k={k} bits={bits}", "0.1.3", "0.1.3", seed=seed)
            found = {}
            calibrate(calibration, q, keys[:, n:n + 1], found)
            me = attention_stub(q[None], keys[None, :, :n], v[None, :, :n], layer_idx=3, heavy_const=k, group_factor=4,
                                label_bits=bits or 16, is_causal=True,
                                sorted_channel=torch.sort(found["x.qk_proj"], -1, descending=True)[1])
            seen, softmax = [], torch.nn.functional.softmax
            torch.nn.functional.softmax = lambda x, *a, **kw: seen.append(x) or softmax(x, *a, **kw)
            module.LlamaAttention_heavy_hitter.forward(
                me, torch.zeros(1, 1, 1), past_key_value=Cache(keys[None, :, :n], v[None, :, :n]),
                position_embeddings=(None, None))
            torch.nn.functional.softmax = softmax
            yield f"k={k} bits={bits}", ours, sets_of(seen[-1][0, :, 0] > -math.inf)


def calibrate(module, q, k, found):
    """Their hook on one token: q, k [heads, 1, dim]."""
    me = module.LlamaAttention()
    vars(me).update(vars(attention_stub(q[None], k[None], k[None])))
    llama = sys.modules["transformers.models.llama.modeling_llama"]
    module.transformers = types.SimpleNamespace(models=types.SimpleNamespace(
        llama=types.SimpleNamespace(modeling_llama=llama)))
    module.get_qk_hook(me, (), {"hidden_states": torch.zeros(1, 1, 1), "position_ids": None}, None, name="x",
                       output_dict=found)


def sparse_dllm():
    """Real blocks and groups: their one set for all heads."""
    module = load("Sparse-dLLM/opencompass/models/sparse_dllm/dream/Cache.py")
    for seed in SEEDS:
        for ratio, kernel in ((0.25, 3), (0.5, 3), (0.25, 1)):
            q, keys, v, n, ours = play("sparse_dllm", f"k=0 ratio={ratio} kernel={kernel}", "0.2.3", "0.3.3", rows=8,
                                       group=2, seed=seed)
            cache = module.CustomCache(1, "cpu", kernel, ratio)
            at = torch.arange(n + 8, dtype=torch.float32)[None, None, :, None].expand(1, HEADS, -1, 32)
            cache.update_cache(0, keys[None, :, :n + 8], at)
            cache.filter_cache(0, q[None], n, 8)
            yield f"ratio={ratio} kernel={kernel}", ours, [set(h[:, 0].int().tolist())
                                                          for h in cache.cache[0]["v"][0]], kernel > 1 and kernel


def rocketkv():
    """Stage 2 alone: nothing is evicted. Pages of their chunk; a page of which only a part fits may be cut elsewhere."""
    sys.modules["utils"] = types.SimpleNamespace(repeat_kv=repeat_kv)
    path = os.path.join(FOLDER, "RocketKV/pipeline/inf_stream_llm/inf_llm/attention/rocket.py")
    package = types.ModuleType("rocket")
    package.__path__ = [os.path.dirname(path)]
    sys.modules["rocket"], sys.modules["rocket.utils"] = package, sys.modules["utils"]
    module = load(path, "rocket.rocket")
    for seed in SEEDS:
        for k, compression in ((24, 4.0), (30, 9.0), (24, 1.0)):
            chunk = math.ceil(math.sqrt(compression)) if compression > 1 else 1
            q, keys, v, n, ours = play(
                "rocketkv", f"k={k} keep=4096 page={chunk} channels={int(32 * chunk / compression)}", "0.2.3", "0.2.3",
                seed=seed)
            forward = module.rocket_forward(False, k, compression, 4096)
            seen, topk = [], torch.topk
            torch.topk = lambda *a, **kw: seen.append(topk(*a, **kw)) or seen[-1]
            me = types.SimpleNamespace(layer_idx=3, config=types.SimpleNamespace(num_hidden_layers=4))
            flat = lambda x: x.transpose(0, 1).reshape(1, x.shape[1], -1)
            forward(me, flat(q), flat(keys[:, n - 1:n]), lambda a, b, **kw: (a, b), True,
                    (keys[None, :, :n - 1], v[None, :, :n - 1]), lambda x: x, lambda x: x,
                    lambda x: flat(v[:, n - 1:n]), lambda x: x, 32, HEADS, HEADS)
            torch.topk = topk
            yield f"k={k} c={compression:g}", ours, [set(i) for i in seen[-1].indices.flatten(1, 3)[0].tolist()], chunk


def blasst():
    base = "Model-Optimizer/modelopt/torch/sparsity/attention_sparsity/methods/"
    package = types.ModuleType("skip")
    package.SparseAttentionMethod, package.register_sparse_method = object, lambda name: lambda c: c
    package.__path__ = [os.path.join(FOLDER, base)]
    sys.modules["skip"] = package
    module = load(base + "flash_skip_softmax.py", "skip.flash_skip_softmax")
    for seed in SEEDS:
        for rate, tile in ((0.3, 16), (0.05, 16), (0.5, 32)):
            q, keys, v, n, ours = play("blasst", f"lambda={rate} tile={tile}", "0.2.3", "0.2.3", rows=4, seed=seed,
                                       prefix=160)
            method = module.FlashSkipSoftmax({"thresholds": {"prefill": [rate]}, "br": 4, "bc": tile, "backend": "",
                                              "is_causal": False})
            method.calibration_params = method.target_sparse_ratio = None
            mask, _ = method.calc_correction_factor_and_p((q @ keys[:, :n].transpose(1, 2) / math.sqrt(32))[None],
                                                          "prefill")
            yield f"lambda={rate} tile={tile}", ours, sets_of(mask[0, :, 0])


def fewest(weights, p):
    """Stands in for Twilight's top-p kernel (CUDA): the fewest keys of each row that hold p of its weight."""
    order = torch.sort(weights, stable=True, dim=-1, descending=True)[1]
    before = weights.gather(-1, order).cumsum(-1) - weights.gather(-1, order)
    return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, order, before < p)


def twilight():
    """Their forward() with its Quest selector, its rounding of keys and its softmax; fewest() for the kernel."""
    for name, path in (("twilight", "twilight"), ("twilight.pyimpl", "twilight/pyimpl")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [os.path.join(FOLDER, "Twilight", path)]
    sys.modules["twilight.kernel"] = types.SimpleNamespace(top_p_fp32_return_mask=fewest, get_label_tensor=None)
    module = load("Twilight/twilight/pyimpl/attention.py", "twilight.pyimpl.attention")
    for seed in SEEDS:
        for p, candidates, bits in ((0.85, 48, 4), (0.5, 64, 4), (0.95, 40, 3)):
            q, keys, v, n, ours = play("twilight", f"p={p} candidates={candidates} bits={bits} normaliser=prefix", "0.2.3",
                                       "0.2.3", seed=seed)
            seen = []
            state = types.SimpleNamespace(
                compressor=None, skip_first_two_layers=True, selector=module.IndexSelectorType.QUEST,
                selector_args={"chunk_size": 16, "token_budget": candidates},
                weight_estimator=module.WeightEstimatorType.MIN_MAX_QUANT, weight_estimator_args={"quant_bit": bits},
                weight_pruner=module.WeightPrunerType.TOP_P, weight_pruner_args={"threshold": p}, score_info=None,
                budget_info=types.SimpleNamespace(update=lambda layer, mask: seen.append(mask)),
                use_estimated_weights_in_attn=False)
            me = attention_stub(q[None], keys[None, :, :n], v[None, :, :n], layer_id=3, layer_idx=3, state=state)
            cache = Cache(keys[None, :, :n], v[None, :, :n])
            cache.get_usable_length = lambda *a: n - 1
            module.attention_forward(me, torch.zeros(1, 1, 1), past_key_value=cache, use_cache=True)
            yield f"p={p} candidates={candidates} bits={bits}", ours, sets_of(seen[-1][0, :, 0])


METHODS = {f.__name__: (f, folder) for f, folder in (
    (quest, "Quest"), (tidal, "TidalDecode"), (less_is_more, "LessIsMore"), (sparsed, "SparseD"), (snapkv, "SnapKV"),
    (h2o, "H2O"), (double_sparsity, "DoubleSparse"), (sparse_dllm, "Sparse-dLLM"), (rocketkv, "RocketKV"),
    (blasst, "Model-Optimizer"), (twilight, "Twilight"))}


def commit_of(folder):
    shown = subprocess.run(["git", "-C", os.path.join(FOLDER, folder), "rev-parse", "--short", "HEAD"],
                           capture_output=True, text=True)
    return shown.stdout.strip() or "no commit"


def compare(name):
    """Counts of one method: equal, documented, different."""
    equal = documented = 0
    differ = []
    for what, ours, theirs, *excuse in METHODS[name][0]():
        for head, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if a == b:
                equal += 1
            elif excuse and excuse[0] and (a - b == excuse[0] if isinstance(excuse[0], set) else
                                           neighbours_tie(a, b, excuse[0])):
                documented += 1
            else:
                differ.append(f"  {name} {what} head {head}: only ours {sorted(a - b)}, only theirs {sorted(b - a)}")
    return equal, documented, differ


def neighbours_tie(a, b, width):
    """As many keys on both sides, close together: a pool or a page gives them one score, and theirs is any of them."""
    return len(a) == len(b) and max(a ^ b) - min(a ^ b) < 2 * width


def main():
    failed = 0
    sys.meta_path.insert(0, StubFinder())
    torch.set_num_threads(1)
    for name in sys.argv[1:] or METHODS:
        folder = METHODS[name][1]
        if not os.path.isdir(os.path.join(FOLDER, folder)):
            print(f"{name}: skipped, {folder} is not in {FOLDER}")
            continue
        equal, documented, differ = compare(name)
        total = equal + documented + len(differ)
        print(f"{name}: {equal} of {total} sets equal, {documented} are ties or documented ({folder} {commit_of(folder)})")
        print("\n".join(differ[:5]), end="\n" if differ else "")
        failed += bool(differ) or total == 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
