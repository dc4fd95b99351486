/*
 * config_canvas.c - the keys of a model of canvases (DiffusionGemma) that are no sizes: which layers have a
 * sliding window and what the others have in place of the common sizes, two sets of RoPE parameters, experts
 * beside the dense part, the sampler's settings. As configuration_diffusion_gemma.py of transformers 5.24.0 reads
 * them.
 *
 * config.head_dim, kv_heads and rope become those of the layers without a window, which methods see;
 * config.local has the others'. A file says them by layer ("per_layer_config", as transformers 5 writes it) or
 * with global_head_dim and num_global_key_value_heads. In either form layers without a window have no value
 * projection, whatever attention_k_eq_v says: the class makes none.
 */
#include "model/checkpoint/config.h"

#include "model/checkpoint/json.h"

#include <stdio.h>
#include <string.h>

struct reading {
    mb_model_config *config;
    const cJSON *text;
    const char *where;
    mb_error *err;
};

/* layer_types, or every sixth layer without a window. The last layer has none, whatever the list says. */
static int read_layers(const struct reading *r)
{
    const cJSON *list = mb_json_member(r->text, "layer_types"), *item;
    int32_t layers = r->config->layers, n = 0;
    if (layers > MB_LAYERS_MAX)
        return mb_fail(r->err, MB_E_INPUT, "%s: %d layers, %d can be had", r->where, layers, MB_LAYERS_MAX);
    for (int32_t l = 0; l < layers; l++)
        r->config->local.is[l] = (l + 1) % 6 != 0;
    if (list && cJSON_GetArraySize(list) != layers)
        return mb_fail(r->err, MB_E_INPUT, "%s: \"layer_types\" must be a list of %d words", r->where, layers);
    cJSON_ArrayForEach(item, list) {
        const char *word = cJSON_GetStringValue(item);
        const bool local = word && strcmp(word, "sliding_attention") == 0;
        if (!local && !(word && strcmp(word, "full_attention") == 0))
            return mb_fail(r->err, MB_E_INPUT,
                           "%s: layer_types: layer %d must be \"sliding_attention\" or \"full_attention\"",
                           r->where, n);
        r->config->local.is[n++] = local;
    }
    r->config->local.is[layers - 1] = 0;
    return MB_OK;
}

/* The sizes of the layers without a window; those of the file's top level are the local layers'. */
static int read_overrides(const struct reading *r)
{
    mb_model_config *c = r->config;
    const cJSON *by_layer = mb_json_member(r->text, "per_layer_config"), *item;
    int32_t dim = by_layer ? c->head_dim : 512, heads = c->kv_heads;
    int rc = MB_OK;
    c->local.head_dim = c->head_dim;
    c->local.kv_heads = c->kv_heads;
    if (!by_layer) {
        rc = mb_model_json_want_int(r->text, "global_head_dim", r->where, 1, 1024, &dim, r->err);
        if (rc == MB_OK)
            rc = mb_model_json_want_int(r->text, "num_global_key_value_heads", r->where, 1, 64, &heads, r->err);
    }
    for (int32_t l = 0; l < c->layers && by_layer && rc == MB_OK; l++) {
        char name[16];
        int32_t own_dim = c->local.head_dim, own_heads = c->local.kv_heads;
        snprintf(name, sizeof name, "%d", l);
        const cJSON *own = mb_json_member(by_layer, name);
        rc = mb_model_json_want_int(own, "head_dim", r->where, 1, 1024, &own_dim, r->err);
        if (rc == MB_OK)
            rc = mb_model_json_want_int(own, "num_key_value_heads", r->where, 1, 64, &own_heads, r->err);
        cJSON_ArrayForEach(item, own) {
            if (rc == MB_OK && strcmp(item->string, "head_dim") != 0 &&
                strcmp(item->string, "num_key_value_heads") != 0)
                rc = mb_fail(r->err, MB_E_INPUT, "%s: per_layer_config: \"%s\" of layer %d is not known", r->where,
                             item->string, l);
        }
        const bool local = c->local.is[l];
        const bool first = !local && mb_layer_number(c, l) == 0;
        dim = first ? own_dim : dim;
        heads = first ? own_heads : heads;
        if (rc == MB_OK &&
            (own_dim != (local ? c->local.head_dim : dim) || own_heads != (local ? c->local.kv_heads : heads)))
            rc =
                mb_fail(r->err, MB_E_INPUT,
                        "%s: per_layer_config: layer %d has other heads than the layers of its kind", r->where, l);
    }
    c->head_dim = dim;
    c->kv_heads = heads;
    return rc;
}

/* One set of RoPE parameters. turned: pairs that turn where the type is proportional. */
static int read_rope(const struct reading *r, const char *kind, int32_t head_dim, double *theta, mb_rope *rope)
{
    const cJSON *set = mb_json_member(mb_json_member(r->text, "rope_parameters"), kind);
    const bool full = strcmp(kind, "full_attention") == 0;
    const char *type = set ? mb_json_string(set, "rope_type") : full ? "proportional" : "default";
    double part = !set && full ? 0.25 : 1, factor = 1;
    *theta = full ? 1e6 : 1e4;
    if (mb_json_member(r->text, "rope_parameters") && !set)
        return mb_fail(r->err, MB_E_INPUT, "%s: rope_parameters: \"%s\" is missing", r->where, kind);
    int rc = mb_model_json_want_real(set, "rope_theta", r->where, 1.0, 1e12, theta, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(set, "partial_rotary_factor", r->where, 0.0, 1.0, &part, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(set, "factor", r->where, 1e-6, 1e6, &factor, r->err);
    if (rc != MB_OK)
        return rc;
    if (type && strcmp(type, "proportional") == 0)
        *rope =
            (mb_rope){.type = MB_ROPE_PROPORTIONAL, .factor = factor, .turned = (int32_t)(part * head_dim) / 2};
    else if (!type || strcmp(type, "default") != 0 || part != 1)
        return mb_fail(
            r->err, MB_E_INPUT,
            "%s: rope_parameters: \"%s\" must be of the type default, for all of a head, or proportional",
            r->where, kind);
    return MB_OK;
}

static int read_ropes(const struct reading *r)
{
    mb_model_config *c = r->config;
    c->rotary_dim = c->head_dim;
    c->local.rotary_dim = c->local.head_dim;
    int rc = read_rope(r, "full_attention", c->head_dim, &c->rope_theta, &c->rope);
    return rc == MB_OK ? read_rope(r, "sliding_attention", c->local.head_dim, &c->local.rope_theta, &c->local.rope)
                       : rc;
}

static int read_window(const struct reading *r)
{
    const char *both = mb_json_string(r->text, "use_bidirectional_attention");
    r->config->local.window = 512;
    if (both && strcmp(both, "all") == 0)
        return mb_fail(r->err, MB_E_INPUT,
                       "%s: use_bidirectional_attention \"all\" is not supported: prompts would be computed with "
                       "bidirectional attention in one piece",
                       r->where);
    return mb_model_json_want_int(r->text, "sliding_window", r->where, 1, 1 << 20, &r->config->local.window,
                                  r->err);
}

static int read_experts(const struct reading *r)
{
    mb_moe *moe = &r->config->moe;
    *moe = (mb_moe){.groups = 1,
                    .groups_kept = 1,
                    .score = MB_SCORE_SOFTMAX,
                    .combine = MB_COMBINE_STEPS,
                    .scale = 1,
                    .normalise = true,
                    .beside = true};
    int rc = mb_model_json_need_int(r->text, "num_experts", r->where, 1, MB_EXPERTS_MAX, &moe->experts, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_need_int(r->text, "top_k_experts", r->where, 1, MB_TOP_EXPERTS_MAX, &moe->per_token,
                                    r->err);
    if (rc == MB_OK)
        rc = mb_model_json_need_int(r->text, "moe_intermediate_size", r->where, 1, 1 << 20, &moe->size, r->err);
    if (rc == MB_OK && moe->per_token > moe->experts)
        rc = mb_fail(r->err, MB_E_INPUT, "%s: %d experts for each token, there are %d", r->where, moe->per_token,
                     moe->experts);
    return rc;
}

/* The sampler's settings; what the file leaves open is what generate() takes then. */
static int read_sampler(const struct reading *r, const cJSON *generation)
{
    static const char *const where = "generation_config.json";
    mb_canvas *canvas = &r->config->canvas;
    const cJSON *sampler = mb_json_member(generation, "sampler_config");
    *canvas =
        (mb_canvas){.steps = 48, .entropy_bound = 0.1, .hot = 0.8, .cold = 0.4, .stable = 1, .confident = 0.005};
    int rc = mb_model_json_want_int(generation, "max_denoising_steps", where, 1, 1 << 16, &canvas->steps, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(sampler, "entropy_bound", where, 1e-9, 1e6, &canvas->entropy_bound, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(generation, "t_max", where, 1e-6, 1e3, &canvas->hot, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(generation, "t_min", where, 0, 1e3, &canvas->cold, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(generation, "stability_threshold", where, 0, 1 << 16, &canvas->stable, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(generation, "confidence_threshold", where, 1e-12, 1e6, &canvas->confident,
                                     r->err);
    if (rc == MB_OK && canvas->hot <= canvas->cold)
        rc = mb_fail(r->err, MB_E_INPUT, "%s: t_max must be above t_min", where);
    return rc;
}

/* What the network computes one way only. */
static int read_fixed(const struct reading *r, const cJSON *top)
{
    const char *activation = mb_json_string(r->text, "hidden_activation");
    bool bias = false, tied = true;
    int rc = mb_model_json_want_bool(r->text, "attention_bias", r->where, &bias, r->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(top, "tie_word_embeddings", r->where, &tied, r->err);
    if (rc != MB_OK)
        return rc;
    if (bias || !tied)
        return mb_fail(r->err, MB_E_INPUT, "%s: %s is not supported for this model_type", r->where,
                       bias ? "\"attention_bias\" true" : "\"tie_word_embeddings\" false");
    if (activation && strcmp(activation, "gelu_pytorch_tanh") != 0)
        return mb_fail(r->err, MB_E_INPUT, "%s: hidden_activation must be \"gelu_pytorch_tanh\"", r->where);
    if (mb_json_member(top, "quantization_config"))
        return mb_fail(r->err, MB_E_INPUT,
                       "%s: quantised weights are not supported: use the bf16, f16 or f32 checkpoint", r->where);
    r->config->softcap = 30;
    rc = mb_model_json_want_real(r->text, "final_logit_softcapping", r->where, 1e-3, 1e6, &r->config->softcap,
                                 r->err);
    return rc == MB_OK
               ? mb_model_json_want_real(r->text, "rms_norm_eps", r->where, 0.0, 1.0, &r->config->norm_eps, r->err)
               : rc;
}

static void read_images(const struct reading *r, const cJSON *top)
{
    static const char *const keys[] = {"boi_token_id", "image_token_id", "eoi_token_id"};
    static const int32_t presets[] = {255999, 258880, 258882};
    for (int i = 0; i < 3; i++) {
        int64_t id = presets[i];
        if (cJSON_HasObjectItem(top, keys[i]) &&
            !mb_model_json_integer(mb_json_member(top, keys[i]), 0, INT32_MAX, &id))
            id = -1;
        r->config->canvas.image_ids[i] = (int32_t)id;
    }
}

int mb_config_read_canvas(mb_model_config *config, const cJSON *top, const cJSON *text, const cJSON *generation,
                          const char *where, mb_error *err)
{
    const struct reading r = {config, text, where, err};
    config->wrapped = config->value_is_key = true;
    int rc = read_fixed(&r, top);
    if (rc == MB_OK)
        rc = read_layers(&r);
    if (rc == MB_OK)
        rc = read_window(&r);
    if (rc == MB_OK)
        rc = read_overrides(&r);
    if (rc == MB_OK)
        rc = read_ropes(&r);
    if (rc == MB_OK)
        rc = read_experts(&r);
    if (rc == MB_OK)
        rc = read_sampler(&r, generation);
    if (rc == MB_OK && (config->query_heads % config->local.kv_heads || config->local.head_dim % 2))
        rc = mb_fail(err, MB_E_INPUT, "%s: %d query heads of %d dimensions on %d KV heads do not fit", where,
                     config->query_heads, config->local.head_dim, config->local.kv_heads);
    read_images(&r, top);
    return rc;
}
