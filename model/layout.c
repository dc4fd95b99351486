/*
 * layout.c - the table of a model's tensors (models.md 3.2 and 4.2) and what they weigh.
 *
 * q, k and v lie one after the other in one device tensor, and so do gate and up: one GEMM reads each.
 */
#include "model/layout.h"

/* Appends and returns the new count. The longest list has 14 parts: a layer with biases and q/k norm. */
static int add(mb_weight_part *parts, int n, mb_weight_part part)
{
    parts[n] = part;
    return n + 1;
}

int mb_layout_layer(const mb_model_config *c, mb_weight_part parts[MB_WEIGHT_PARTS_MAX])
{
    const int64_t hidden = c->hidden, q = (int64_t)c->query_heads * c->head_dim;
    const int64_t kv = (int64_t)c->kv_heads * c->head_dim, all = q + 2 * kv, inner = c->intermediate;
#define PART(...) n = add(parts, n, (mb_weight_part){__VA_ARGS__})
#define AT(field) offsetof(struct mb_layer, field)
    int n = 0;
    PART("input_layernorm.weight", MB_WEIGHT_NORM, hidden, 1, AT(input_norm), 0, hidden);
    PART("self_attn.q_proj.weight", MB_WEIGHT_LINEAR, q, hidden, AT(qkv), 0, all);
    PART("self_attn.k_proj.weight", MB_WEIGHT_LINEAR, kv, hidden, AT(qkv), q, all);
    PART("self_attn.v_proj.weight", MB_WEIGHT_LINEAR, kv, hidden, AT(qkv), q + kv, all);
    if (c->qkv_bias) {
        PART("self_attn.q_proj.bias", MB_WEIGHT_BIAS, q, 1, AT(qkv_bias), 0, all);
        PART("self_attn.k_proj.bias", MB_WEIGHT_BIAS, kv, 1, AT(qkv_bias), q, all);
        PART("self_attn.v_proj.bias", MB_WEIGHT_BIAS, kv, 1, AT(qkv_bias), q + kv, all);
    }
    if (c->qk_norm) {
        int64_t d = c->head_dim;
        PART("self_attn.q_norm.weight", MB_WEIGHT_NORM, d, 1, AT(q_norm), 0, d);
        PART("self_attn.k_norm.weight", MB_WEIGHT_NORM, d, 1, AT(k_norm), 0, d);
    }
    PART("self_attn.o_proj.weight", MB_WEIGHT_OUTPUT, hidden, q, AT(o), 0, hidden);
    PART("post_attention_layernorm.weight", MB_WEIGHT_NORM, hidden, 1, AT(post_norm), 0, hidden);
    PART("mlp.gate_proj.weight", MB_WEIGHT_LINEAR, inner, hidden, AT(gate_up), 0, 2 * inner);
    PART("mlp.up_proj.weight", MB_WEIGHT_LINEAR, inner, hidden, AT(gate_up), inner, 2 * inner);
    PART("mlp.down_proj.weight", MB_WEIGHT_OUTPUT, hidden, inner, AT(down), 0, hidden);
#undef AT
#undef PART
    return n;
}

int mb_layout_model(const mb_model_config *c, mb_weight_part parts[MB_WEIGHT_PARTS_MAX])
{
#define PART(...) n = add(parts, n, (mb_weight_part){__VA_ARGS__})
#define AT(field) offsetof(struct mb_model, field)
    int n = 0;
    PART("model.embed_tokens.weight", MB_WEIGHT_EMBED, c->vocab, c->hidden, AT(embed), 0, c->vocab);
    PART("model.norm.weight", MB_WEIGHT_NORM, c->hidden, 1, AT(final_norm), 0, c->hidden);
    if (!c->tied)
        PART("lm_head.weight", MB_WEIGHT_HEAD, c->vocab, c->hidden, AT(lm_head), 0, c->vocab);
#undef AT
#undef PART
    return n;
}

size_t mb_layout_padded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* A device tensor is counted at its first part; the others lie inside it. */
static size_t parts_bytes(const mb_weight_part *parts, int n, mb_type type)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        if (parts[i].first_row == 0)
            bytes += mb_layout_padded((size_t)(parts[i].tensor_rows * parts[i].cols) * mb_type_size(type));
    return bytes;
}

/* Weights and the RoPE table, as mb_model_open() will allocate them: one padded piece a device tensor. */
size_t mb_model_weight_bytes(const mb_model_config *config, mb_type type)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    size_t bytes = parts_bytes(parts, mb_layout_layer(config, parts), type) * (size_t)config->layers;
    bytes += parts_bytes(parts, mb_layout_model(config, parts), type);
    return bytes + mb_layout_padded((size_t)config->positions * (size_t)config->head_dim * sizeof(float));
}
