/*
 * config.c - config.json -> mb_model_config: which family a checkpoint belongs to, its sizes, and a clear no to
 * everything this program does not compute (sliding windows, quantised weights, unknown experts).
 *
 * Nothing is assumed from a family's name that the file states itself: `tie_word_embeddings` and `head_dim` differ
 * between models of one family (models.md 4.1). The exception is what a family does not write down: Fast-dLLM v2
 * its mask id, its sub-blocks and its q/k/v biases (models.md 3.1), LLaDA2 its mask id, its block and the end of a
 * text (models.md 5.1, 5.4), which stand in its sampler. A key in the file overrides each of them.
 */
#include "model/checkpoint/config.h"

#include "model/checkpoint/json.h"
#include "model/checkpoint/rope.h"

#include <stdlib.h>
#include <string.h>

#define POSITIONS_MAX (2 << 20)
#define BLOCK_MAX 1024 /* far above any published block */
#define FAST_DLLM_MASK_ID 151665
#define FAST_DLLM_SUB_BLOCK 8
#define LLADA2_MASK_ID 156895
#define LLADA2_END_ID 156892

/* True when one of the file's names for itself (model_type, architectures) contains `part`. */
static bool is_called(const cJSON *root, const char *part)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(root, "model_type"), *item;
    if (cJSON_IsString(type) && strcasestr(type->valuestring, part))
        return true;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(
                                 root, "architectures")) if (cJSON_IsString(item) &&
                                                             strcasestr(item->valuestring, part)) return true;
    return false;
}

/* A plain Qwen3 without a mask token is the autoregressive model and would produce nonsense in blocks. *moe: the
 * layers have experts. LLaDA2 always has them; "sdar_moe" is also called "sdar". */
static int find_family(const cJSON *root, mb_family *family, bool *moe, const char *where, mb_error *err)
{
    const cJSON *type = mb_json_get(root, "model_type");
    const char *name = cJSON_IsString(type) ? type->valuestring : "(none)";
    *moe = is_called(root, "moe") || mb_json_get(root, "num_experts") || mb_json_get(root, "n_routed_experts") ||
           mb_json_get(root, "num_local_experts");
    if (is_called(root, "llada2")) {
        if (is_called(root, "veomni"))
            return mb_fail(
                err, MB_E_INPUT,
                "%s: model_type \"%.64s\" keeps all experts of a layer in one tensor, as training does: "
                "use the checkpoint in the hub's layout (\"llada2_moe\")",
                where, name);
        *family = MB_FAMILY_LLADA2;
        *moe = true;
        return MB_OK;
    }
    if (is_called(root, "sdar") || is_called(root, "qwen3")) {
        if (!mb_json_get(root, "mask_token_id") ||
            (!mb_json_get(root, "bd_size") && !mb_json_get(root, "block_size")))
            return mb_fail(err, MB_E_INPUT,
                           "%s: model_type \"%.64s\" without \"mask_token_id\" and \"block_size\" (or "
                           "\"bd_size\") is no block-diffusion model",
                           where, name);
        *family = MB_FAMILY_SDAR;
        return MB_OK;
    }
    if (*moe)
        return mb_fail(
            err, MB_E_INPUT,
            "%s: model_type \"%.64s\" is a mixture of experts of an unknown kind: LLaDA2 and SDAR-MoE are "
            "supported",
            where, name);
    if (is_called(root, "fast_dllm")) {
        *family = MB_FAMILY_FAST_DLLM_V2;
        return MB_OK;
    }
    return mb_fail(
        err, MB_E_INPUT,
        "%s: model_type \"%.64s\" is not supported: use a Fast-dLLM v2, SDAR, TraDo or LLaDA2 checkpoint, "
        "or a Qwen3 layout with \"mask_token_id\" and \"block_size\"",
        where, name);
}

const char *mb_family_name(mb_family family)
{
    static const char *const names[] = {"sdar", "fast_dllm_v2", "llada2"};
    return names[family];
}

/* Layouts that would load and then compute something else than the reference does. */
static int refuse_unsupported(const cJSON *root, const char *where, mb_error *err)
{
    const cJSON *item;
    bool sliding = false;
    int rc = mb_model_json_want_bool(root, "use_sliding_window", where, &sliding, err);
    if (rc != MB_OK)
        return rc;
    if (sliding)
        return mb_fail(err, MB_E_INPUT, "%s: sliding-window attention is not supported", where);
    cJSON_ArrayForEach(
        item,
        mb_json_get(
            root,
            "layer_types")) if (!cJSON_IsString(item) ||
                                strcmp(item->valuestring, "full_attention") !=
                                    0) return mb_fail(err, MB_E_INPUT,
                                                      "%s: layer_types: only \"full_attention\" is supported",
                                                      where);
    const cJSON *act = mb_json_get(root, "hidden_act");
    if (act && (!cJSON_IsString(act) || strcmp(act->valuestring, "silu") != 0))
        return mb_fail(err, MB_E_INPUT, "%s: hidden_act must be \"silu\"", where);
    if (mb_json_get(root, "quantization_config"))
        return mb_fail(err, MB_E_INPUT,
                       "%s: quantised weights are not supported: use the bf16, f16 or f32 checkpoint", where);
    return MB_OK;
}

/* Ids may repeat between eos and pad. */
static void add_stop(mb_model_config *config, int32_t id)
{
    for (int32_t i = 0; i < config->stop_count; i++)
        if (config->stop_ids[i] == id)
            return;
    config->stop_ids[config->stop_count++] = id;
}

/* eos_token_id: an integer or a list of them. */
static int read_stops(mb_model_config *config, const cJSON *item, const char *where, const char *key,
                      mb_error *err)
{
    const int room = (int)(sizeof config->stop_ids / sizeof config->stop_ids[0]);
    const cJSON *one = cJSON_IsArray(item) ? item->child : item;
    for (; one; one = cJSON_IsArray(item) ? one->next : NULL) {
        int64_t id = 0;
        if (!mb_model_json_integer(one, 0, config->vocab - 1, &id))
            return mb_fail(err, MB_E_INPUT, "%s: \"%s\" must be token ids from 0 to %d: one, or a list of them",
                           where, key, config->vocab - 1);
        if (config->stop_count == room)
            return mb_fail(err, MB_E_INPUT, "%s: \"%s\" lists more than %d ids", where, key, room);
        add_stop(config, (int32_t)id);
    }
    return MB_OK;
}

/* generation_config.json decides; without one config.json's eos and pad both end a text, since these models were
 * trained to fill the rest of the last block with padding. */
static int find_stops(mb_model_config *config, const cJSON *root, const char *generation, size_t generation_size,
                      const char *where, mb_error *err)
{
    cJSON *other = NULL;
    int rc = MB_OK;
    if (generation) {
        const char *name = "generation_config.json";
        rc = mb_model_json_parse(&other, generation, generation_size, name, err);
        if (rc == MB_OK && mb_json_get(other, "eos_token_id"))
            rc = read_stops(config, mb_json_get(other, "eos_token_id"), name, "eos_token_id", err);
    }
    if (rc == MB_OK && config->stop_count == 0) {
        static const char *const keys[] = {"eos_token_id", "pad_token_id"};
        for (size_t i = 0; i < 2 && rc == MB_OK; i++)
            if (mb_json_get(root, keys[i]))
                rc = read_stops(config, mb_json_get(root, keys[i]), where, keys[i], err);
    }
    cJSON_Delete(other);
    if (rc == MB_OK && config->stop_count == 0 && config->family == MB_FAMILY_LLADA2 &&
        config->vocab > LLADA2_END_ID)
        add_stop(config, LLADA2_END_ID);
    if (rc == MB_OK && config->stop_count == 0)
        rc = mb_fail(err, MB_E_INPUT, "%s: \"eos_token_id\" is missing: no text would ever end", where);
    return rc;
}

int mb_config_finish(mb_model_config *config, const mb_model_request *request, const char *where, mb_error *err)
{
    if (request && request->block)
        config->block = request->block;
    if (request && request->positions)
        config->positions = request->positions;
    if (config->block < 1 || config->block > BLOCK_MAX)
        return mb_fail(err, MB_E_INPUT, "%s: block size %d is outside 1 to %d", where, config->block, BLOCK_MAX);
    if (config->positions < config->block || config->positions > POSITIONS_MAX)
        return mb_fail(err, MB_E_INPUT, "%s: %d positions are outside %d (one block) to %d", where,
                       config->positions, config->block, POSITIONS_MAX);
    /* Only Fast-dLLM v2 decodes a block in parts (models.md 3.6). */
    config->sub_block = config->block;
    if (config->family == MB_FAMILY_FAST_DLLM_V2) {
        config->sub_block = config->block < FAST_DLLM_SUB_BLOCK ? config->block : FAST_DLLM_SUB_BLOCK;
        if (config->block % config->sub_block)
            return mb_fail(err, MB_E_INPUT, "%s: block size %d is no multiple of the sub-block of %d", where,
                           config->block, config->sub_block);
    }
    if (config->query_heads % config->kv_heads)
        return mb_fail(err, MB_E_INPUT, "%s: %d query heads are no multiple of %d KV heads", where,
                       config->query_heads, config->kv_heads);
    if (config->head_dim % 2)
        return mb_fail(err, MB_E_INPUT, "%s: head_dim %d is odd, RoPE needs pairs", where, config->head_dim);
    if (config->rotary_dim < 2 || config->rotary_dim % 2 || config->rotary_dim > config->head_dim)
        return mb_fail(err, MB_E_INPUT, "%s: RoPE cannot turn %d of %d dimensions", where, config->rotary_dim,
                       config->head_dim);
    if (config->mask_id < 0 || config->mask_id >= config->vocab)
        return mb_fail(err, MB_E_INPUT, "%s: mask token %d is outside the vocabulary of %d", where,
                       config->mask_id, config->vocab);
    for (int32_t i = 0; i < config->stop_count; i++)
        if (config->stop_ids[i] == config->mask_id)
            return mb_fail(err, MB_E_INPUT, "%s: token %d cannot be both the mask and the end", where,
                           config->mask_id);
    return MB_OK;
}

/* The integers of config.json that every family has. */
static int read_sizes(mb_model_config *config, const cJSON *root, const char *where, mb_error *err)
{
    const struct {
        const char *key;
        int32_t max, *value;
    } sizes[] = {
        {"num_hidden_layers", 1024, &config->layers},          {"hidden_size", 65536, &config->hidden},
        {"num_attention_heads", 1024, &config->query_heads},   {"num_key_value_heads", 64, &config->kv_heads},
        {"intermediate_size", 1 << 20, &config->intermediate}, {"vocab_size", 1 << 22, &config->vocab},
    };
    int rc = MB_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && rc == MB_OK; i++)
        rc = mb_model_json_need_int(root, sizes[i].key, where, 1, sizes[i].max, sizes[i].value, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "head_dim", where, 2, 1024, &config->head_dim, err);
    /* Qwen2 files have no head_dim; Qwen3's need not be hidden / heads (4096 against 2560 in SDAR-4B). */
    if (rc == MB_OK && config->head_dim == 0) {
        if (config->hidden % config->query_heads)
            return mb_fail(err, MB_E_INPUT,
                           "%s: \"head_dim\" is missing and hidden_size %d is no multiple of %d heads", where,
                           config->hidden, config->query_heads);
        config->head_dim = config->hidden / config->query_heads;
        if (config->head_dim > 1024)
            return mb_fail(err, MB_E_INPUT, "%s: heads of %d dimensions are not supported (up to 1024)", where,
                           config->head_dim);
    }
    return rc;
}

/* What LLaDA2 writes down in its own words (models.md 5.1); what would compute something else is refused. */
static int read_llada2(mb_model_config *config, const cJSON *root, const char *where, mb_error *err)
{
    static const struct {
        const char *key;
        bool wanted;
    } fixed[] = {{"use_bias", false},
                 {"norm_head", false},
                 {"norm_softmax", false},
                 {"use_rmsnorm", true},
                 {"use_linear_attention", false},
                 {"using_split_qkv_in_self_attention", false}};
    int32_t rotary = 0;
    int rc = mb_model_json_want_int(root, "rotary_dim", where, 0, 1024, &rotary, err);
    if (rc == MB_OK && rotary != 0 && rotary != config->rotary_dim)
        rc = mb_fail(err, MB_E_INPUT, "%s: \"rotary_dim\" %d is not head_dim * partial_rotary_factor = %d", where,
                     rotary, config->rotary_dim);
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0] && rc == MB_OK; i++) {
        bool value = fixed[i].wanted;
        rc = mb_model_json_want_bool(root, fixed[i].key, where, &value, err);
        if (rc == MB_OK && value != fixed[i].wanted)
            rc = mb_fail(err, MB_E_INPUT, "%s: \"%s\" %s is not supported", where, fixed[i].key,
                         value ? "true" : "false");
    }
    if (rc == MB_OK && cJSON_GetArraySize(mb_json_get(root, "linear_attention_layers")) > 0)
        rc = mb_fail(err, MB_E_INPUT, "%s: \"linear_attention_layers\" is not supported", where);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(root, "use_qk_norm", where, &config->qk_norm, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(root, "use_qkv_bias", where, &config->qkv_bias, err);
    return rc;
}

/* Everything of config.json that is not a plain size. */
static int read_rest(mb_model_config *config, const cJSON *root, const char *where, mb_error *err)
{
    bool fast = config->family == MB_FAMILY_FAST_DLLM_V2, llada = config->family == MB_FAMILY_LLADA2;
    const char *block_key = mb_json_get(root, "bd_size") ? "bd_size" : "block_size";
    /* What the family implies; the keys of the file are read on top of it. */
    config->norm_eps = 1e-6;
    config->positions = 32768;
    config->block = 32;
    config->mask_id = fast ? FAST_DLLM_MASK_ID : llada ? LLADA2_MASK_ID : -1;
    config->qkv_bias = fast;
    config->qk_norm = !fast;
    config->norm_one_rounding = !fast && !llada; /* models.md 2.2, point 2 */
    int rc = mb_model_json_want_real(root, "rms_norm_eps", where, 0.0, 1.0, &config->norm_eps, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "max_position_embeddings", where, 1, POSITIONS_MAX, &config->positions,
                                    err);
    if (rc == MB_OK) /* the default of LLaDA2's configuration class is 0.5 (configuration_llada2_moe.py) */
        rc = mb_rope_read(config, root, llada ? 0.5 : 1.0, where, err);
    if (rc == MB_OK && !llada && config->rotary_dim != config->head_dim)
        rc = mb_fail(err, MB_E_INPUT, "%s: partial_rotary_factor is not supported for this model_type, only 1",
                     where);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, block_key, where, 1, BLOCK_MAX, &config->block, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "mask_token_id", where, 0, config->vocab - 1, &config->mask_id, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(root, "tie_word_embeddings", where, &config->tied, err);
    if (rc == MB_OK && llada)
        return read_llada2(config, root, where, err);
    if (rc == MB_OK && !fast) /* Qwen2's q/k/v are always biased, whatever this key says */
        rc = mb_model_json_want_bool(root, "attention_bias", where, &config->qkv_bias, err);
    return rc;
}

/* Order matters: the family decides defaults, sizes bound the ids that are read after them. */
int mb_config_parse(mb_model_config *config, const char *json, size_t json_size, const char *generation,
                    size_t generation_size, const mb_model_request *request, const char *where, mb_error *err)
{
    cJSON *root = NULL;
    bool moe = false;
    *config = (mb_model_config){0};
    int rc = mb_model_json_parse(&root, json, json_size, where, err);
    if (rc == MB_OK)
        rc = find_family(root, &config->family, &moe, where, err);
    if (rc == MB_OK)
        rc = refuse_unsupported(root, where, err);
    if (rc == MB_OK)
        rc = read_sizes(config, root, where, err);
    if (rc == MB_OK)
        rc = read_rest(config, root, where, err);
    if (rc == MB_OK && moe)
        rc = mb_config_read_moe(config, root, where, err);
    if (rc == MB_OK)
        rc = find_stops(config, root, generation, generation_size, where, err);
    if (rc == MB_OK)
        rc = mb_config_finish(config, request, where, err);
    cJSON_Delete(root);
    return rc;
}

/* ---- the folder ---- */

/* "models/tiny/" -> "tiny", into a buffer of 64. */
static void folder_name(const char *path, char name[64])
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    size_t n = end - begin < 63 ? end - begin : 63;
    memcpy(name, path + begin, n);
    name[n] = '\0';
}

int mb_model_inspect(const mb_model_request *request, mb_model_config *config, mb_error *err)
{
    char *path = NULL, *generation_path = NULL, *json = NULL, *generation = NULL;
    size_t json_size = 0, generation_size = 0;
    int rc = MB_OK;
    *config = (mb_model_config){0};
    if (!request->path && !request->shape)
        return mb_fail(err, MB_E_INPUT, "no model: give a checkpoint folder with --model DIR, or a named shape");
    if (request->shape && !request->path)
        return mb_config_shape(config, request, err);
    if (request->shape)
        return mb_fail(err, MB_E_INPUT, "both the folder %s and the shape %s are given: choose one", request->path,
                       request->shape);
    path = mb_string_format("%s/config.json", request->path);
    generation_path = mb_string_format("%s/generation_config.json", request->path);
    if (!path || !generation_path) {
        rc = mb_no_memory(err, "reading %s", request->path);
        goto out;
    }
    if (!mb_file_exists(path)) {
        rc = mb_fail(err, MB_E_INPUT,
                     "%s is missing: give the checkpoint folder with --model DIR (a folder as downloaded from the "
                     "Hugging Face hub)",
                     path);
        goto out;
    }
    rc = mb_file_read(path, 16 << 20, &json, &json_size, err);
    if (rc == MB_OK && mb_file_exists(generation_path))
        rc = mb_file_read(generation_path, 16 << 20, &generation, &generation_size, err);
    if (rc == MB_OK)
        rc = mb_config_parse(config, json, json_size, generation, generation_size, request, path, err);
    if (rc == MB_OK)
        folder_name(request->path, config->name);
out:
    free(path);
    free(generation_path);
    free(json);
    free(generation);
    return rc;
}
