/*
 * config.h - the configuration of a model from the text of its files, or from the table of named shapes.
 * Internal to model/; callers outside use mb_model_inspect().
 */
#ifndef MB_MODEL_CONFIG_H
#define MB_MODEL_CONFIG_H

#include "model/model.h"

/* Whether a layer has experts. */
static inline bool mb_layer_is_moe(const mb_model_config *config, int32_t layer)
{
    return config->moe.experts > 0 && layer >= config->moe.dense_layers;
}

/* Whether a layer has a sliding window. */
static inline bool mb_layer_is_local(const mb_model_config *config, int32_t layer)
{
    return config->local.window > 0 && config->local.is[layer];
}

/* The sizes of one layer's attention. */
typedef struct mb_layer_sizes {
    int32_t head_dim, kv_heads, rotary_dim;
    int32_t window;     /* 0 = none */
    bool value_is_key;  /* no value projection */
    int64_t qkv, width; /* columns of q, k and v together; of q */
} mb_layer_sizes;
static inline mb_layer_sizes mb_layer_sizes_of(const mb_model_config *c, int32_t layer)
{
    const bool local = mb_layer_is_local(c, layer);
    mb_layer_sizes s = {.head_dim = local ? c->local.head_dim : c->head_dim,
                        .kv_heads = local ? c->local.kv_heads : c->kv_heads,
                        .rotary_dim = local ? c->local.rotary_dim : c->rotary_dim,
                        .window = local ? c->local.window : 0,
                        .value_is_key = !local && c->value_is_key};
    s.width = (int64_t)c->query_heads * s.head_dim;
    s.qkv = s.width + (int64_t)(s.value_is_key ? 1 : 2) * s.kv_heads * s.head_dim;
    return s;
}

/* What methods know of the layers: those without a window, numbered among themselves. */
int32_t mb_layer_count(const mb_model_config *config);
int32_t mb_layer_number(const mb_model_config *config, int32_t layer);

/* Inner width of a layer's dense feed-forward part; 0 = it has none. */
static inline int32_t mb_layer_inner(const mb_model_config *config, int32_t layer)
{
    return mb_layer_is_moe(config, layer) && !config->moe.beside ? config->moe.shared : config->intermediate;
}

/* What a folder says about its model. */
typedef struct mb_config_files {
    const char *json; /* config.json */
    size_t json_size;
    const char *generation; /* generation_config.json; NULL = the folder has none */
    size_t generation_size;
    int32_t mask_id;   /* of the tokenizer's mask token; -1 = it has none */
    int32_t block;     /* the N of "-bN" in the folder's name; 0 = it has none */
    const char *where; /* names config.json in errors */
} mb_config_files;
/* Fills everything but `name`. request (may be NULL) overrides block, mask and positions. */
int mb_config_parse(mb_model_config *config, const mb_config_files *files, const mb_model_request *request,
                    mb_error *err);
/* The N of the last "-bN" in a folder's name (of the repository's in a cache of the Hugging Face hub); 0 = none.
 */
int32_t mb_config_block_of(const char *path);
/* Overrides of the request, and the rules that hold whatever the sizes came from; `where` begins the errors. */
int mb_config_finish(mb_model_config *config, const mb_model_request *request, const char *where, mb_error *err);
/* Reads the keys of a mixture of experts into config->moe, by config->family (config_moe.c). preset: the class's.
 * Sizes are known. */
struct cJSON;
int mb_config_read_moe(mb_model_config *config, const mb_moe *preset, const struct cJSON *root, const char *where,
                       mb_error *err);
/* What a canvas model has beyond the sizes, out of the file's text_config (config_canvas.c). top: config.json;
 * generation: generation_config.json, or NULL. preset: its rope and canvas are the defaults. */
struct mb_config_class;
int mb_config_read_canvas(mb_model_config *config, const struct cJSON *top, const struct cJSON *text,
                          const struct cJSON *generation, const char *where, mb_error *err);
/* A named shape with the request's overrides; config->synthetic is set. */
int mb_config_shape(mb_model_config *config, const mb_model_request *request, mb_error *err);

#endif
