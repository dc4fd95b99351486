/*
 * layout.c - the table of a model's tensors (the names that each family publishes) and what they weigh.
 *
 * q, k and v lie one after the other in one device tensor, and so do gate and up: one GEMM reads each. The experts
 * of a layer share two device tensors, gate and up of one expert side by side.
 */
#include "model/checkpoint/config.h"
#include "model/checkpoint/layout.h"

/* The names of a layer's tensors in the two layouts. The norms before attention and MLP are called the same. */
struct names {
    const char *q, *k, *v, *q_bias, *k_bias, *v_bias; /* k NULL: q is q, k and v in one tensor */
    const char *q_norm, *k_norm, *o;
};
static const struct names qwen = {.q = "self_attn.q_proj.weight",
                                  .k = "self_attn.k_proj.weight",
                                  .v = "self_attn.v_proj.weight",
                                  .q_bias = "self_attn.q_proj.bias",
                                  .k_bias = "self_attn.k_proj.bias",
                                  .v_bias = "self_attn.v_proj.bias",
                                  .q_norm = "self_attn.q_norm.weight",
                                  .k_norm = "self_attn.k_norm.weight",
                                  .o = "self_attn.o_proj.weight"};
static const struct names bailing = {.q = "attention.query_key_value.weight",
                                     .q_bias = "attention.query_key_value.bias",
                                     .q_norm = "attention.query_layernorm.weight",
                                     .k_norm = "attention.key_layernorm.weight",
                                     .o = "attention.dense.weight"};

/* Appends and returns the new count. The longest list has 18 parts: experts beside a shared one, with q/k/v biases
 * and q/k norm. */
static int add(mb_weight_part *parts, int n, mb_weight_part part)
{
    parts[n] = part;
    return n + 1;
}

#define PART(...) n = add(parts, n, (mb_weight_part){__VA_ARGS__, 0, 0})
#define EXPERT_PART(...) n = add(parts, n, (mb_weight_part){__VA_ARGS__})

/* A layer's attention and its two norms. */
static int add_attention(const mb_model_config *c, mb_weight_part *parts, int n)
{
    const struct names *names = c->family == MB_FAMILY_LLADA2 ? &bailing : &qwen;
    const int64_t hidden = c->hidden, q = (int64_t)c->query_heads * c->head_dim, d = c->head_dim;
    const int64_t kv = (int64_t)c->kv_heads * c->head_dim, all = q + 2 * kv, first = names->k ? q : all;
#define AT(field) offsetof(struct mb_layer, field)
    PART("input_layernorm.weight", MB_WEIGHT_NORM, hidden, 1, AT(input_norm), 0, hidden);
    PART(names->q, MB_WEIGHT_LINEAR, first, hidden, AT(qkv), 0, all);
    if (names->k) {
        PART(names->k, MB_WEIGHT_LINEAR, kv, hidden, AT(qkv), q, all);
        PART(names->v, MB_WEIGHT_LINEAR, kv, hidden, AT(qkv), q + kv, all);
    }
    if (c->qkv_bias)
        PART(names->q_bias, MB_WEIGHT_BIAS, first, 1, AT(qkv_bias), 0, all);
    if (c->qkv_bias && names->k) {
        PART(names->k_bias, MB_WEIGHT_BIAS, kv, 1, AT(qkv_bias), q, all);
        PART(names->v_bias, MB_WEIGHT_BIAS, kv, 1, AT(qkv_bias), q + kv, all);
    }
    if (c->qk_norm) {
        PART(names->q_norm, MB_WEIGHT_NORM, d, 1, AT(q_norm), 0, d);
        PART(names->k_norm, MB_WEIGHT_NORM, d, 1, AT(k_norm), 0, d);
    }
    PART(names->o, MB_WEIGHT_OUTPUT, hidden, q, AT(o), 0, hidden);
    PART("post_attention_layernorm.weight", MB_WEIGHT_NORM, hidden, 1, AT(post_norm), 0, hidden);
    return n;
}

/* A dense MLP or the shared expert: gate, up and down called as given. */
static int add_mlp(const mb_model_config *c, int64_t inner, const char *const names[3], mb_weight_part *parts,
                   int n)
{
    PART(names[0], MB_WEIGHT_LINEAR, inner, c->hidden, AT(gate_up), 0, 2 * inner);
    PART(names[1], MB_WEIGHT_LINEAR, inner, c->hidden, AT(gate_up), inner, 2 * inner);
    PART(names[2], MB_WEIGHT_OUTPUT, c->hidden, inner, AT(down), 0, c->hidden);
    return n;
}

static int add_experts(const mb_model_config *c, mb_weight_part *parts, int n)
{
    const int64_t hidden = c->hidden, size = c->moe.size, experts = c->moe.experts;
    const int32_t copies = c->moe.experts;
    PART("mlp.gate.weight", MB_WEIGHT_LINEAR, experts, hidden, AT(router), 0, experts);
    if (c->moe.bias)
        PART("mlp.gate.expert_bias", MB_WEIGHT_BALANCE, experts, 1, AT(router_bias), 0, experts);
    EXPERT_PART("mlp.experts.%d.gate_proj.weight", MB_WEIGHT_LINEAR, size, hidden, AT(expert_gate_up), 0,
                2 * size * experts, copies, 2 * size);
    EXPERT_PART("mlp.experts.%d.up_proj.weight", MB_WEIGHT_LINEAR, size, hidden, AT(expert_gate_up), size,
                2 * size * experts, copies, 2 * size);
    EXPERT_PART("mlp.experts.%d.down_proj.weight", MB_WEIGHT_OUTPUT, hidden, size, AT(expert_down), 0,
                hidden * experts, copies, hidden);
    return n;
}

int mb_layout_layer(const mb_model_config *c, int32_t layer, mb_weight_part parts[MB_WEIGHT_PARTS_MAX])
{
    static const char *const dense[3] = {"mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"};
    static const char *const shared[3] = {"mlp.shared_experts.gate_proj.weight",
                                          "mlp.shared_experts.up_proj.weight",
                                          "mlp.shared_experts.down_proj.weight"};
    const bool moe = mb_layer_is_moe(c, layer);
    int n = add_attention(c, parts, 0);
    if (mb_layer_inner(c, layer) > 0)
        n = add_mlp(c, mb_layer_inner(c, layer), moe ? shared : dense, parts, n);
    return moe ? add_experts(c, parts, n) : n;
}
#undef AT

int mb_layout_model(const mb_model_config *c, mb_weight_part parts[MB_WEIGHT_PARTS_MAX])
{
    const char *embed =
        c->family == MB_FAMILY_LLADA2 ? "model.word_embeddings.weight" : "model.embed_tokens.weight";
#define AT(field) offsetof(struct mb_model, field)
    int n = 0;
    PART(embed, MB_WEIGHT_EMBED, c->vocab, c->hidden, AT(embed), 0, c->vocab);
    PART("model.norm.weight", MB_WEIGHT_NORM, c->hidden, 1, AT(final_norm), 0, c->hidden);
    if (!c->tied)
        PART("lm_head.weight", MB_WEIGHT_HEAD, c->vocab, c->hidden, AT(lm_head), 0, c->vocab);
#undef AT
    return n;
}
#undef EXPERT_PART
#undef PART

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
            bytes += mb_layout_padded((size_t)(parts[i].tensor_rows * parts[i].cols) *
                                      mb_type_size(mb_layout_type(&parts[i], type)));
    return bytes;
}

/* Weights and the RoPE table, as mb_model_open() will allocate them: one padded piece a device tensor. Layers
 * differ at most in being dense or not. */
size_t mb_model_weight_bytes(const mb_model_config *config, mb_type type)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    const int32_t dense = config->moe.experts > 0 ? config->moe.dense_layers : config->layers;
    size_t bytes = parts_bytes(parts, mb_layout_model(config, parts), type);
    if (dense > 0)
        bytes += parts_bytes(parts, mb_layout_layer(config, 0, parts), type) * (size_t)dense;
    if (dense < config->layers)
        bytes +=
            parts_bytes(parts, mb_layout_layer(config, dense, parts), type) * (size_t)(config->layers - dense);
    return bytes + mb_layout_padded((size_t)config->positions * (size_t)config->rotary_dim * sizeof(float));
}
