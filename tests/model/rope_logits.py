#!/usr/bin/env python3
"""rope_logits.py - logits of models/tiny under scaled RoPE, beside transformers' Qwen3 on the same weights.

usage: rope_logits.py HARNESS. A block of one token makes block-causal attention causal, so both compute the same. The
sequence is longer than the original length, so that longrope has its long frequencies on both sides. dynamic is not
here: it differs beyond max_position_embeddings only, where `logits` refuses (tests/model/rope_cases.h has it).
Needs torch and transformers 5.x.
"""
import json, os, shutil, subprocess, sys, tempfile

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from safetensors.torch import load_file

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models", "tiny")
FACTORS = {"short_factor": [1.0 + 0.01 * i for i in range(32)], "long_factor": [1.0 + 0.3 * i for i in range(32)]}
CASES = {
    "default": {},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    "llama3": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}},
    "longrope": {"rope_scaling": {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64,
                 **FACTORS}, "max_position_embeddings": 256},
    "parameters": {"rope_parameters": {"rope_type": "yarn", "factor": 8.0, "rope_theta": 5e5,
                   "original_max_position_embeddings": 32, "attention_factor": 1.1}},
}
LENGTH = 160


def main():
    harness, worst = sys.argv[1], 0.0
    base = json.load(open(os.path.join(TINY, "config.json")))
    weights = {k: v.float() for k, v in load_file(os.path.join(TINY, "model.safetensors")).items()}
    ids = torch.arange(LENGTH) * 37 % 2000
    plain = None
    for name, extra in CASES.items():
        config = {**base, **json.loads(json.dumps(extra)), "bd_size": 1}
        if "rope_parameters" in config:
            config.pop("rope_theta")
        folder = tempfile.mkdtemp()
        json.dump(config, open(folder + "/config.json", "w"))
        for file in ("model.safetensors", "tokenizer.json"):
            os.symlink(os.path.abspath(os.path.join(TINY, file)), os.path.join(folder, file))
        open(folder + "/ids.txt", "w").write(" ".join(map(str, ids.tolist())))
        keys = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "bd_size", "mask_token_id")}
        model = Qwen3ForCausalLM(Qwen3Config(**keys)).eval()
        missing, unexpected = model.load_state_dict(weights, strict=False)
        model.tie_weights()
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        with torch.no_grad():
            wanted = model(ids[None]).logits[0].float().numpy()
        run = subprocess.run([harness, "logits", "--model", folder, "--ids", folder + "/ids.txt", "--out",
                              folder + "/o.npy", "--type", "f32", "--quiet"], stderr=subprocess.PIPE, text=True)
        if run.returncode:
            sys.exit(f"{name}: {run.stderr.strip()}")
        got = np.load(folder + "/o.npy")
        shutil.rmtree(folder)
        plain = wanted if plain is None else plain
        distance = np.abs(got - wanted).max() / np.abs(wanted).max()
        worst = max(worst, distance)
        print(f"{name}: largest difference {distance:.2e} of the largest logit; scaled against plain RoPE "
              f"{np.abs(wanted - plain).max() / np.abs(wanted).max():.2e}")
    sys.exit(1 if worst > 1e-4 else 0)


main()
