#!/usr/bin/env python3
"""sdar_moe.py - SDAR-MoE: logits, tokens and forwards beside SDAR's own layers with transformers' Qwen3-MoE experts.

    MASKBENCH_OFFICIAL_SDAR=FOLDER python3 tests/official/sdar_moe.py

The published class (modeling_sdar_moe.py) is in the checkpoints' folders only. It is SDAR's layer with the experts of
Qwen3-MoE's class of transformers 4.52, so that is what stands here: the layers of modeling_sdar.py (github.com/JetAstra/SDAR,
FOLDER) with Qwen3MoeSparseMoeBlock of the installed transformers as their feed-forward. See sdar.py and common.py.
"""
import sys

import sdar

EXPERTS = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=48, norm_topk_prob=True, decoder_sparse_step=1,
               mlp_only_layers=[])


def change(model):
    from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    class Experts(Qwen3MoeSparseMoeBlock):
        def forward(self, x):
            return super().forward(x)[0]

    config = Qwen3MoeConfig(hidden_size=sdar.SIZES["hidden_size"], hidden_act="silu", **EXPERTS)
    for layer in model.model.layers:
        layer.mlp = Experts(config)


sys.exit(sdar.main("SDAR-MoE", change, dict(EXPERTS, model_type="sdar_moe")))
