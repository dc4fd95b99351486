/*
 * config.c - config.json -> mb_model_config: which family a checkpoint belongs to, its sizes, and a clear no to
 * everything this program does not compute (experts, sliding windows, scaled RoPE, quantised weights).
 *
 * Nothing is assumed from a family's name that the file states itself: `tie_word_embeddings` and `head_dim` differ
 * between models of one family (models.md 4.1). The exception is what Fast-dLLM v2 does not write down: its mask
 * id, its sub-blocks and its q/k/v biases (models.md 3.1).
 */
#include "model/config.h"

#include "model/json.h"

#include <stdlib.h>
#include <string.h>

#define POSITIONS_MAX (2 << 20)
#define BLOCK_MAX 1024 /* far above any published block */
#define FAST_DLLM_MASK_ID 151665
#define FAST_DLLM_SUB_BLOCK 8

/* True when one of the file's names for itself (model_type, architectures) contains `part`. */
static bool is_called(const cJSON *root, const char *part)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(root, "model_type"), *item;
    if (cJSON_IsString(type) && strcasestr(type->valuestring, part))
        return true;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "architectures"))
        if (cJSON_IsString(item) && strcasestr(item->valuestring, part))
            return true;
    return false;
}

/* NULL for absent and for null. */
static const cJSON *present(const cJSON *root, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, key);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

/* Experts are looked for first: "sdar_moe" is also called "sdar". A plain Qwen3 without a mask token is the
 * autoregressive model and would produce nonsense in blocks. */
static int find_family(const cJSON *root, mb_family *family, const char *where, char *err, size_t err_cap)
{
    const cJSON *type = present(root, "model_type");
    const char *name = cJSON_IsString(type) ? type->valuestring : "(none)";
    if (is_called(root, "moe") || present(root, "num_experts") || present(root, "n_routed_experts") ||
        present(root, "num_local_experts"))
        return mb_fail(err, err_cap, MB_E_INPUT,
                       "%s: model_type \"%.64s\" is a mixture of experts, which is not supported: use a dense "
                       "model (Fast-dLLM v2, SDAR, TraDo)", where, name);
    if (is_called(root, "fast_dllm")) {
        *family = MB_FAMILY_FAST_DLLM_V2;
        return MB_OK;
    }
    if (is_called(root, "sdar") || is_called(root, "qwen3")) {
        if (!present(root, "mask_token_id") || (!present(root, "bd_size") && !present(root, "block_size")))
            return mb_fail(err, err_cap, MB_E_INPUT,
                           "%s: model_type \"%.64s\" without \"mask_token_id\" and \"block_size\" (or "
                           "\"bd_size\") is no block-diffusion model", where, name);
        *family = MB_FAMILY_SDAR;
        return MB_OK;
    }
    return mb_fail(err, err_cap, MB_E_INPUT,
                   "%s: model_type \"%.64s\" is not supported: use a Fast-dLLM v2, SDAR or TraDo checkpoint, or a "
                   "Qwen3 layout with \"mask_token_id\" and \"block_size\"", where, name);
}

/* Layouts that would load and then compute something else than the reference does. */
static int refuse_unsupported(const cJSON *root, const char *where, char *err, size_t err_cap)
{
    const cJSON *item, *scaling = present(root, "rope_scaling");
    bool sliding = false;
    double rotary = 1.0;
    int rc = mb_model_json_want_bool(root, "use_sliding_window", where, &sliding, err, err_cap);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(root, "partial_rotary_factor", where, 0.0, 1.0, &rotary, err, err_cap);
    if (rc != MB_OK)
        return rc;
    if (sliding)
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: sliding-window attention is not supported", where);
    cJSON_ArrayForEach(item, present(root, "layer_types"))
        if (!cJSON_IsString(item) || strcmp(item->valuestring, "full_attention") != 0)
            return mb_fail(err, err_cap, MB_E_INPUT, "%s: layer_types: only \"full_attention\" is supported",
                           where);
    if (rotary != 1.0)
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: partial_rotary_factor %g is not supported, only 1", where,
                       rotary);
    if (!scaling)
        scaling = present(root, "rope_parameters"); /* where newer files keep theta and type */
    if (scaling) {
        const cJSON *type = present(scaling, "rope_type");
        if (!type)
            type = present(scaling, "type");
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "default") != 0)
            return mb_fail(err, err_cap, MB_E_INPUT,
                           "%s: scaled RoPE (\"rope_scaling\") is not supported: only null or type \"default\"",
                           where);
    }
    const cJSON *act = present(root, "hidden_act");
    if (act && (!cJSON_IsString(act) || strcmp(act->valuestring, "silu") != 0))
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: hidden_act must be \"silu\"", where);
    if (present(root, "quantization_config"))
        return mb_fail(err, err_cap, MB_E_INPUT,
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
static int read_stops(mb_model_config *config, const cJSON *item, const char *where, const char *key, char *err,
                      size_t err_cap)
{
    const int room = (int)(sizeof config->stop_ids / sizeof config->stop_ids[0]);
    const cJSON *one = cJSON_IsArray(item) ? item->child : item;
    for (; one; one = cJSON_IsArray(item) ? one->next : NULL) {
        int64_t id = 0;
        if (!mb_model_json_integer(one, 0, config->vocab - 1, &id))
            return mb_fail(err, err_cap, MB_E_INPUT,
                           "%s: \"%s\" must be token ids from 0 to %d: one, or a list of them", where, key,
                           config->vocab - 1);
        if (config->stop_count == room)
            return mb_fail(err, err_cap, MB_E_INPUT, "%s: \"%s\" lists more than %d ids", where, key, room);
        add_stop(config, (int32_t)id);
    }
    return MB_OK;
}

/* generation_config.json decides; without one config.json's eos and pad both end a text, since these models were
 * trained to fill the rest of the last block with padding. */
static int find_stops(mb_model_config *config, const cJSON *root, const char *generation, size_t generation_size,
                      const char *where, char *err, size_t err_cap)
{
    cJSON *other = NULL;
    int rc = MB_OK;
    if (generation) {
        const char *name = "generation_config.json";
        rc = mb_model_json_parse(&other, generation, generation_size, name, err, err_cap);
        if (rc == MB_OK && present(other, "eos_token_id"))
            rc = read_stops(config, present(other, "eos_token_id"), name, "eos_token_id", err, err_cap);
    }
    if (rc == MB_OK && config->stop_count == 0) {
        static const char *const keys[] = {"eos_token_id", "pad_token_id"};
        for (size_t i = 0; i < 2 && rc == MB_OK; i++)
            if (present(root, keys[i]))
                rc = read_stops(config, present(root, keys[i]), where, keys[i], err, err_cap);
    }
    cJSON_Delete(other);
    if (rc == MB_OK && config->stop_count == 0)
        rc = mb_fail(err, err_cap, MB_E_INPUT, "%s: \"eos_token_id\" is missing: no text would ever end", where);
    return rc;
}

/* Overrides of the request, and the rules that hold whatever the sizes came from. */
static int finish(mb_model_config *config, const mb_model_request *request, const char *where, char *err,
                  size_t err_cap)
{
    if (request && request->block)
        config->block = request->block;
    if (request && request->positions)
        config->positions = request->positions;
    if (config->block < 1 || config->block > BLOCK_MAX)
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: block size %d is outside 1 to %d", where, config->block,
                       BLOCK_MAX);
    if (config->positions < config->block || config->positions > POSITIONS_MAX)
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: %d positions are outside %d (one block) to %d", where,
                       config->positions, config->block, POSITIONS_MAX);
    /* Only Fast-dLLM v2 decodes a block in parts (models.md 3.6). */
    config->sub_block = config->block;
    if (config->family == MB_FAMILY_FAST_DLLM_V2) {
        config->sub_block = config->block < FAST_DLLM_SUB_BLOCK ? config->block : FAST_DLLM_SUB_BLOCK;
        if (config->block % config->sub_block)
            return mb_fail(err, err_cap, MB_E_INPUT, "%s: block size %d is no multiple of the sub-block of %d",
                           where, config->block, config->sub_block);
    }
    if (config->query_heads % config->kv_heads)
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: %d query heads are no multiple of %d KV heads", where,
                       config->query_heads, config->kv_heads);
    if (config->head_dim % 2)
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: head_dim %d is odd, RoPE needs pairs", where,
                       config->head_dim);
    if (config->mask_id < 0 || config->mask_id >= config->vocab)
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: mask token %d is outside the vocabulary of %d", where,
                       config->mask_id, config->vocab);
    for (int32_t i = 0; i < config->stop_count; i++)
        if (config->stop_ids[i] == config->mask_id)
            return mb_fail(err, err_cap, MB_E_INPUT, "%s: token %d cannot be both the mask and the end", where,
                           config->mask_id);
    return MB_OK;
}

/* The integers of config.json that every family has. */
static int read_sizes(mb_model_config *config, const cJSON *root, const char *where, char *err, size_t err_cap)
{
    const struct {
        const char *key;
        int32_t max, *value;
    } sizes[] = {
        {"num_hidden_layers", 1024, &config->layers},
        {"hidden_size", 65536, &config->hidden},
        {"num_attention_heads", 1024, &config->query_heads},
        {"num_key_value_heads", 64, &config->kv_heads},
        {"intermediate_size", 1 << 20, &config->intermediate},
        {"vocab_size", 1 << 22, &config->vocab},
    };
    int rc = MB_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && rc == MB_OK; i++)
        rc = mb_model_json_need_int(root, sizes[i].key, where, 1, sizes[i].max, sizes[i].value, err, err_cap);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "head_dim", where, 2, 1024, &config->head_dim, err, err_cap);
    /* Qwen2 files have no head_dim; Qwen3's need not be hidden / heads (4096 against 2560 in SDAR-4B). */
    if (rc == MB_OK && config->head_dim == 0) {
        if (config->hidden % config->query_heads)
            return mb_fail(err, err_cap, MB_E_INPUT,
                           "%s: \"head_dim\" is missing and hidden_size %d is no multiple of %d heads", where,
                           config->hidden, config->query_heads);
        config->head_dim = config->hidden / config->query_heads;
        if (config->head_dim > 1024)
            return mb_fail(err, err_cap, MB_E_INPUT, "%s: heads of %d dimensions are not supported (up to 1024)",
                           where, config->head_dim);
    }
    return rc;
}

/* Everything of config.json that is not a plain size. */
static int read_rest(mb_model_config *config, const cJSON *root, const char *where, char *err, size_t err_cap)
{
    bool fast = config->family == MB_FAMILY_FAST_DLLM_V2;
    const cJSON *rope = present(root, "rope_theta") ? root : present(root, "rope_parameters");
    const char *block_key = present(root, "bd_size") ? "bd_size" : "block_size";
    /* What the family implies; the keys of the file are read on top of it. */
    config->norm_eps = 1e-6;
    config->positions = 32768;
    config->block = 32;
    config->mask_id = fast ? FAST_DLLM_MASK_ID : -1;
    config->qkv_bias = fast;
    config->qk_norm = !fast;
    config->norm_one_rounding = !fast; /* models.md 2.2, point 2 */
    if (!present(rope, "rope_theta"))
        return mb_fail(err, err_cap, MB_E_INPUT, "%s: \"rope_theta\" is missing", where);
    int rc = mb_model_json_want_real(rope, "rope_theta", where, 1.0, 1e12, &config->rope_theta, err, err_cap);
    if (rc == MB_OK)
        rc = mb_model_json_want_real(root, "rms_norm_eps", where, 0.0, 1.0, &config->norm_eps, err, err_cap);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "max_position_embeddings", where, 1, POSITIONS_MAX, &config->positions,
                                    err, err_cap);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, block_key, where, 1, BLOCK_MAX, &config->block, err, err_cap);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(root, "mask_token_id", where, 0, config->vocab - 1, &config->mask_id, err,
                                    err_cap);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(root, "tie_word_embeddings", where, &config->tied, err, err_cap);
    if (rc == MB_OK && !fast) /* Qwen2's q/k/v are always biased, whatever this key says */
        rc = mb_model_json_want_bool(root, "attention_bias", where, &config->qkv_bias, err, err_cap);
    return rc;
}

/* Order matters: the family decides defaults, sizes bound the ids that are read after them. */
int mb_config_parse(mb_model_config *config, const char *json, size_t json_size, const char *generation,
                    size_t generation_size, const mb_model_request *request, const char *where, char *err,
                    size_t err_cap)
{
    cJSON *root = NULL;
    *config = (mb_model_config){0};
    int rc = mb_model_json_parse(&root, json, json_size, where, err, err_cap);
    if (rc == MB_OK)
        rc = find_family(root, &config->family, where, err, err_cap);
    if (rc == MB_OK)
        rc = refuse_unsupported(root, where, err, err_cap);
    if (rc == MB_OK)
        rc = read_sizes(config, root, where, err, err_cap);
    if (rc == MB_OK)
        rc = read_rest(config, root, where, err, err_cap);
    if (rc == MB_OK)
        rc = find_stops(config, root, generation, generation_size, where, err, err_cap);
    if (rc == MB_OK)
        rc = finish(config, request, where, err, err_cap);
    cJSON_Delete(root);
    return rc;
}

/* ---- named shapes: the published dimensions (models.md 3.1, 4.1; models/tiny) ---- */

static const mb_model_config shapes[] = {
    {.name = "fast_dllm_v2_7b", .family = MB_FAMILY_FAST_DLLM_V2, .layers = 28, .hidden = 3584, .query_heads = 28,
     .kv_heads = 4, .head_dim = 128, .intermediate = 18944, .vocab = 152064, .positions = 32768, .block = 32,
     .mask_id = FAST_DLLM_MASK_ID, .stop_ids = {151645, 151643}, .stop_count = 2, .qkv_bias = true},
    {.name = "fast_dllm_v2_1_5b", .family = MB_FAMILY_FAST_DLLM_V2, .layers = 28, .hidden = 1536,
     .query_heads = 12, .kv_heads = 2, .head_dim = 128, .intermediate = 8960, .vocab = 151936, .positions = 32768,
     .block = 32, .mask_id = FAST_DLLM_MASK_ID, .stop_ids = {151645, 151643}, .stop_count = 2, .qkv_bias = true,
     .tied = true},
    {.name = "sdar_8b", .family = MB_FAMILY_SDAR, .layers = 36, .hidden = 4096, .query_heads = 32, .kv_heads = 8,
     .head_dim = 128, .intermediate = 12288, .vocab = 151936, .positions = 32768, .block = 4, .mask_id = 151669,
     .stop_ids = {151645, 151643}, .stop_count = 2, .qk_norm = true, .norm_one_rounding = true},
    {.name = "sdar_4b", .family = MB_FAMILY_SDAR, .layers = 36, .hidden = 2560, .query_heads = 32, .kv_heads = 8,
     .head_dim = 128, .intermediate = 9728, .vocab = 151936, .positions = 32768, .block = 4, .mask_id = 151669,
     .stop_ids = {151645, 151643}, .stop_count = 2, .qk_norm = true, .norm_one_rounding = true},
    {.name = "sdar_1_7b", .family = MB_FAMILY_SDAR, .layers = 28, .hidden = 2048, .query_heads = 16, .kv_heads = 8,
     .head_dim = 128, .intermediate = 6144, .vocab = 151936, .positions = 32768, .block = 4, .mask_id = 151669,
     .stop_ids = {151645, 151643}, .stop_count = 2, .qk_norm = true, .norm_one_rounding = true},
    {.name = "tiny", .family = MB_FAMILY_SDAR, .layers = 6, .hidden = 256, .query_heads = 8, .kv_heads = 2,
     .head_dim = 64, .intermediate = 768, .vocab = 2048, .positions = 32768, .block = 32, .mask_id = 2047,
     .stop_ids = {2046, 2044}, .stop_count = 2, .qk_norm = true, .norm_one_rounding = true, .tied = true},
};

/* The error lists the known names, since nobody remembers the spelling. */
int mb_config_shape(mb_model_config *config, const mb_model_request *request, char *err, size_t err_cap)
{
    mb_text known = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(shapes[i].name, request->shape) == 0) {
            mb_text_free(&known);
            *config = shapes[i];
            config->rope_theta = 1e6;
            config->norm_eps = 1e-6;
            config->synthetic = true;
            return finish(config, request, shapes[i].name, err, err_cap);
        }
        mb_text_printf(&known, "%s%s", i ? ", " : "", shapes[i].name);
    }
    mb_fail(err, err_cap, 0, "unknown model shape \"%.64s\": use one of %s", request->shape,
            known.data ? known.data : "");
    mb_text_free(&known);
    return MB_E_INPUT;
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

int mb_model_inspect(const mb_model_request *request, mb_model_config *config, char *err, size_t err_cap)
{
    char *path = NULL, *generation_path = NULL, *json = NULL, *generation = NULL;
    size_t json_size = 0, generation_size = 0;
    int rc = MB_OK;
    *config = (mb_model_config){0};
    if (!request->path && !request->shape)
        return mb_fail(err, err_cap, MB_E_INPUT,
                       "no model: give a checkpoint folder with --model DIR, or a named shape");
    if (request->shape && !request->path)
        return mb_config_shape(config, request, err, err_cap);
    if (request->shape)
        return mb_fail(err, err_cap, MB_E_INPUT, "both the folder %s and the shape %s are given: choose one",
                       request->path, request->shape);
    path = mb_string_format("%s/config.json", request->path);
    generation_path = mb_string_format("%s/generation_config.json", request->path);
    if (!path || !generation_path) {
        rc = mb_fail(err, err_cap, MB_E_SYSTEM, "no memory to read %s", request->path);
        goto out;
    }
    if (!mb_file_exists(path)) {
        rc = mb_fail(err, err_cap, MB_E_INPUT,
                     "%s is missing: give the checkpoint folder with --model DIR (a folder as downloaded from the "
                     "Hugging Face hub)", path);
        goto out;
    }
    rc = mb_file_read(path, 16 << 20, &json, &json_size, err, err_cap);
    if (rc == MB_OK && mb_file_exists(generation_path))
        rc = mb_file_read(generation_path, 16 << 20, &generation, &generation_size, err, err_cap);
    if (rc == MB_OK)
        rc = mb_config_parse(config, json, json_size, generation, generation_size, request, path, err, err_cap);
    if (rc == MB_OK)
        folder_name(request->path, config->name);
out:
    free(path);
    free(generation_path);
    free(json);
    free(generation);
    return rc;
}
