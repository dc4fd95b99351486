#!/usr/bin/env python3
"""Training against PyTorch's autograd: every parameter's gradient for both layouts of a model, both recipes and the
autoregressive loss, and,
with --steps, the losses of a training's first steps from the same weights and batches.

    make build/tests/training/dump
    python3 tests/training/gradients_reference.py
    python3 tests/training/gradients_reference.py --steps 50

Needs torch and safetensors; without them it says so and exits 0. The network here is written with dense masks and
autograd, and shares nothing with the program but the files that tests/training/dump.c writes. Gradients are held to
those of float64 from the same fp32 weights; the error of PyTorch's own fp32 stands beside ours."""
import argparse, json, math, os, subprocess, sys, tempfile

try:
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
except ImportError as missing:
    sys.exit(print(f"skipped: {missing}"))

HERE = os.path.dirname(os.path.abspath(__file__))
DUMP = os.path.join(HERE, "..", "..", os.environ.get("BUILD", "build"), "tests", "training", "dump")
GRADIENT_ALLOWED, LOSS_ALLOWED = 1e-5, 1e-4


def norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def turn(x, angles):
    half = x.shape[-1] // 2
    c, s = angles.cos()[:, None], angles.sin()[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * c - b * s, b * c + a * s), -1)


def masks(batch, kv_heads, index=None):
    """[kv_heads or 1][rows][rows] of one document: the three parts, the noisy-to-clean one by the index if there is one"""
    clean, tail, block = batch["clean"], batch["tail"], batch["block"]
    place = torch.cat((torch.arange(clean), torch.arange(clean - tail, clean))) // block
    noisy = torch.arange(clean + tail) >= clean
    before = ~noisy[None] & (place[None] < place[:, None])
    own = (noisy[:, None] == noisy[None]) & (place[:, None] == place[None])
    if index is None:
        return (before | own)[None]
    out = []
    for head in range(kv_heads):
        seen = before & ~noisy[:, None]
        for number, ids in enumerate(entry[head] for entry in index):
            first = clean + number * block
            seen[first:first + block, ids] = True
        out.append(seen | own)
    return torch.stack(out)


def forward(weights, config, batch, index=None):
    """hidden states of all rows, before the last norm; index: {layer: [entry][head] ids}"""
    dtype = weights["model.norm.weight"].dtype
    heads, kv, dim, eps = (config[k] for k in ("query_heads", "kv_heads", "head_dim", "eps"))
    per, blocks = batch["clean"] + batch["tail"], batch["tail"] // batch["block"]
    x = F.embedding(torch.tensor(batch["ids"]), weights["model.embed_tokens.weight"])
    frequency = 1.0 / config["theta"] ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = (torch.tensor(batch["positions"], dtype=torch.float64)[:, None] * frequency).to(dtype)
    for layer in range(config["layers"]):
        w = lambda name: weights.get(f"model.layers.{layer}.{name}")
        h = norm(x, w("input_layernorm.weight"), eps)
        q, k, v = (F.linear(h, w(f"self_attn.{n}_proj.weight"), w(f"self_attn.{n}_proj.bias")).view(len(x), -1, dim) for n in "qkv")
        if config["qk_norm"]:
            q, k = norm(q, w("self_attn.q_norm.weight"), eps), norm(k, w("self_attn.k_norm.weight"), eps)
        q, k = turn(q, angles), turn(k, angles)
        out = []
        for d in range(batch["documents"]):
            rows = slice(d * per, (d + 1) * per)
            chosen = index.get(layer) if index else None
            mask = masks(batch, kv, chosen[d * blocks:(d + 1) * blocks] if chosen else None).repeat_interleave(heads // kv if chosen else 1, 0)
            kk, vv = (t[rows].repeat_interleave(heads // kv, 1) for t in (k, v))
            s = torch.einsum("qhd,khd->hqk", q[rows], kk) / math.sqrt(dim)
            out.append(torch.einsum("hqk,khd->qhd", s.masked_fill(~mask, -math.inf).softmax(-1), vv).reshape(per, -1))
        x = x + F.linear(torch.cat(out), w("self_attn.o_proj.weight"))
        h = norm(x, w("post_attention_layernorm.weight"), eps)
        x = x + F.linear(F.silu(F.linear(h, w("mlp.gate_proj.weight"))) * F.linear(h, w("mlp.up_proj.weight")), w("mlp.down_proj.weight"))
    return x


def logits(weights, config, x, batch):
    head = weights["model.embed_tokens.weight"] if config["tied"] else weights["lm_head.weight"]
    return F.linear(norm(x[torch.tensor(batch["row"])], weights["model.norm.weight"], config["eps"]), head)


def cross_entropy(z, batch):
    """summed with weights"""
    return (F.cross_entropy(z, torch.tensor(batch["target"]), reduction="none") * torch.tensor(batch["weight"], dtype=z.dtype)).sum()


def case_loss(case, weights, teacher):
    config, total = case["config"], sum(case["weight"])
    if not case["taught"]:
        return cross_entropy(logits(weights, config, forward(weights, config, case), case), case) / total
    kv = config["kv_heads"]
    index = {int(l): [heads[i:i + kv] for i in range(0, len(heads), kv)] for l, heads in case["index"].items()}
    with torch.no_grad():
        exact = logits(teacher, config, forward(teacher, config, case), case).log_softmax(-1)
    z = logits(weights, config, forward(weights, config, case, index), case)
    student = z.log_softmax(-1)
    kl = ((student.exp() * (student - exact)).sum(-1) * torch.tensor(case["weight"], dtype=z.dtype)).sum()
    return (cross_entropy(z, case) + case["lambda"] * kl) / total


def selection_differs(case, weights):
    """keys in which the stored index is not the best k by mass of the exact attention"""
    config = case["config"]
    kv, group, dim, eps = config["kv_heads"], config["query_heads"] // config["kv_heads"], config["head_dim"], config["eps"]
    wrong = 0
    per, clean, block, tail = case["clean"] + case["tail"], case["clean"], case["block"], case["tail"]
    captured = {}
    for layer in map(int, case["index"]):
        cut = dict(config, layers=layer)
        x = forward(weights, cut, case)
        w = lambda name: weights.get(f"model.layers.{layer}.{name}")
        h = norm(x, w("input_layernorm.weight"), eps)
        q, k = (F.linear(h, w(f"self_attn.{n}_proj.weight"), w(f"self_attn.{n}_proj.bias")).view(len(x), -1, dim) for n in "qk")
        if config["qk_norm"]:
            q, k = norm(q, w("self_attn.q_norm.weight"), eps), norm(k, w("self_attn.k_norm.weight"), eps)
        frequency = 1.0 / config["theta"] ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = (torch.tensor(case["positions"], dtype=torch.float64)[:, None] * frequency).to(x.dtype)
        q, k = turn(q, angles), turn(k, angles)
        mask = masks(case, kv)[0]
        for d in range(case["documents"]):
            rows = slice(d * per, (d + 1) * per)
            s = torch.einsum("qhd,khd->hqk", q[rows], k[rows].repeat_interleave(group, 1)) / math.sqrt(dim)
            p = s.masked_fill(~mask, -math.inf).softmax(-1)
            for b in range(tail // block):
                for head in range(kv):
                    own = p[head * group:(head + 1) * group, clean + b * block:clean + (b + 1) * block, :clean - tail + b * block]
                    ids = case["index"][str(layer)][(d * (tail // block) + b) * kv + head]
                    best = own.mean((0, 1)).topk(len(ids)).indices.tolist()
                    wrong += len(set(best) ^ set(ids))
    return wrong


def tensors(folder, dtype, grad=False):
    return {k: v.to(dtype).requires_grad_(grad) for k, v in load_file(os.path.join(folder, "model.safetensors")).items()}


def error(ours, theirs):
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


def adapted(weights, adapter, scale):
    """the weights with s B A added where there is an adapter"""
    out = dict(weights)
    for name, a in adapter.items():
        if ".lora_A." in name:
            key = name.removeprefix("base_model.model.").replace(".lora_A", "")
            out[key] = weights[key] + scale * adapter[name.replace("lora_A", "lora_B")] @ a
    return out


def check_adapters():
    """Gradients of LoRA's matrices, of all projections and of two parts of a fused one."""
    bad = 0
    for layout, recipe, targets in (("qwen3", "plain", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"), ("qwen2", "taught", "q_proj v_proj down_proj"),
                                    ("qwen3", "causal", "v_proj,gate_proj")):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([DUMP, "gradients", layout, recipe, folder, targets], check=True)
            case = json.load(open(os.path.join(folder, "case.json")))
            load = lambda name, dtype, grad: {k: v.to(dtype).requires_grad_(grad) for k, v in load_file(os.path.join(folder, name, "adapter_model.safetensors")).items()}
            ours, found = load("adapter_gradients", torch.float64, False), {}
            for dtype in (torch.float64, torch.float32):
                weights, adapter = tensors(os.path.join(folder, "weights"), dtype), load("adapter", dtype, True)
                loss = case_loss(case, adapted(weights, adapter, case["scale"]), weights)
                loss.backward()
                found[dtype] = ({k: w.grad for k, w in adapter.items()}, loss.item())
        exact, loss = found[torch.float64]
        mine = {k: error(ours[k], g) for k, g in exact.items()}
        worst = max(mine, key=mine.get)
        torchs = max(error(g, exact[k]) for k, g in found[torch.float32][0].items())
        good = mine[worst] <= GRADIENT_ALLOWED and abs(loss - case["loss"]) < 1e-5
        bad += not good
        print(f"{'ok ' if good else 'BAD'} {layout} {recipe}, LoRA of {targets}: {len(mine)} tensors, largest relative error {mine[worst]:.2e} ({worst}), "
              f"PyTorch's own fp32 {torchs:.2e}, loss {case['loss']:.7f} and {loss:.7f}")
    return bad


def check_gradients():
    bad = 0
    for layout in ("qwen3", "qwen2"):
        for recipe in ("plain", "taught", "causal"):
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([DUMP, "gradients", layout, recipe, folder], check=True)
                case = json.load(open(os.path.join(folder, "case.json")))
                ours = tensors(os.path.join(folder, "gradients"), torch.float64)
                found = {}
                for dtype in (torch.float64, torch.float32):
                    weights = tensors(os.path.join(folder, "weights"), dtype, True)
                    loss = case_loss(case, weights, tensors(os.path.join(folder, "teacher"), dtype))
                    loss.backward()
                    found[dtype] = ({k: w.grad for k, w in weights.items()}, loss.item())
                wrong = selection_differs(case, tensors(os.path.join(folder, "weights"), torch.float64)) if recipe == "taught" else 0
            exact, loss = found[torch.float64]
            mine = {k: error(ours[k], g) for k, g in exact.items()}
            torchs = max(error(g, exact[k]) for k, g in found[torch.float32][0].items())
            worst = max(mine, key=mine.get)
            good = mine[worst] <= GRADIENT_ALLOWED and abs(loss - case["loss"]) < 1e-5 and wrong == 0
            bad += not good
            print(f"{'ok ' if good else 'BAD'} {layout} {recipe}: {len(mine)} tensors, largest relative error {mine[worst]:.2e} ({worst}), "
                  f"PyTorch's own fp32 {torchs:.2e}, loss {case['loss']:.7f} and {loss:.7f}, keys of the index that differ {wrong}")
    return bad


def replay(run, weights):
    """losses and gradient norms of the steps, with weights trained in place"""
    config, out = run["config"], []
    groups = [dict(params=[w for w in weights.values() if w.dim() == 2], weight_decay=run["decay"]),
              dict(params=[w for w in weights.values() if w.dim() == 1], weight_decay=0.0)]
    optimiser = torch.optim.AdamW(groups, betas=(run["beta1"], run["beta2"]), eps=run["eps_adam"])
    for *batches, step in run["steps"]:
        total = sum(sum(b["weight"]) for b in batches)
        for group in optimiser.param_groups: group["lr"] = step["lr"]
        optimiser.zero_grad()
        loss = sum(cross_entropy(logits(weights, config, forward(weights, config, b), b), b) for b in batches) / total
        loss.backward()
        norm_ = torch.nn.utils.clip_grad_norm_(list(weights.values()), run["clip"]) if run["clip"] else 0.0
        optimiser.step()
        out.append((loss.item(), float(norm_)))
    return out


def perturbed(weights, share):
    """every weight times 1 + share * a standard normal number"""
    random = torch.Generator().manual_seed(1)
    return {k: (w.detach() * (1 + share * torch.randn(w.shape, generator=random, dtype=w.dtype))).requires_grad_(True) for k, w in weights.items()}


def check_steps(config, steps, sets, folder, double, share):
    if not os.path.exists(os.path.join(folder, "trained")):
        subprocess.run([DUMP, "steps", config, folder, f"steps={steps}", *sets], check=True)
    run = json.load(open(os.path.join(folder, "steps.json")))
    ours = [(step["loss"], step["norm"]) for *_, step in run["steps"]]
    trained, found = tensors(os.path.join(folder, "trained"), torch.float32), {}
    for name, dtype in [("fp32", torch.float32)] + [("fp64", torch.float64)] * double:
        weights = tensors(os.path.join(folder, "weights"), dtype, True)
        found[name] = replay(run, weights)
        drift = max(error(trained[k], w.detach()) for k, w in weights.items())
        print(f"after {len(ours)} steps: largest relative difference of a tensor of weights, ours and PyTorch's {name}: {drift:.2e}")
    if share:
        found["perturbed"] = replay(run, perturbed(tensors(os.path.join(folder, "weights"), torch.float32, True), share))
    for i, (loss, norm_) in enumerate(ours):
        if i in (0, 1, 4) or (i + 1) % 10 == 0:
            print(f"step {i + 1}: ours {loss:.6f} (norm {norm_:.5f})" + "".join(f", {k} {v[i][0]:.6f} ({v[i][1]:.5f})" for k, v in found.items()))
    apart = lambda a, b: max(abs(x[0] - y[0]) for x, y in zip(a, b))
    worst = apart(ours, found["fp32"])
    if double:
        print(f"largest difference of the losses: ours and fp64 {apart(ours, found['fp64']):.2e}, PyTorch's fp32 and fp64 {apart(found['fp32'], found['fp64']):.2e}")
    if share:
        for n in range(10, len(ours) + 1, 10):
            print(f"until step {n}: ours and PyTorch {apart(ours[:n], found['fp32'][:n]):.1e}, PyTorch and itself from weights apart by {share:g} "
                  f"{apart(found['fp32'][:n], found['perturbed'][:n]):.1e}" + (f", PyTorch's fp32 and fp64 {apart(found['fp32'][:n], found['fp64'][:n]):.1e}" if double else ""))
    print(f"{'ok ' if worst <= LOSS_ALLOWED else 'BAD'} {len(ours)} steps: largest difference of the losses, ours and PyTorch's fp32: {worst:.2e}")
    return worst > LOSS_ALLOWED


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=0, help="compare so many steps of a training in place of gradients")
    parser.add_argument("--config", default="configs/train_tiny.json")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the config")
    parser.add_argument("--double", action="store_true", help="replay the steps in float64 too: how far rounding alone takes two runs apart")
    parser.add_argument("--perturb", type=float, default=0.0, help="replay them in PyTorch from weights that differ by this share, too: how far chaos alone takes two runs apart")
    parser.add_argument("--folder", help="keep what dump writes here, and use it when it is there")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(1 if (check_steps(a.config, a.steps, a.set, a.folder or scratch, a.double, a.perturb) if a.steps else check_gradients() + check_adapters()) else 0)
