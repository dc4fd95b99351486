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

/* Appends and returns the new count. The longest list has 23 parts: experts beside a dense part, with norms of
 * both. */
static int add(mb_weight_part *parts, int n, mb_weight_part part)
{
    parts[n] = part;
    return n + 1;
}

#define PART(...) n = add(parts, n, (mb_weight_part){__VA_ARGS__, 0, 0, 0})
#define EXPERT_PART(...) n = add(parts, n, (mb_weight_part){__VA_ARGS__, 0})
#define STACKED_PART(planes, ...) n = add(parts, n, (mb_weight_part){__VA_ARGS__, 0, 0, planes})

/* A layer's attention and its two norms. */
static int add_attention(const mb_model_config *c, int32_t layer, mb_weight_part *parts, int n)
{
    const mb_layer_sizes sizes = mb_layer_sizes_of(c, layer);
    const struct names *names = c->family == MB_FAMILY_LLADA2 ? &bailing : &qwen;
    const int64_t hidden = c->hidden, q = sizes.width, d = sizes.head_dim;
    const int64_t kv = (int64_t)sizes.kv_heads * d, all = sizes.qkv, first = names->k ? q : all;
#define AT(field) offsetof(struct mb_layer, field)
    PART("input_layernorm.weight", MB_WEIGHT_NORM, hidden, 1, AT(input_norm), 0, hidden);
    PART(names->q, MB_WEIGHT_LINEAR, first, hidden, AT(qkv), 0, all);
    if (names->k) {
        PART(names->k, MB_WEIGHT_LINEAR, kv, hidden, AT(qkv), q, all);
        if (!sizes.value_is_key)
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

/* What Gemma's layers have beyond the others', their experts among it: all of a layer in one tensor. */
static int add_wrapped(const mb_model_config *c, mb_weight_part *parts, int n)
{
    const int64_t hidden = c->hidden, size = c->moe.size, experts = c->moe.experts;
    PART("pre_feedforward_layernorm.weight", MB_WEIGHT_NORM, hidden, 1, AT(pre_norm), 0, hidden);
    PART("post_feedforward_layernorm_1.weight", MB_WEIGHT_NORM, hidden, 1, AT(dense_norm), 0, hidden);
    PART("pre_feedforward_layernorm_2.weight", MB_WEIGHT_NORM, hidden, 1, AT(expert_pre_norm), 0, hidden);
    PART("post_feedforward_layernorm_2.weight", MB_WEIGHT_NORM, hidden, 1, AT(expert_norm), 0, hidden);
    PART("post_feedforward_layernorm.weight", MB_WEIGHT_NORM, hidden, 1, AT(out_norm), 0, hidden);
    PART("layer_scalar", MB_WEIGHT_NORM, 1, 1, AT(scalar), 0, 1);
    PART("/model.encoder.language_model.layers.%d.layer_scalar", MB_WEIGHT_NORM, 1, 1, AT(causal_scalar), 0, 1);
    PART("router.proj.weight", MB_WEIGHT_LINEAR, experts, hidden, AT(router), 0, experts);
    PART("router.scale", MB_WEIGHT_NORM, hidden, 1, AT(router_scale), 0, hidden);
    PART("router.per_expert_scale", MB_WEIGHT_NORM, experts, 1, AT(expert_scale), 0, experts);
    STACKED_PART(experts, "experts.gate_up_proj", MB_WEIGHT_LINEAR, 2 * size * experts, hidden, AT(expert_gate_up),
                 0, 2 * size * experts);
    STACKED_PART(experts, "experts.down_proj", MB_WEIGHT_OUTPUT, hidden * experts, size, AT(expert_down), 0,
                 hidden * experts);
    return n;
}

const char *mb_layout_prefix(const mb_model_config *config)
{
    return config->family == MB_FAMILY_DIFFUSION_GEMMA ? "model.decoder.layers." : "model.layers.";
}

bool mb_layout_skipped(const mb_model_config *config, size_t i, const char **prefix)
{
    static const char *const vision[] = {"model.encoder.vision_tower.", "model.encoder.embed_vision."};
    *prefix = NULL;
    if (config->family != MB_FAMILY_DIFFUSION_GEMMA || i >= sizeof vision / sizeof vision[0])
        return false;
    *prefix = vision[i];
    return true;
}

int mb_layout_layer(const mb_model_config *c, int32_t layer, mb_weight_part parts[MB_WEIGHT_PARTS_MAX])
{
    static const char *const dense[3] = {"mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"};
    static const char *const shared[3] = {"mlp.shared_experts.gate_proj.weight",
                                          "mlp.shared_experts.up_proj.weight",
                                          "mlp.shared_experts.down_proj.weight"};
    const bool moe = mb_layer_is_moe(c, layer);
    int n = add_attention(c, layer, parts, 0);
    if (mb_layer_inner(c, layer) > 0)
        n = add_mlp(c, mb_layer_inner(c, layer), moe && !c->moe.beside ? shared : dense, parts, n);
    if (c->wrapped)
        return add_wrapped(c, parts, n);
    return moe ? add_experts(c, parts, n) : n;
}
#undef AT

/* What turns the last logits of a canvas into a part of its input. */
static int add_conditioning(const mb_model_config *c, mb_weight_part *parts, int n)
{
    const int64_t hidden = c->hidden, inner = c->intermediate;
#define AT(field) offsetof(struct mb_model, conditioning) + offsetof(struct mb_layer, field)
    PART("model.decoder.self_conditioning.pre_norm.weight", MB_WEIGHT_NORM, hidden, 1, AT(input_norm), 0, hidden);
    PART("model.decoder.self_conditioning.gate_proj.weight", MB_WEIGHT_LINEAR, inner, hidden, AT(gate_up), 0,
         2 * inner);
    PART("model.decoder.self_conditioning.up_proj.weight", MB_WEIGHT_LINEAR, inner, hidden, AT(gate_up), inner,
         2 * inner);
    PART("model.decoder.self_conditioning.down_proj.weight", MB_WEIGHT_OUTPUT, hidden, inner, AT(down), 0, hidden);
#undef AT
    return n;
}

int mb_layout_model(const mb_model_config *c, mb_weight_part parts[MB_WEIGHT_PARTS_MAX])
{
    const bool gemma = c->family == MB_FAMILY_DIFFUSION_GEMMA;
    const char *embed = c->family == MB_FAMILY_LLADA2 ? "model.word_embeddings.weight"
                        : gemma                       ? "model.decoder.embed_tokens.weight"
                                                      : "model.embed_tokens.weight";
#define AT(field) offsetof(struct mb_model, field)
    int n = 0;
    PART(embed, MB_WEIGHT_EMBED, c->vocab, c->hidden, AT(embed), 0, c->vocab);
    PART(gemma ? "model.decoder.norm.weight" : "model.norm.weight", MB_WEIGHT_NORM, c->hidden, 1, AT(final_norm),
         0, c->hidden);
    if (!c->tied)
        PART("lm_head.weight", MB_WEIGHT_HEAD, c->vocab, c->hidden, AT(lm_head), 0, c->vocab);
#undef AT
    return c->canvas.steps > 0 ? add_conditioning(c, parts, n) : n;
}
#undef STACKED_PART
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

/* Weights and the RoPE tables, as mb_model_open() will allocate them: one padded piece a device tensor. */
size_t mb_model_weight_bytes(const mb_model_config *config, mb_type type)
{
    mb_weight_part parts[MB_WEIGHT_PARTS_MAX];
    size_t bytes = parts_bytes(parts, mb_layout_model(config, parts), type);
    for (int32_t l = 0; l < config->layers; l++)
        bytes += parts_bytes(parts, mb_layout_layer(config, l, parts), type);
    if (config->local.window > 0)
        bytes += mb_layout_padded((size_t)config->positions * (size_t)config->local.rotary_dim * sizeof(float));
    return bytes + mb_layout_padded((size_t)config->positions * (size_t)config->rotary_dim * sizeof(float));
}
