#!/usr/bin/env python3
"""fast_dllm.py - Fast-dLLM v2: logits, tokens and forwards beside generate() of the model's modeling.py.

    MASKBENCH_OFFICIAL_FAST_DLLM=FOLDER python3 tests/official/fast_dllm.py

FOLDER holds modeling.py and configuration.py of Efficient-Large-Model/Fast_dLLM_v2_7B. Left out, since ours differs on
purpose (docs/families.md): a prompt of exactly one block, fewer new tokens than a block. See common.py.
"""
import os, random, sys, tempfile

from common import Count, Tally, folder_or_skip, load_package, our_logits, our_tokens, save, sharpen

FOLDER = folder_or_skip("MASKBENCH_OFFICIAL_FAST_DLLM", "modeling.py of Fast-dLLM v2")
import torch
torch.set_num_threads(1)
torch.compile = lambda *args, **kwargs: (lambda function: function)  # the training path is compiled on import
module = load_package(FOLDER, "official_fast_dllm")
Config, Model = module("configuration").Fast_dLLM_QwenConfig, module("modeling").Fast_dLLM_QwenForCausalLM

VOCAB, MASK, STOP, BLOCK = 700, 699, 698, 32
SIZES = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=1024, rope_theta=1e6, rms_norm_eps=1e-6, bd_size=BLOCK,
             tie_word_embeddings=False, eos_token_id=STOP, bos_token_id=1)


def kind(args, kwargs):
    if kwargs.get("update_past_key_values"):
        return "write"
    return "denoise"


def main():
    tally, rng = Tally("Fast-dLLM v2"), random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(3):
            config = Config(**SIZES, attn_implementation="sdpa")
            model = sharpen(Model(config), torch, seed, 5.0 + 3 * seed, MASK)
            where = os.path.join(folder, f"fd{seed}")
            save(model, dict(SIZES, model_type="Fast_dLLM_Qwen", architectures=["Fast_dLLM_QwenForCausalLM"],
                             hidden_act="silu", mask_token_id=MASK), where)
            for length in (1, 7, 31, 32, 33, 64, 100, 160):
                ids = [rng.randrange(VOCAB - 2) for _ in range(length)]
                with torch.no_grad():
                    theirs = model(input_ids=torch.tensor([ids]), use_cache=True, update_past_key_values=True,
                                   block_size=BLOCK).logits[0].numpy()
                tally.logits(our_logits(where, ids), theirs)
            count = Count(model, kind)
            for item in range(int(os.environ.get("MASKBENCH_OFFICIAL_ITEMS", "24"))):
                length = rng.choice([5, 20, 31, 33, 45, 63, 64, 65, 96, 97])
                threshold, sub = rng.choice([0.3, 0.5, 0.7, 0.9, 1.0]), rng.choice([4, 8, 8, 16, 32])
                cache, new = rng.random() < 0.5, rng.choice([32, 64, 96])
                ids = [rng.randrange(VOCAB - 2) for _ in range(length)]
                stop = rng.choice([STOP, rng.randrange(VOCAB - 2)])
                with torch.no_grad():
                    text = model.generate(torch.tensor([ids]), max_new_tokens=new, mask_id=MASK, threshold=threshold,
                                          small_block_size=sub, block_size=BLOCK, stop_token=stop,
                                          use_block_cache=cache)[0].tolist()[length:]
                counts = count.take()
                prefill = 1 if length > BLOCK else 0
                theirs = (text, counts.get("denoise", 0), counts.get("write", 0) - prefill)
                ours = our_tokens(where, ids, new, ["--confidence", "f32", "--threshold", str(threshold), "--sub-block",
                                                    str(sub), "--block-cache", str(cache).lower(), "--stop", str(stop)])
                tally.tokens("tokens and forwards", tuple(ours[:3]), theirs,
                             f" (seed {seed}, prompt {length}, threshold {threshold}, sub-block {sub}, cache {cache})")
    return tally.end()


sys.exit(main())
