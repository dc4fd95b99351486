/*
 * gguf_config.c - architecture and sizes of a GGUF file as config.json, and its tensors under the names of a
 * checkpoint folder.
 *
 * An architecture that is read is a row of `architectures`. Keys that are not known are refused: they may change
 * what the model computes. Files of the architecture llama hold the rows of q and k for interleaved rotation
 * (llama.cpp's conversion permutes them), files of Qwen as they are.
 */
#include "model/checkpoint/gguf_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* prefix: begins its keys. */
static const struct architecture {
    const char *name, *model_type, *class;
    bool interleaved;
} architectures[] = {
    {"llama", "llama", "LlamaForCausalLM", true},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", false},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", false},
};
#define ARCHITECTURES (sizeof architectures / sizeof architectures[0])

static int find_architecture(const mb_gguf *gguf, const struct architecture **found, mb_error *err)
{
    mb_gguf_text name = {"", 0};
    mb_text known = {0};
    int rc = mb_gguf_want_text(gguf, "general.architecture", &name, err);
    if (rc != MB_OK)
        return rc;
    for (size_t i = 0; i < ARCHITECTURES; i++) {
        if (mb_gguf_same(name, architectures[i].name)) {
            *found = &architectures[i];
            mb_text_free(&known);
            return MB_OK;
        }
        mb_text_printf(&known, "%s%s", i ? ", " : "", architectures[i].name);
    }
    mb_fail(err, 0, "%s: GGUF files of architecture \"%.*s\" are not read, only of %s", gguf->where,
            (int)(name.length < 64 ? name.length : 64), name.bytes, known.data ? known.data : "");
    mb_text_free(&known);
    return MB_E_INPUT;
}

void mb_gguf_write_text(mb_text *json, mb_gguf_text text)
{
    mb_text copy = {0};
    mb_text_append(&copy, text.bytes, text.length);
    if (copy.failed)
        json->failed = true;
    else if (copy.data)
        mb_text_json(json, copy.data);
    mb_text_free(&copy);
}

static const mb_tensor *find_tensor(const mb_gguf *gguf, const char *name)
{
    for (size_t i = 0; i < gguf->tensor_count; i++)
        if (strcmp(gguf->tensors[i].name, name) == 0)
            return &gguf->tensors[i];
    return NULL;
}

/* ---- keys ---- */

/* "llama" and "block_count" -> "llama.block_count". */
static const char *key_of(char key[128], const struct architecture *a, const char *rest)
{
    snprintf(key, 128, "%s.%s", a->name, rest);
    return key;
}

/* Whole numbers that have the same meaning in config.json. */
static const struct size {
    const char *key, *name;
    bool needed;
    int64_t max;
} sizes[] = {
    {"block_count", "num_hidden_layers", true, 1024},
    {"context_length", "max_position_embeddings", true, INT32_MAX},
    {"embedding_length", "hidden_size", true, 65536},
    {"feed_forward_length", "intermediate_size", true, 1 << 20},
    {"attention.head_count", "num_attention_heads", true, 1024},
    {"attention.head_count_kv", "num_key_value_heads", false, 1024},
};
#define SIZES (sizeof sizes / sizeof sizes[0])

/* Those that are read elsewhere in this file, and those that say nothing about the computation. */
static const char *const other_keys[] = {"attention.layer_norm_rms_epsilon",
                                         "attention.key_length",
                                         "attention.value_length",
                                         "attention.sliding_window",
                                         "attention.causal",
                                         "rope.dimension_count",
                                         "rope.freq_base",
                                         "rope.scaling.type",
                                         "rope.scaling.factor",
                                         "rope.scaling.original_context_length",
                                         "rope.scaling.finetuned",
                                         "rope.scaling.yarn_beta_fast",
                                         "rope.scaling.yarn_beta_slow",
                                         "expert_count",
                                         "expert_used_count",
                                         "vocab_size"};
#define OTHER_KEYS (sizeof other_keys / sizeof other_keys[0])

static bool known_key(const char *rest, size_t length)
{
    for (size_t i = 0; i < SIZES; i++)
        if (length == strlen(sizes[i].key) && memcmp(rest, sizes[i].key, length) == 0)
            return true;
    for (size_t i = 0; i < OTHER_KEYS; i++)
        if (length == strlen(other_keys[i]) && memcmp(rest, other_keys[i], length) == 0)
            return true;
    return false;
}

static int check_keys(const mb_gguf *gguf, const struct architecture *a, mb_error *err)
{
    const size_t prefix = strlen(a->name) + 1;
    for (size_t i = 0; i < gguf->value_count; i++) {
        const mb_gguf_value *value = &gguf->values[i];
        if (value->key_length > prefix && memcmp(value->key, a->name, prefix - 1) == 0 &&
            value->key[prefix - 1] == '.' && !known_key(value->key + prefix, value->key_length - prefix))
            return mb_fail(err, MB_E_INPUT,
                           "%s: the key %.*s is not known here: it may change what the model computes",
                           gguf->where, (int)(value->key_length < 200 ? value->key_length : 200), value->key);
    }
    int64_t experts = 0;
    bool causal = true;
    char key[128];
    int rc = mb_gguf_want_int(gguf, key_of(key, a, "expert_count"), 0, INT64_MAX, &experts, err);
    if (rc == MB_OK && experts > 0)
        rc = mb_fail(err, MB_E_INPUT, "%s: a GGUF file with experts (%s) is not read: use the checkpoint folder",
                     gguf->where, key);
    if (rc == MB_OK)
        rc = mb_gguf_want_bool(gguf, key_of(key, a, "attention.causal"), &causal, err);
    return rc;
}

/* ---- RoPE ---- */

/* The shortest decimal that is this fp32 number, so that 1e-5 is written as 1e-05. */
static void put_real(mb_text *json, double value)
{
    char text[40];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtof(text, NULL) == (float)value)
            break;
    }
    if ((double)(float)value != value)
        snprintf(text, sizeof text, "%.17g", value);
    mb_text_puts(json, text);
}

/* rope_freqs.weight: a divisor of each frequency. Both lists of longrope say the same then. */
static int put_frequencies(const mb_gguf *gguf, const mb_tensor *tensor, int64_t positions, mb_text *json,
                           mb_error *err)
{
    if (tensor->rank != 1 || tensor->shape[0] > 512)
        return mb_fail(err, MB_E_INPUT, "%s: rope_freqs.weight must be a vector of at most 512 numbers",
                       gguf->where);
    mb_text_puts(json, ",\n  \"rope_scaling\": {\"rope_type\": \"longrope\", \"attention_factor\": 1.0");
    mb_text_printf(json, ", \"original_max_position_embeddings\": %lld, \"factor\": 1.0", (long long)positions);
    static const char *const lists[] = {"short_factor", "long_factor"};
    for (int list = 0; list < 2; list++) {
        mb_text_printf(json, ", \"%s\": [", lists[list]);
        for (int64_t i = 0; i < tensor->shape[0]; i++) {
            float value;
            mb_tensor_read(tensor, (size_t)i, 1, &value, MB_F32);
            if (!(value > 0) || value > 1e9f)
                return mb_fail(err, MB_E_INPUT, "%s: rope_freqs.weight holds %g", gguf->where, (double)value);
            mb_text_puts(json, i ? ", " : "");
            put_real(json, (double)value);
        }
        mb_text_puts(json, "]");
    }
    mb_text_puts(json, "}");
    return MB_OK;
}

static int put_scaling(const mb_gguf *gguf, const struct architecture *a, int64_t positions, mb_text *json,
                       mb_error *err)
{
    static const char *const reals[][2] = {{"rope.scaling.yarn_beta_fast", "beta_fast"},
                                           {"rope.scaling.yarn_beta_slow", "beta_slow"}};
    const mb_tensor *frequencies = find_tensor(gguf, "rope_freqs.weight");
    mb_gguf_text type = {"none", 4};
    double factor = 1, real = -1;
    int64_t original = 0;
    char key[128];
    int rc = mb_gguf_want_text(gguf, key_of(key, a, "rope.scaling.type"), &type, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_real(gguf, key_of(key, a, "rope.scaling.factor"), &factor, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "rope.scaling.original_context_length"), 1, INT32_MAX,
                              &original, err);
    if (rc != MB_OK)
        return rc;
    bool none = mb_gguf_same(type, "none"), yarn = mb_gguf_same(type, "yarn");
    if (frequencies && !none)
        return mb_fail(err, MB_E_INPUT, "%s: rope_freqs.weight beside %s.rope.scaling.type is not supported",
                       gguf->where, a->name);
    if (none)
        return frequencies ? put_frequencies(gguf, frequencies, positions, json, err) : MB_OK;
    if (!yarn && !mb_gguf_same(type, "linear"))
        return mb_fail(err, MB_E_INPUT,
                       "%s: %s.rope.scaling.type \"%.*s\" is not supported: none, linear and yarn are",
                       gguf->where, a->name, (int)(type.length < 64 ? type.length : 64), type.bytes);
    mb_text_printf(json, ",\n  \"rope_scaling\": {\"rope_type\": \"%s\", \"factor\": ", yarn ? "yarn" : "linear");
    put_real(json, factor);
    if (yarn && original > 0)
        mb_text_printf(json, ", \"original_max_position_embeddings\": %lld", (long long)original);
    for (size_t i = 0; i < 2 && rc == MB_OK && yarn; i++) {
        real = -1;
        rc = mb_gguf_want_real(gguf, key_of(key, a, reals[i][0]), &real, err);
        if (real >= 0) {
            mb_text_printf(json, ", \"%s\": ", reals[i][1]);
            put_real(json, real);
        }
    }
    mb_text_puts(json, "}");
    return rc;
}

/* Width of a head, and how much of it is turned; theta. */
static int put_rope(const mb_gguf *gguf, const struct architecture *a, mb_text *json, mb_error *err)
{
    int64_t heads = 1, hidden = 0, positions = 0, width = 0, values = 0, turned = 0;
    double theta = 10000;
    char key[128];
    int rc = mb_gguf_want_int(gguf, key_of(key, a, "attention.head_count"), 1, 1024, &heads, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "embedding_length"), 1, 65536, &hidden, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "context_length"), 1, INT32_MAX, &positions, err);
    turned = width = hidden / heads;
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "attention.key_length"), 1, 1024, &width, err);
    values = turned = width;
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "attention.value_length"), 1, 1024, &values, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "rope.dimension_count"), 1, 1024, &turned, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_real(gguf, key_of(key, a, "rope.freq_base"), &theta, err);
    if (rc == MB_OK && (values != width || turned != width))
        rc = mb_fail(err, MB_E_INPUT,
                     "%s: heads of %lld with values of %lld and RoPE over %lld dimensions are not supported",
                     gguf->where, (long long)width, (long long)values, (long long)turned);
    if (rc != MB_OK)
        return rc;
    mb_text_printf(json, ",\n  \"head_dim\": %lld,\n  \"rope_theta\": ", (long long)width);
    put_real(json, theta);
    return put_scaling(gguf, a, positions, json, err);
}

/* ---- config.json ---- */

/* Ids that end a text, pad it, or mask it: where the file has them, below the vocabulary. */
static int put_ids(const mb_gguf *gguf, int64_t vocab, mb_text *json, mb_error *err)
{
    static const char *const ids[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                         {"tokenizer.ggml.padding_token_id", "pad_token_id"},
                                         {"tokenizer.ggml.mask_token_id", "mask_token_id"}};
    int64_t end = -1, turn = -1;
    int rc = MB_OK;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0] && rc == MB_OK; i++) {
        int64_t id = -1;
        rc = mb_gguf_want_int(gguf, ids[i][0], 0, vocab - 1, &id, err);
        if (id >= 0)
            mb_text_printf(json, ",\n  \"%s\": %lld", ids[i][1], (long long)id);
    }
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, "tokenizer.ggml.eos_token_id", 0, vocab - 1, &end, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, "tokenizer.ggml.eot_token_id", 0, vocab - 1, &turn, err);
    if (end >= 0 && turn >= 0 && turn != end)
        mb_text_printf(json, ",\n  \"eos_token_id\": [%lld, %lld]", (long long)end, (long long)turn);
    else if (end >= 0 || turn >= 0)
        mb_text_printf(json, ",\n  \"eos_token_id\": %lld", (long long)(end >= 0 ? end : turn));
    return rc;
}

static int put_sizes(const mb_gguf *gguf, const struct architecture *a, mb_text *json, mb_error *err)
{
    char key[128];
    for (size_t i = 0; i < SIZES; i++) {
        int64_t value = 0;
        int rc = mb_gguf_want_int(gguf, key_of(key, a, sizes[i].key), 1, sizes[i].max, &value, err);
        if (rc != MB_OK)
            return rc;
        if (value == 0 && sizes[i].needed)
            return mb_fail(err, MB_E_INPUT, "%s: the key %s is missing", gguf->where, key);
        if (value > 0)
            mb_text_printf(json, ",\n  \"%s\": %lld", sizes[i].name, (long long)value);
    }
    return MB_OK;
}

int mb_gguf_write_config(const mb_gguf *gguf, mb_text *json, mb_error *err)
{
    const struct architecture *a = NULL;
    const mb_tensor *embed = find_tensor(gguf, "token_embd.weight");
    double epsilon = -1;
    int64_t window = 0;
    char key[128];
    int rc = find_architecture(gguf, &a, err);
    if (rc == MB_OK)
        rc = check_keys(gguf, a, err);
    if (rc == MB_OK && (!embed || embed->rank != 2))
        rc = mb_fail(err, MB_E_INPUT, "%s: the tensor token_embd.weight is missing or no matrix", gguf->where);
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "attention.sliding_window"), 0, INT32_MAX, &window, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_real(gguf, key_of(key, a, "attention.layer_norm_rms_epsilon"), &epsilon, err);
    if (rc == MB_OK && epsilon < 0)
        rc = mb_fail(err, MB_E_INPUT, "%s: the key %s is missing", gguf->where, key);
    if (rc != MB_OK)
        return rc;
    mb_text_printf(json, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\"", a->class, a->model_type);
    rc = put_sizes(gguf, a, json, err);
    if (rc == MB_OK)
        rc = put_rope(gguf, a, json, err);
    if (rc != MB_OK)
        return rc;
    mb_text_puts(json, ",\n  \"rms_norm_eps\": ");
    put_real(json, epsilon);
    mb_text_printf(json, ",\n  \"vocab_size\": %lld,\n  \"hidden_act\": \"silu\"", (long long)embed->shape[0]);
    mb_text_printf(json, ",\n  \"tie_word_embeddings\": %s",
                   find_tensor(gguf, "output.weight") ? "false" : "true");
    if (window > 0)
        mb_text_printf(json, ",\n  \"use_sliding_window\": true,\n  \"sliding_window\": %lld", (long long)window);
    rc = put_ids(gguf, embed->shape[0], json, err);
    mb_text_puts(json, "\n}\n");
    return rc == MB_OK && json->failed ? mb_no_memory(err, "the metadata of %s", gguf->where) : rc;
}

/* ---- tensors ---- */

static const char *const whole_names[][2] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                             {"output_norm.weight", "model.norm.weight"},
                                             {"output.weight", "lm_head.weight"}};
/* Behind "blk.N.", before "weight" or "bias". heads: 'q' or 'k' = rows of so many heads. */
static const struct layer_name {
    const char *file, *folder;
    char heads;
} layer_names[] = {
    {"attn_norm.", "input_layernorm.", 0},    {"attn_q.", "self_attn.q_proj.", 'q'},
    {"attn_k.", "self_attn.k_proj.", 'k'},    {"attn_v.", "self_attn.v_proj.", 0},
    {"attn_output.", "self_attn.o_proj.", 0}, {"attn_q_norm.", "self_attn.q_norm.", 0},
    {"attn_k_norm.", "self_attn.k_norm.", 0}, {"ffn_norm.", "post_attention_layernorm.", 0},
    {"ffn_gate.", "mlp.gate_proj.", 0},       {"ffn_up.", "mlp.up_proj.", 0},
    {"ffn_down.", "mlp.down_proj.", 0},
};

/* The folder's name of a tensor, malloc'ed; one that is not known keeps its own. *heads as above. */
static char *folder_name(const char *name, char *heads)
{
    int layer = -1, used = 0;
    *heads = 0;
    for (size_t i = 0; i < sizeof whole_names / sizeof whole_names[0]; i++)
        if (strcmp(name, whole_names[i][0]) == 0)
            return mb_string_copy(whole_names[i][1]);
    if (sscanf(name, "blk.%9d.%n", &layer, &used) != 1 || used == 0 || layer < 0)
        return mb_string_copy(name);
    for (size_t i = 0; i < sizeof layer_names / sizeof layer_names[0]; i++) {
        const size_t n = strlen(layer_names[i].file);
        if (strncmp(name + used, layer_names[i].file, n) != 0)
            continue;
        *heads = layer_names[i].heads;
        return mb_string_format("model.layers.%d.%s%s", layer, layer_names[i].folder, name + used + n);
    }
    return mb_string_copy(name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mb_tensor *)a)->name, ((const mb_tensor *)b)->name);
}

int mb_gguf_rename(mb_gguf *gguf, mb_error *err)
{
    const struct architecture *a = NULL;
    int64_t query = 1, keys = 0;
    size_t kept = 0;
    char key[128], heads;
    int rc = find_architecture(gguf, &a, err);
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "attention.head_count"), 1, 1024, &query, err);
    keys = query;
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, key_of(key, a, "attention.head_count_kv"), 1, 1024, &keys, err);
    for (size_t i = 0; i < gguf->tensor_count && rc == MB_OK; i++) {
        mb_tensor tensor = gguf->tensors[i];
        if (strcmp(tensor.name, "rope_freqs.weight") == 0) { /* config.json has it */
            free((char *)(uintptr_t)tensor.name);
            gguf->tensors[i].name = NULL;
            continue;
        }
        char *name = folder_name(tensor.name, &heads);
        if (!name)
            return mb_no_memory(err, "the tensors of %s", gguf->where);
        free((char *)(uintptr_t)tensor.name);
        gguf->tensors[i].name = NULL;
        tensor.name = name;
        const int64_t count = heads == 'q' ? query : keys;
        if (a->interleaved && heads && tensor.shape[0] % (2 * count) == 0)
            tensor.interleaved = (int32_t)count;
        gguf->tensors[kept++] = tensor;
    }
    if (rc != MB_OK)
        return rc;
    gguf->tensor_count = kept;
    qsort(gguf->tensors, kept, sizeof *gguf->tensors, by_name);
    for (size_t i = 1; i < kept; i++)
        if (strcmp(gguf->tensors[i - 1].name, gguf->tensors[i].name) == 0)
            return mb_fail(err, MB_E_INPUT, "%s: two tensors are called %s", gguf->where, gguf->tensors[i].name);
    return MB_OK;
}
