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

/* Inner width of a layer's dense feed-forward part; 0 = it has none. */
static inline int32_t mb_layer_inner(const mb_model_config *config, int32_t layer)
{
    return mb_layer_is_moe(config, layer) ? config->moe.shared : config->intermediate;
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
/* A named shape with the request's overrides; config->synthetic is set. */
int mb_config_shape(mb_model_config *config, const mb_model_request *request, mb_error *err);

#endif
