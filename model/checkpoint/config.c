/*
 * config.c - config.json -> mb_model_config: the configuration class that the file names, its sizes, and a clear
 * no to everything this program does not compute (sliding windows, quantised weights, unknown experts).
 *
 * A key in the file comes first; where the file is silent the defaults of its class count (classes.c). Block and
 * mask are special: a caller may set them, and of SDAR the published files have neither, so that the tokenizer's
 * mask token and the folder's name are asked.
 */
#include "model/checkpoint/config.h"

#include "model/checkpoint/classes.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/rope.h"

#include <stdlib.h>
#include <string.h>

#define POSITIONS_MAX (2 << 20)
#define BLOCK_MAX 1024 /* far above any published block */
#define FAST_DLLM_SUB_BLOCK 8

/* What is read, by whom it is needed. */
struct source {
    const cJSON *root; /* where the sizes stand: the file, or its nested object */
    const cJSON *top;  /* the file */
    const mb_config_class *class;
    const char *where;
    mb_error *err;
};

/* The class named by model_type, exactly: qwen3_next or efficient_dlm_qwen3 are other networks. */
static int find_class(struct source *source)
{
    static const char *const expert_keys[] = {"num_experts", "num_local_experts", "n_routed_experts"};
    const char *name = mb_json_string(source->root, "model_type");
    const mb_config_class *class = source->class =
        name ? mb_config_class_find(name, mb_json_member(source->root, "architectures")) : NULL;
    if (!class) {
        mb_text known = {0};
        mb_config_class_list(&known);
        mb_fail(source->err, 0, "%s: model_type \"%.64s\" is not supported: known are %s", source->where,
                name ? name : "(none)", known.data ? known.data : "");
        mb_text_free(&known);
        return MB_E_INPUT;
    }
    if (class->refuse)
        return mb_fail(source->err, MB_E_INPUT, "%s: model_type \"%s\" %s", source->where, name, class->refuse);
    if (class->nested && !cJSON_IsObject(source->root = mb_json_member(source->top, class->nested)))
        return mb_fail(source->err, MB_E_INPUT, "%s: \"%s\" is missing or no object", source->where,
                       class->nested);
    for (size_t i = 0; i < sizeof expert_keys / sizeof expert_keys[0] && !class->experts; i++)
        if (mb_json_member(source->root, expert_keys[i]))
            return mb_fail(source->err, MB_E_INPUT, "%s: \"%s\": layers of model_type \"%s\" have no experts",
                           source->where, expert_keys[i], name);
    return MB_OK;
}

int32_t mb_layer_number(const mb_model_config *config, int32_t layer)
{
    int32_t number = 0;
    for (int32_t l = 0; l < layer; l++)
        number += !mb_layer_is_local(config, l);
    return number;
}

int32_t mb_layer_count(const mb_model_config *config)
{
    return mb_layer_number(config, config->layers);
}

const char *mb_family_name(mb_family family)
{
    static const char *const names[] = {"sdar", "fast_dllm_v2", "llada2", "diffusion_gemma"};
    return names[family];
}

/* A window counts only where a layer has it: transformers gives it to the layers from max_window_layers on, or to
 * those that layer_types names. */
static int refuse_switched_windows(const struct source *source, int32_t layers)
{
    const cJSON *root = source->root, *types = mb_json_member(root, "layer_types"), *item;
    const mb_config_class *class = source->class;
    int32_t first = class->window_layers;
    bool sliding = false;
    cJSON_ArrayForEach(item, types) {
        if (!cJSON_IsString(item) || strcmp(item->valuestring, "full_attention") != 0)
            return mb_fail(source->err, MB_E_INPUT, "%s: layer_types: only \"full_attention\" is supported",
                           source->where);
    }
    int rc = mb_model_json_want_bool(root, "use_sliding_window", source->where, &sliding, source->err);
    if (rc == MB_OK && class->window_layers > 0)
        rc = mb_model_json_want_int(root, "max_window_layers", source->where, 0, 1 << 20, &first, source->err);
    if (rc != MB_OK)
        return rc;
    bool none = class->layer_types && types;
    if (class->window_layers > 0)
        none = none || first >= layers;
    if (cJSON_HasObjectItem(root, "sliding_window") && !mb_json_member(root, "sliding_window"))
        none = true; /* null: a window of no length */
    if (sliding && !none)
        return mb_fail(source->err, MB_E_INPUT, "%s: sliding-window attention is not supported", source->where);
    return MB_OK;
}

/* Layouts that would load and then compute something else than the reference does. */
static int refuse_unsupported(const struct source *source, int32_t layers)
{
    const cJSON *act = mb_json_member(source->root, "hidden_act");
    if (act && (!cJSON_IsString(act) || strcmp(act->valuestring, "silu") != 0))
        return mb_fail(source->err, MB_E_INPUT, "%s: hidden_act must be \"silu\"", source->where);
    if (mb_json_member(source->root, "quantization_config"))
        return mb_fail(source->err, MB_E_INPUT,
                       "%s: quantised weights are not supported: use the bf16, f16 or f32 checkpoint",
                       source->where);
    return refuse_switched_windows(source, layers);
}

/* A window of all layers changes nothing where no text is longer. */
static int refuse_window(const mb_model_config *config, const struct source *source)
{
    int32_t window = source->class->window;
    const bool none =
        cJSON_HasObjectItem(source->root, "sliding_window") && !mb_json_member(source->root, "sliding_window");
    if (window == 0 || none)
        return MB_OK;
    int rc =
        mb_model_json_want_int(source->root, "sliding_window", source->where, 1, INT32_MAX, &window, source->err);
    if (rc != MB_OK || window >= config->positions)
        return rc;
    return mb_fail(
        source->err, MB_E_INPUT,
        "%s: a sliding window of %d tokens is not supported: a model of at most so many positions is the "
        "same without one (\"model\": {\"positions\": %d} in a config)",
        source->where, window, window);
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
 * trained to fill the rest of the last block with padding. Code that stops at one token has it as an argument
 * whose default is config.json's eos. */
static int find_stops(mb_model_config *config, const struct source *source, const mb_config_files *files)
{
    mb_error *err = source->err;
    cJSON *other = NULL;
    int rc = MB_OK;
    if (source->class->one_end && mb_json_member(source->root, "eos_token_id"))
        rc = read_stops(config, mb_json_member(source->root, "eos_token_id"), source->where, "eos_token_id", err);
    if (rc == MB_OK && config->stop_count == 0 && files->generation) {
        const char *name = "generation_config.json";
        rc = mb_model_json_parse(&other, files->generation, files->generation_size, name, err);
        const cJSON *eos = mb_json_member(other, "eos_token_id");
        if (rc == MB_OK && eos)
            rc = read_stops(config, eos, name, "eos_token_id", err);
    }
    if (rc == MB_OK && config->stop_count == 0 && !source->class->one_end) {
        static const char *const keys[] = {"eos_token_id", "pad_token_id"};
        for (size_t i = 0; i < 2 && rc == MB_OK; i++)
            if (mb_json_member(source->root, keys[i]))
                rc = read_stops(config, mb_json_member(source->root, keys[i]), source->where, keys[i], err);
    }
    cJSON_Delete(other);
    if (rc == MB_OK && config->stop_count == 0 && source->class->end_id >= 0 &&
        config->vocab > source->class->end_id)
        add_stop(config, source->class->end_id);
    if (rc == MB_OK && config->stop_count == 0)
        rc = mb_fail(err, MB_E_INPUT, "%s: \"eos_token_id\" is missing: no text would ever end", source->where);
    return rc;
}

/* The caller's stop tokens in place of the checkpoint's. */
static int take_stops(mb_model_config *config, const mb_model_request *request, const char *where, mb_error *err)
{
    const size_t room = sizeof config->stop_ids / sizeof config->stop_ids[0];
    if (request->stop_count > room)
        return mb_fail(err, MB_E_INPUT, "%s: %zu tokens that end a text are more than %zu", where,
                       request->stop_count, room);
    config->stop_count = 0;
    for (size_t i = 0; i < request->stop_count; i++) {
        if (request->stop_ids[i] < 0 || request->stop_ids[i] >= config->vocab)
            return mb_fail(err, MB_E_INPUT, "%s: stop token %d is outside the vocabulary of %d", where,
                           request->stop_ids[i], config->vocab);
        add_stop(config, request->stop_ids[i]);
    }
    return MB_OK;
}

/* Only Fast-dLLM v2 decodes a block in parts (small_block_size of its generate()). */
static int choose_sub_block(mb_model_config *config, int32_t wanted, const char *where, mb_error *err)
{
    config->sub_block = config->block;
    if (config->family != MB_FAMILY_FAST_DLLM_V2)
        return wanted ? mb_fail(err, MB_E_INPUT,
                                "%s: only Fast-dLLM v2 has sub-blocks, a %s model decodes whole "
                                "blocks",
                                where, mb_family_name(config->family))
                      : MB_OK;
    int32_t width = wanted ? wanted : FAST_DLLM_SUB_BLOCK;
    config->sub_block = config->block < width ? config->block : width;
    if (config->block % config->sub_block)
        return mb_fail(err, MB_E_INPUT, "%s: block size %d is no multiple of the sub-block of %d", where,
                       config->block, config->sub_block);
    return MB_OK;
}

/* What the caller says in place of the checkpoint. */
static int take_request(mb_model_config *config, const mb_model_request *request, const char *where, mb_error *err)
{
    if (request->block)
        config->block = request->block;
    if (request->mask)
        config->mask_id = request->mask;
    if (request->positions)
        config->positions = request->positions;
    return request->stop_count > 0 ? take_stops(config, request, where, err) : MB_OK;
}

static int check_ids(const mb_model_config *config, const char *where, mb_error *err)
{
    if (config->canvas.steps > 0)
        return MB_OK;
    if (config->mask_id < 0 || config->mask_id >= config->vocab)
        return mb_fail(err, MB_E_INPUT, "%s: mask token %d is outside the vocabulary of %d", where,
                       config->mask_id, config->vocab);
    for (int32_t i = 0; i < config->stop_count; i++)
        if (config->stop_ids[i] == config->mask_id)
            return mb_fail(err, MB_E_INPUT, "%s: token %d cannot be both the mask and the end", where,
                           config->mask_id);
    return MB_OK;
}

int mb_config_finish(mb_model_config *config, const mb_model_request *request, const char *where, mb_error *err)
{
    int rc = request ? take_request(config, request, where, err) : MB_OK;
    if (rc != MB_OK)
        return rc;
    if (config->block < 1 || config->block > BLOCK_MAX)
        return mb_fail(err, MB_E_INPUT, "%s: block size %d is outside 1 to %d", where, config->block, BLOCK_MAX);
    if (config->positions < config->block || config->positions > POSITIONS_MAX)
        return mb_fail(err, MB_E_INPUT, "%s: %d positions are outside %d (one block) to %d", where,
                       config->positions, config->block, POSITIONS_MAX);
    rc = choose_sub_block(config, request ? request->sub_block : 0, where, err);
    if (rc != MB_OK)
        return rc;
    if (config->query_heads % config->kv_heads)
        return mb_fail(err, MB_E_INPUT, "%s: %d query heads are no multiple of %d KV heads", where,
                       config->query_heads, config->kv_heads);
    if (config->head_dim % 2)
        return mb_fail(err, MB_E_INPUT, "%s: head_dim %d is odd, RoPE needs pairs", where, config->head_dim);
    if (config->rotary_dim < 2 || config->rotary_dim % 2 || config->rotary_dim > config->head_dim)
        return mb_fail(err, MB_E_INPUT, "%s: RoPE cannot turn %d of %d dimensions", where, config->rotary_dim,
                       config->head_dim);
    return check_ids(config, where, err);
}

/* ---- reading ---- */

/* One size; the class's default must have been put there, MB_UNSAID asks for the key. */
static int read_size(const struct source *source, const char *key, int32_t max, int32_t *value)
{
    return *value == MB_UNSAID
               ? mb_model_json_need_int(source->root, key, source->where, 1, max, value, source->err)
               : mb_model_json_want_int(source->root, key, source->where, 1, max, value, source->err);
}

static int read_sizes(mb_model_config *config, const struct source *source)
{
    const mb_config_class *class = source->class;
    const struct {
        const char *key;
        int32_t max, preset, *value;
    } sizes[] = {
        {"num_hidden_layers", 1024, class->layers, &config->layers},
        {"hidden_size", 65536, class->hidden, &config->hidden},
        {"num_attention_heads", 1024, class->query_heads, &config->query_heads},
        {"num_key_value_heads", 64, class->kv_heads, &config->kv_heads},
        {"intermediate_size", 1 << 20, class->intermediate, &config->intermediate},
        {"vocab_size", 1 << 22, class->vocab, &config->vocab},
        {"head_dim", 1024, class->head_dim, &config->head_dim},
        {"max_position_embeddings", POSITIONS_MAX, class->positions, &config->positions},
    };
    int rc = MB_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && rc == MB_OK; i++) {
        *sizes[i].value = sizes[i].preset;
        rc = read_size(source, sizes[i].key, sizes[i].max, sizes[i].value);
    }
    if (rc != MB_OK)
        return rc;
    bool null = cJSON_HasObjectItem(source->root, "num_key_value_heads") &&
                !mb_json_member(source->root, "num_key_value_heads");
    if (null || config->kv_heads == 0)
        config->kv_heads = config->query_heads;
    if (config->kv_heads > 64)
        return mb_fail(source->err, MB_E_INPUT, "%s: %d KV heads are not supported (up to 64)", source->where,
                       config->kv_heads);
    if (config->head_dim > 0)
        return MB_OK;
    /* Qwen2's way. Qwen3's heads need not be hidden / heads (4096 against 2560 in SDAR-4B). */
    if (config->hidden % config->query_heads)
        return mb_fail(source->err, MB_E_INPUT,
                       "%s: \"head_dim\" is missing and hidden_size %d is no multiple of %d heads", source->where,
                       config->hidden, config->query_heads);
    config->head_dim = config->hidden / config->query_heads;
    if (config->head_dim < 2 || config->head_dim > 1024)
        return mb_fail(source->err, MB_E_INPUT, "%s: heads of %d dimensions are not supported (2 to 1024)",
                       source->where, config->head_dim);
    return MB_OK;
}

/* Keys that may say one thing only, because nothing else is computed. */
static int read_fixed(const mb_model_config *config, const struct source *source)
{
    static const struct {
        const char *key;
        bool wanted;
    } fixed[] = {{"use_bias", false},
                 {"norm_head", false},
                 {"norm_softmax", false},
                 {"use_rmsnorm", true},
                 {"use_linear_attention", false},
                 {"mlp_bias", false},
                 {"using_split_qkv_in_self_attention", false}};
    int32_t rotary = 0;
    int rc = mb_model_json_want_int(source->root, "rotary_dim", source->where, 0, 1024, &rotary, source->err);
    if (rc == MB_OK && rotary != 0 && rotary != config->rotary_dim)
        rc = mb_fail(source->err, MB_E_INPUT, "%s: \"rotary_dim\" %d is not head_dim * partial_rotary_factor = %d",
                     source->where, rotary, config->rotary_dim);
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0] && rc == MB_OK; i++) {
        bool value = fixed[i].wanted;
        rc = mb_model_json_want_bool(source->root, fixed[i].key, source->where, &value, source->err);
        if (rc == MB_OK && value != fixed[i].wanted)
            rc = mb_fail(source->err, MB_E_INPUT, "%s: \"%s\" %s is not supported", source->where, fixed[i].key,
                         value ? "true" : "false");
    }
    if (rc == MB_OK && cJSON_GetArraySize(mb_json_member(source->root, "linear_attention_layers")) > 0)
        rc = mb_fail(source->err, MB_E_INPUT, "%s: \"linear_attention_layers\" is not supported", source->where);
    return rc;
}

/* Everything of config.json that is no size. */
static int read_rest(mb_model_config *config, const struct source *source)
{
    const mb_config_class *class = source->class;
    const cJSON *root = source->root;
    const char *where = source->where;
    mb_error *err = source->err;
    config->norm_eps = class->norm_eps;
    config->rope_theta = class->rope_theta;
    config->tied = class->tied;
    config->qk_norm = class->qk_norm;
    config->qkv_bias = class->qkv_bias;
    config->norm_one_rounding = class->norm_one_rounding;
    int rc = mb_model_json_want_real(root, "rms_norm_eps", where, 0.0, 1.0, &config->norm_eps, err);
    if (rc == MB_OK)
        rc = mb_rope_read(config, root, class->rotary_factor, where, err);
    if (rc == MB_OK && class->rotary_factor == 1 && config->rotary_dim != config->head_dim)
        rc = mb_fail(err, MB_E_INPUT, "%s: partial_rotary_factor is not supported for model_type \"%s\", only 1",
                     where, class->model_type);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(root, "tie_word_embeddings", where, &config->tied, err);
    if (rc == MB_OK)
        rc = mb_model_json_want_bool(root, "use_qk_norm", where, &config->qk_norm, err);
    if (rc == MB_OK && class->qkv_bias_key)
        rc = mb_model_json_want_bool(root, class->qkv_bias_key, where, &config->qkv_bias, err);
    return rc == MB_OK ? read_fixed(config, source) : rc;
}

/* Block and mask: the caller's, the file's, the folder's, the class's. */
static int read_block(mb_model_config *config, const struct source *source, const mb_config_files *files,
                      const mb_model_request *request)
{
    const mb_config_class *class = source->class;
    config->block = class->block;
    config->mask_id = -1;
    if (class->nested) { /* no mask */
        if (request && request->mask)
            return mb_fail(source->err, MB_E_INPUT,
                           "%s: a canvas of random tokens has no mask token: do without \"mask\"", source->where);
        return mb_model_json_want_int(source->top, "canvas_length", source->where, 1, BLOCK_MAX, &config->block,
                                      source->err);
    }
    const char *key = mb_json_member(source->root, "bd_size") ? "bd_size" : "block_size";
    config->block = class->mask_of_tokenizer && files->block > 0 ? files->block : class->block;
    config->mask_id = class->mask_of_tokenizer && files->mask_id >= 0 ? files->mask_id : class->mask_id;
    int rc = mb_model_json_want_int(source->root, key, source->where, 1, BLOCK_MAX, &config->block, source->err);
    if (rc == MB_OK)
        rc = mb_model_json_want_int(source->root, "mask_token_id", source->where, 0, config->vocab - 1,
                                    &config->mask_id, source->err);
    bool block = config->block > 0 || (request && request->block);
    bool mask = config->mask_id >= 0 || (request && request->mask);
    if (rc != MB_OK || (block && mask))
        return rc;
    if (class->mask_of_tokenizer)
        return mb_fail(source->err, MB_E_INPUT,
                       "%s has no \"mask_token_id\", and tokenizer_config.json no \"mask_token\" with an id: set "
                       "the mask token with \"model\": {\"mask\": ID} or --mask ID",
                       source->where);
    return mb_fail(source->err, MB_E_INPUT,
                   "%s: model_type \"%s\" without \"mask_token_id\" and \"block_size\" (or \"bd_size\") is no "
                   "block-diffusion model: give both with \"model\": {\"mask\": ID, \"block\": N} or --mask ID "
                   "--block N; a block of 1 is causal attention, as an autoregressive model has it",
                   source->where, class->model_type);
}

static int read_plain(mb_model_config *config, const struct source *source)
{
    int rc = refuse_unsupported(source, config->layers);
    return rc == MB_OK ? read_rest(config, source) : rc;
}

/* A model of canvases: its own keys, beside those of generation_config.json that belong to its sampler. */
static int read_nested(mb_model_config *config, const struct source *source, const mb_config_files *files)
{
    cJSON *generation = NULL;
    int rc = MB_OK;
    config->norm_eps = source->class->norm_eps;
    config->tied = source->class->tied;
    config->qk_norm = source->class->qk_norm;
    config->norm_one_rounding = source->class->norm_one_rounding;
    if (files->generation)
        rc = mb_model_json_parse(&generation, files->generation, files->generation_size, "generation_config.json",
                                 source->err);
    if (rc == MB_OK)
        rc = mb_config_read_canvas(config, source->top, source->root, generation, source->where, source->err);
    cJSON_Delete(generation);
    return rc;
}

/* Order matters: the class decides defaults, sizes bound the ids that are read after them. */
int mb_config_parse(mb_model_config *config, const mb_config_files *files, const mb_model_request *request,
                    mb_error *err)
{
    cJSON *root = NULL;
    struct source source = {.where = files->where, .err = err};
    *config = (mb_model_config){0};
    int rc = mb_model_json_parse(&root, files->json, files->json_size, files->where, err);
    source.root = source.top = root;
    if (rc == MB_OK)
        rc = find_class(&source);
    if (rc == MB_OK) {
        config->family = source.class->family;
        rc = read_sizes(config, &source);
    }
    if (rc == MB_OK)
        rc = source.class->nested ? read_nested(config, &source, files) : read_plain(config, &source);
    if (rc == MB_OK)
        rc = read_block(config, &source, files, request);
    if (rc == MB_OK && source.class->experts && !source.class->nested)
        rc = mb_config_read_moe(config, &source.class->moe, root, files->where, err);
    if (rc == MB_OK)
        rc = find_stops(config, &source, files);
    if (rc == MB_OK && source.class->edits_from > 0)
        config->edits = config->positions >= source.class->edits_from;
    if (rc == MB_OK)
        rc = mb_config_finish(config, request, files->where, err);
    if (rc == MB_OK)
        rc = refuse_window(config, &source);
    cJSON_Delete(root);
    return rc;
}
