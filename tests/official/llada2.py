#!/usr/bin/env python3
"""llada2.py - LLaDA2.0 and 2.1: logits, tokens and forwards beside generate() of modeling_llada2_moe.py.

    MASKBENCH_OFFICIAL_LLADA2=FOLDER MASKBENCH_OFFICIAL_LLADA21=FOLDER python3 tests/official/llada2.py

The folders hold modeling_llada2*_moe.py and configuration_llada2*_moe.py of inclusionAI/LLaDA2.0-mini and LLaDA2.1-mini (or
their copies in github.com/ZHZisZZ/dllm, dllm/pipelines/llada2/models and llada21/models). generate() computes the whole text
in every forward, without a cache, under a mask in bf16, which is widened here to run in fp32. Left out, since ours differs on
purpose: eos_early_stop with the stop token in the prompt (theirs finds that one and returns nothing). See common.py.
"""
import glob, os, random, sys, tempfile

from common import Count, Tally, folder_or_skip, load_package, our_logits, our_tokens, save, sharpen

VOCAB, MASK, STOP, BLOCK = 700, 699, 698, 32
SIZES = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, rope_theta=6e5, rms_norm_eps=1e-6,
             tie_word_embeddings=False, use_qkv_bias=False, use_bias=False, use_qk_norm=True, num_experts=8,
             num_experts_per_tok=2, num_shared_experts=1, moe_intermediate_size=48, n_group=4, topk_group=2,
             first_k_dense_replace=1, routed_scaling_factor=2.5, partial_rotary_factor=0.5, pad_token_id=STOP)
MORE = dict(hidden_act="silu", model_type="llada2_moe", architectures=["LLaDA2MoeModelLM"], score_function="sigmoid",
            moe_router_enable_expert_bias=True, norm_topk_prob=True, mask_token_id=MASK, eos_token_id=STOP)


def open_class(folder, name):
    module = load_package(folder, name)
    files = [os.path.basename(path)[:-3] for path in glob.glob(os.path.join(folder, "*llada2*_moe.py"))]
    config = [f for f in files if f.startswith("configuration")]
    model = [f for f in files if f.startswith("modeling")]
    if len(config) != 1 or len(model) != 1:
        sys.exit(f"{folder}: wanted one configuration_llada2*_moe.py and one modeling_llada2*_moe.py")
    return module(config[0]).LLaDA2MoeConfig, module(model[0]).LLaDA2MoeModelLM


def widen_masks(model, torch):
    inner = model.forward

    def forward(*args, **kwargs):
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = kwargs["attention_mask"].float()
        return inner(*args, **kwargs)

    model.forward = forward


def compare_logits(tally, torch, model, where, rng):
    for length in (1, 5, 31, 32, 33, 64, 100, 160):
        ids = [rng.randrange(VOCAB - 2) for _ in range(length)]
        at = torch.arange(length) // BLOCK
        mask = (at[:, None] >= at[None, :]).float().log()[None, None]
        with torch.no_grad():
            theirs = model(torch.tensor([ids]), attention_mask=mask, position_ids=torch.arange(length)[None])
        tally.logits(our_logits(where, ids), theirs.logits[0].numpy())


class Margin:
    """How close a decoding came to another decision: the least distance of a confidence from a threshold and of a best
    token from the second one. Sums in another order differ by about 1e-5 here, and one other decision changes all that
    follows."""

    def __init__(self, model):
        self.least, self.thresholds, self.inner = 1.0, (), model.forward
        model.forward = self.forward

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        best = out.logits[0, -BLOCK:].softmax(-1).topk(2, -1).values
        gaps = [(best[:, 0] - best[:, 1]).min()] + [(best[:, 0] - t).abs().min() for t in self.thresholds]
        self.least = min(self.least, min(float(gap) for gap in gaps))
        return out

    def begin(self, *thresholds):
        self.least, self.thresholds = 1.0, thresholds


NOISE = 5e-5


def compare_tokens(tally, torch, model, where, edits, seed, rng):
    margin = Margin(model)
    count = Count(model, lambda args, kwargs: "all")
    for item in range(int(os.environ.get("MASKBENCH_OFFICIAL_ITEMS", "24"))):
        length, new = rng.choice([3, 20, 31, 32, 33, 45, 64, 80]), rng.choice([8, 16, 32, 40, 64])
        threshold, steps = rng.choice([0.2, 0.4, 0.6, 0.8, 0.95]), rng.choice([32, 32, 16, 8, 5])
        editing, post = rng.choice([0.0, 0.3, 0.5, 0.7, 0.9, 2.0]), rng.choice([16, 16, 4, 0])
        early = rng.random() < 0.5
        ids = [rng.randrange(VOCAB - 2) for _ in range(length)]
        stop = rng.choice([STOP, STOP, rng.randrange(VOCAB - 2)])
        if stop in ids:
            stop = STOP
        if edits and editing > 1:
            new = max(new, BLOCK)
        flags = ["--confidence", "f32", "--threshold", str(threshold), "--stop", str(stop)]
        settings = dict(inputs=torch.tensor([ids]), block_length=BLOCK, gen_length=new, threshold=threshold, eos_id=stop,
                        mask_id=MASK)
        if edits:
            settings.update(steps=32, editing_threshold=editing, max_post_steps=post, eos_early_stop=True)
            flags += ["--editing-threshold", str(editing), "--max-post-steps", str(post)]
            group = "tokens, edits off" if editing > 1 else "tokens and forwards, edits"
        else:
            settings.update(steps=steps, eos_early_stop=early)
            flags += ["--set", f"sampler.steps={steps}", "--eos-early-stop", str(early).lower(), "--editing-threshold", "2"]
            group = "tokens and forwards"
        margin.begin(threshold, *([editing] if edits else []))
        with torch.no_grad():
            text = model.generate(**settings)[0].tolist()
        first = [i for i, token in enumerate(text) if token == stop]
        text = text[:first[0] + 1] if first else text
        forwards = count.take().get("all", 0)
        tokens, denoised, _, changed = our_tokens(where, ids, new, flags)
        if margin.least < NOISE:
            group += f", some decision within {NOISE}"
        only_text = edits and editing > 1
        tally.tokens(group, (tokens, None if only_text else denoised), (text, None if only_text else forwards),
                     f" (seed {seed}, prompt {length}, new {new}, threshold {threshold}, editing {editing}, post {post}, margin {margin.least:.1e})", margin.least < NOISE)
        tally.edits = getattr(tally, "edits", 0) + changed


def version(variable, name, edits):
    if not os.environ.get(variable):
        print(f"skipped: {variable} names no folder with modeling_llada2*_moe.py")
        return 0
    folder = folder_or_skip(variable, "modeling_llada2*_moe.py")
    import torch
    torch.set_num_threads(1)
    Config, Model = open_class(folder, "official_" + ("llada21" if edits else "llada2"))
    tally, rng = Tally(name), random.Random(3)
    with tempfile.TemporaryDirectory() as work:
        for seed in range(3):
            model = sharpen(Model(Config(**SIZES, attn_implementation="sdpa")), torch, seed, 5.0 + 3 * seed, MASK)
            torch.manual_seed(100 + seed)
            for buffer, tensor in model.named_buffers():
                if buffer.endswith("expert_bias"):
                    tensor.uniform_(-0.1, 0.1)
            widen_masks(model, torch)
            where = os.path.join(work, f"llada{seed}")
            save(model, {**SIZES, **MORE}, where)
            compare_logits(tally, torch, model, where, rng)
            compare_tokens(tally, torch, model, where, edits, seed, rng)
    if edits:
        print(f"{name}: {tally.edits} written tokens were edited")
    return tally.end()


sys.exit(version("MASKBENCH_OFFICIAL_LLADA2", "LLaDA2.0", False) | version("MASKBENCH_OFFICIAL_LLADA21", "LLaDA2.1", True))
