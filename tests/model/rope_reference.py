#!/usr/bin/env python3
"""rope_reference.py - frequencies and attention factors of transformers' ROPE_INIT_FUNCTIONS, as rows of a C table.

Reads the cases below, computes each with transformers (5.x) and prints name, JSON, factor and frequencies for
tests/model/rope_cases.h. Uses torch; where it is missing, numpy stands in for the few functions that are called
(fp32, so the last bit may differ)."""
import copy, json, types
import numpy as np

try:
    import torch
except ImportError:
    torch = None
import transformers
from transformers import modeling_rope_utils as rope
from transformers import Qwen3Config


class Tensor(np.ndarray):
    """An array that knows torch's .to(), .float() and keeps fp32 with Python's numbers."""

    def to(self, device=None, dtype=None):
        return self if dtype is None else self.astype(np.float32).view(Tensor)

    def float(self):
        return self.astype(np.float32).view(Tensor)


def stand_in():
    t = types.SimpleNamespace(float=np.float32, float32=np.float32, int64=np.int64)
    f32 = lambda a: np.asarray(a, dtype=np.float32).view(Tensor)
    t.arange = lambda *a, dtype=None, device=None: (f32 if dtype == np.float32 else lambda x: x.view(Tensor))(np.arange(*a))
    t.tensor = lambda a, dtype=None, device=None: f32(a)
    t.clamp = lambda a, low, high: f32(np.clip(a, np.float32(low), np.float32(high)))
    t.where = lambda c, a, b: f32(np.where(c, a, b))
    return t


if torch is None:
    rope.torch = stand_in()

BASE = {"head_dim": 32, "max_position_embeddings": 4096, "rope_theta": 10000.0}
CASES = {
    "default": {},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "linear_parameters": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 500000.0}},
    "dynamic_short": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "dynamic_long": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "length": 16384},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}},
    "yarn_type": {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    "yarn_all": {"rope_parameters": {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
                 "rope_theta": 10000.0, "beta_fast": 16, "beta_slow": 2, "mscale": 0.707, "mscale_all_dim": 1.0,
                 "truncate": False}},
    "yarn_attention": {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "attention_factor": 1.25}},
    "yarn_ratio": {"rope_scaling": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 512}},
    "llama3": {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 2048}},
    "llama3_root": {"rope_theta": 500000.0, "original_max_position_embeddings": 8192, "rope_scaling": {"rope_type":
                    "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64}},
    "longrope_short": {"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "longrope", "factor": 4.0,
                       "original_max_position_embeddings": 4096, "short_factor": [1.0 + 0.01 * i for i in range(16)],
                       "long_factor": [1.0 + 0.5 * i for i in range(16)]}},
    "longrope_long": {"max_position_embeddings": 8192, "length": 8192, "rope_scaling": {"type": "longrope",
                      "original_max_position_embeddings": 1024, "short_factor": [1.0 + 0.01 * i for i in range(16)],
                      "long_factor": [1.0 + 0.5 * i for i in range(16)]}},
}


def rows():
    for name, extra in CASES.items():
        keys = {k: v for k, v in {**BASE, **extra}.items() if k != "length"}
        if "rope_parameters" in keys:
            keys.pop("rope_theta")
        given = copy.deepcopy(keys)
        root = keys.pop("original_max_position_embeddings", None)
        config = Qwen3Config(hidden_size=64, num_attention_heads=2, num_key_value_heads=1, **keys)
        if root is not None:
            config.original_max_position_embeddings = root
        config.standardize_rope_params()
        kind = config.rope_parameters["rope_type"]
        if kind == "default":
            from_theta = np.arange(0, 32, 2).astype(np.float32) / np.float32(32)
            frequency, factor = np.float32(1) / np.power(np.float32(config.rope_parameters["rope_theta"]), from_theta), 1.0
        else:
            frequency, factor = rope.ROPE_INIT_FUNCTIONS[kind](config, None, seq_len=extra.get("length"))
        yield name, given, extra.get("length", 0), float(factor), [float(x) for x in np.asarray(frequency)]


def main():
    print("/*\n * rope_cases.h - RoPE parameters as config.json writes them, with the frequencies that transformers computes.\n"
          " * Made by tests/model/rope_reference.py with transformers %s and %s: name, keys, length that\n"
          " * the model is opened for (0: the file's), factor on cosine and sine, frequencies.\n */\n"
          "/* clang-format off */" % (
        transformers.__version__, "torch " + torch.__version__ if torch else "numpy " + np.__version__))
    for name, given, length, factor, frequency in rows():
        quoted = json.dumps(given)[1:-1].replace('"', '\\"')
        parts = []
        while quoted:
            cut = 90
            while cut < len(quoted) and quoted[cut - 1] == "\\":
                cut += 1
            parts.append(quoted[:cut])
            quoted = quoted[cut:]
        print('{"%s",\n %s,\n %d, %.9g,\n {' % (name, "\n ".join('"%s"' % p for p in parts), length, factor), end="")
        print(", ".join(("\n  " if i % 6 == 0 and i else "") + "%.9g" % x for i, x in enumerate(frequency)) + "}},")


main()
