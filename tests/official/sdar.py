#!/usr/bin/env python3
"""sdar.py - SDAR: logits, tokens and forwards beside modeling_sdar.py, the evaluation's decoder (huggingface_bd3.py) and
generate.py.

    MASKBENCH_OFFICIAL_SDAR=FOLDER python3 tests/official/sdar.py

FOLDER is a checkout of github.com/JetAstra/SDAR. Its layers call flash-attn kernels, which need a GPU: here PyTorch stands
in for the two that are used (an RMSNorm with one rounding, attention without a mask). generate.py is compared where its
rule does not hang on ties: sequential, with top_k 1 (then every confidence is 1). Its entropy_bounded does not run. Left
out, since ours differs on purpose: fewer steps than tokens with a prompt that ends inside a block (see sdar.c).

MASKBENCH_OFFICIAL_TYPE=f16 runs both in fp16, as SDAR was evaluated; a sum in another order may then turn a decision, so the
equal texts are counted and none is demanded. See common.py.
"""
import os, random, sys, tempfile

from common import TYPE, Count, Tally, folder_or_skip, load_package, our_logits, our_tokens, save, sharpen

VOCAB, MASK, STOPS = 700, 699, [698, 697]
SIZES = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, rope_theta=1e6, rms_norm_eps=1e-6,
             tie_word_embeddings=False, attention_bias=False, eos_token_id=STOPS, bos_token_id=1)


def stand_ins(torch):
    functional = torch.nn.functional

    def rms_norm_fn(x, weight, bias, eps):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)

    def flash_attn_func(q, k, v, causal, softmax_scale):
        assert not causal
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v, scale=softmax_scale, enable_gqa=True).transpose(1, 2)

    return [("flash_attn", {"flash_attn_func": flash_attn_func, "flash_attn_varlen_func": None}),
            ("flash_attn.ops", {}), ("flash_attn.ops.triton", {}),
            ("flash_attn.ops.triton.layer_norm", {"rms_norm_fn": rms_norm_fn}),
            ("flash_attn.bert_padding", {"index_first_axis": None, "pad_input": None, "unpad_input": None}),
            ("official_sdar.fused_linear_diffusion_cross_entropy", {"FusedLinearDiffusionCrossEntropyLoss": None})]


def read_functions(path, first, behind):
    """The functions of a file from one line on up to another: its imports ask for packages that decoding does not use."""
    import numpy, torch
    from transformers.cache_utils import DynamicCache
    text = open(path, encoding="utf8").read()
    space = {"torch": torch, "np": numpy, "F": torch.nn.functional, "DynamicCache": DynamicCache}
    exec(compile(text[text.index(first):text.index(behind)], path, "exec"), space)
    return space


def block_causal(torch, length, block):
    at = torch.arange(length) // block
    return (at[:, None] >= at[None, :])[None]


def compare_logits(tally, torch, model, where, block, rng):
    from transformers.cache_utils import DynamicCache
    for length in (1, 3, block, block + 1, 40, 97, 160):
        ids = [rng.randrange(VOCAB - 3) for _ in range(length)]
        with torch.no_grad():
            theirs = model(torch.tensor([ids]), attention_mask=block_causal(torch, length, block),
                           position_ids=torch.arange(length)[None], past_key_values=DynamicCache(), use_cache=True,
                           store_kv=True).logits[0].float().numpy()
        tally.logits(our_logits(where, ids, ["--block", str(block)]), theirs)


def compare_tokens(tally, torch, model, where, folder, seed, rng):
    evaluation = read_functions(
        os.path.join(folder, "evaluation/opencompass/opencompass/models/huggingface_bd3.py"),
        "def add_gumbel_noise", "def forward_add_noise")["block_diffusion_generate"]
    published = read_functions(os.path.join(folder, "generate.py"), "def top_k_logits", "def parse_args")
    count = Count(model, lambda args, kwargs: "write" if kwargs.get("store_kv") else "denoise")
    for item in range(int(os.environ.get("MASKBENCH_OFFICIAL_ITEMS", "24"))):
        block = rng.choice([4, 4, 8, 16])
        steps = rng.choice([block, block, block // 2, 1])
        length, new = rng.randrange(1, 70), rng.choice([8, 17, 32])
        if steps < block:
            length = length // block * block or block
        threshold = rng.choice([0.2, 0.5, 0.85, 0.95, 1.0])
        rule = rng.choice(["evaluation", "evaluation", "sequential"])
        ids = [rng.randrange(VOCAB - 3) for _ in range(length)]
        stops = STOPS + [rng.randrange(VOCAB - 3)]
        prompt = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, length)}
        settings = dict(prompt=prompt, mask_id=MASK, gen_length=new, block_length=block, denoising_steps=steps,
                        temperature=1.0, top_k=1, top_p=1.0, stopping_criteria_idx=stops)
        with torch.no_grad():
            if rule == "sequential":
                text = published["block_diffusion_generate"](model, remasking_strategy="sequential", **settings)
            else:
                text = evaluation(model, None, threshold=threshold, **settings)
        text = text[0].tolist()[length:]
        first = [i for i, token in enumerate(text) if token in stops]
        counts = count.take()
        prefill = 1 if length >= block else 0
        theirs = (text[:first[0] + 1] if first else text, counts.get("denoise", 0), counts.get("write", 0) - prefill)
        strategy = "sequential" if rule == "sequential" else "low_confidence_dynamic" if threshold < 1 else "low_confidence_static"
        flags = ["--confidence", TYPE, "--threshold", str(threshold), "--block", str(block), "--remasking-strategy", strategy,
                 "--set", f"sampler.steps={steps}", "--stop", ",".join(map(str, stops))]
        ours = our_tokens(where, ids, new, flags)
        tally.tokens(f"tokens and forwards, {rule}", tuple(ours[:3]), theirs,
                     f" (seed {seed}, prompt {length}, block {block}, steps {steps}, threshold {threshold})", TYPE == "f16")


def main(name, change=None, extra=None):
    folder = folder_or_skip("MASKBENCH_OFFICIAL_SDAR", "a checkout of SDAR")
    import torch
    torch.set_num_threads(1)
    torch.compile = lambda *args, **kwargs: (lambda function: function)  # the training path is compiled on import
    module = load_package(os.path.join(folder, "training/model/SDAR-8B-Chat"), "official_sdar", stand_ins(torch))
    Config, Model = module("configuration_sdar").SDARConfig, module("modeling_sdar").SDARForCausalLM
    module("modeling_sdar").liger_kernel_is_available = False
    tally, rng = Tally(name), random.Random(2)
    with tempfile.TemporaryDirectory() as work:
        for seed in range(3):
            config = Config(**SIZES, fuse_cross_entropy=False)
            model = Model(config)
            if change:
                change(model)
            sharpen(model, torch, seed, 5.0 + 3 * seed, MASK)
            if TYPE == "f16":
                model.half()
            where = os.path.join(work, f"sdar{seed}")
            save(model, {**SIZES, "model_type": "sdar", "hidden_act": "silu", "block_size": 4, "mask_token_id": MASK, **(extra or {})},
                 where)
            compare_logits(tally, torch, model, where, (4, 8, 16)[seed], rng)
            compare_tokens(tally, torch, model, where, folder, seed, rng)
    return tally.end()


if __name__ == "__main__":
    sys.exit(main("SDAR"))
