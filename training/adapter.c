/*
 * adapter.c - an adapter on the host: which tensors it has, its first values, the sum with the weights, its files
 * in the layout of the package `peft` (adapter_config.json, adapter_model.safetensors).
 */
#include "training/adapter.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64 /* floats: an array begins at a multiple of 256 bytes */
#define MARKS " ,"

/* Whether a list of names has this one; n: its length. */
static bool listed(const char *list, const char *name, size_t n)
{
    for (const char *p = list + strspn(list, MARKS); *p; p += strspn(p, MARKS)) {
        const size_t k = strcspn(p, MARKS);
        if (k == n && strncmp(p, name, n) == 0)
            return true;
        p += k;
    }
    return false;
}

/* "q_proj" of "model.layers.0.self_attn.q_proj.weight". */
static const char *module_of(const char *name, size_t *n)
{
    const char *end = strstr(name, ".weight"), *at = end;
    while (at && at > name && at[-1] != '.')
        at--;
    *n = at ? (size_t)(end - at) : 0;
    return at;
}

typedef struct making {
    mb_adapter *adapter;
    bool failed;
} making;

static size_t take(mb_adapter *adapter, int64_t n)
{
    const size_t first = adapter->floats;
    adapter->floats += ((size_t)n + ALIGN - 1) / ALIGN * ALIGN;
    adapter->exact += (size_t)n;
    return first;
}

static int add_part(void *user, const mb_parameter *parameter)
{
    making *m = user;
    mb_adapter *adapter = m->adapter;
    const mb_weight_part *part = parameter->part;
    size_t n;
    int32_t layer;
    const char *module = module_of(parameter->name, &n);
    if (!parameter->matrix || !module || sscanf(parameter->name, "model.layers.%d.", &layer) != 1 ||
        !listed(adapter->options.targets, module, n))
        return MB_OK;
    mb_adapter_part *parts = realloc(adapter->parts, (adapter->count + 1) * sizeof *parts);
    m->failed = !parts;
    if (!parts)
        return MB_E_SYSTEM;
    adapter->parts = parts;
    mb_adapter_part *to = &parts[adapter->count++];
    *to = (mb_adapter_part){.layer = layer,
                            .field = part->field,
                            .inside = (size_t)(part->first_row * part->cols),
                            .weight = parameter->first,
                            .rows = part->rows,
                            .cols = part->cols,
                            .tensor_rows = part->tensor_rows};
    snprintf(to->name, sizeof to->name, "%.*s", (int)(module + n - parameter->name), parameter->name);
    to->a = take(adapter, adapter->options.rank * part->cols);
    to->b = take(adapter, adapter->options.rank * part->rows);
    return MB_OK;
}

/* Every target is a part of the first layer. */
static int check_targets(const mb_adapter *adapter, mb_error *err)
{
    const char *list = adapter->options.targets;
    for (const char *p = list + strspn(list, MARKS); *p; p += strspn(p, MARKS)) {
        const size_t n = strcspn(p, MARKS);
        bool found = false;
        for (size_t i = 0; i < adapter->count && !found; i++) {
            const char *dot = strrchr(adapter->parts[i].name, '.') + 1;
            found = strlen(dot) == n && strncmp(dot, p, n) == 0;
        }
        if (!found)
            return mb_fail(err, MB_E_INPUT, "config key lora_targets: the model has no projection \"%.*s\"",
                           (int)n, p);
        p += n;
    }
    return adapter->count > 0 ? MB_OK : mb_fail(err, MB_E_INPUT, "config key lora_targets names no projection");
}

int mb_adapter_open(mb_adapter *adapter, const mb_model_config *config, const mb_adapter_options *options,
                    mb_error *err)
{
    making m = {.adapter = adapter};
    *adapter = (mb_adapter){.options = *options};
    if (options->rank == 0)
        return MB_OK;
    adapter->scale = options->alpha / options->rank;
    mb_parameters_each(config, add_part, &m);
    int rc = m.failed ? mb_no_memory(err, "an adapter") : check_targets(adapter, err);
    if (rc != MB_OK)
        mb_adapter_close(adapter);
    return rc;
}

void mb_adapter_close(mb_adapter *adapter)
{
    free(adapter->parts);
    *adapter = (mb_adapter){0};
}

void mb_adapter_draw(const mb_adapter *adapter, uint64_t seed, float *host)
{
    memset(host, 0, adapter->floats * sizeof *host);
    for (size_t i = 0; i < adapter->count; i++) {
        const mb_adapter_part *part = &adapter->parts[i];
        char name[160];
        snprintf(name, sizeof name, "lora_A:%s", part->name);
        mb_random random = mb_random_named(seed, name);
        const double width = adapter->scale / sqrt((double)part->cols);
        for (int64_t k = 0; k < adapter->options.rank * part->cols; k++)
            host[part->a + (size_t)k] = (float)(width * (2.0 * mb_random_unit(&random) - 1.0));
    }
}

void mb_adapter_merge(const mb_adapter *adapter, const float *host, float *weights)
{
    const int64_t rank = adapter->options.rank;
    for (size_t i = 0; i < adapter->count; i++) {
        const mb_adapter_part *part = &adapter->parts[i];
        const float *a = host + part->a, *b = host + part->b;
        for (int64_t row = 0; row < part->rows; row++) {
            float *to = weights + part->weight + (size_t)(row * part->cols);
            for (int64_t r = 0; r < rank; r++) /* in this order: rows of A are read along */
                for (int64_t col = 0; col < part->cols; col++)
                    to[col] += b[row * rank + r] * a[r * part->cols + col];
        }
    }
}

/* ---- files ---- */

static void describe(mb_text *header, const mb_adapter_part *part, int64_t rank, size_t *offset)
{
    const int64_t shape[2][2] = {{rank, part->cols}, {part->rows, rank}};
    for (int i = 0; i < 2; i++) {
        const size_t bytes = (size_t)(shape[i][0] * shape[i][1]) * sizeof(float);
        mb_text_printf(header,
                       ",\"base_model.model.%s.lora_%c.weight\":{\"dtype\":\"F32\",\"shape\":[%lld,%lld],"
                       "\"data_offsets\":[%zu,%zu]}",
                       part->name, i ? 'B' : 'A', (long long)shape[i][0], (long long)shape[i][1], *offset,
                       *offset + bytes);
        *offset += bytes;
    }
}

static void append_scaled(mb_text *data, const float *from, int64_t n, double factor)
{
    for (int64_t i = 0; i < n; i++) {
        const float value = (float)((double)from[i] * factor);
        mb_text_append(data, (const char *)&value, sizeof value);
    }
}

static int write_tensors(const mb_adapter *adapter, const float *host, const char *folder, mb_error *err)
{
    const int64_t rank = adapter->options.rank;
    mb_text header = {0}, data = {0};
    size_t offset = 0;
    char *path = mb_string_format("%s/adapter_model.safetensors", folder);
    mb_text_puts(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < adapter->count; i++)
        describe(&header, &adapter->parts[i], rank, &offset);
    mb_text_puts(&header, "}");
    while (!header.failed && header.length % 8)
        mb_text_puts(&header, " ");
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header.length >> (8 * i));
    mb_text_append(&data, (const char *)length, sizeof length);
    mb_text_append(&data, header.data, header.length);
    for (size_t i = 0; i < adapter->count; i++) {
        const mb_adapter_part *part = &adapter->parts[i];
        append_scaled(&data, host + part->a, rank * part->cols, 1.0 / adapter->scale);
        append_scaled(&data, host + part->b, rank * part->rows, 1.0);
    }
    int rc = path && !header.failed && !data.failed ? mb_file_write(path, data.data, data.length, err)
                                                    : mb_no_memory(err, "an adapter of %zu bytes", offset);
    mb_text_free(&header);
    mb_text_free(&data);
    free(path);
    return rc;
}

static int write_config(const mb_adapter *adapter, const char *base, const char *folder, mb_error *err)
{
    char *path = mb_string_format("%s/adapter_config.json", folder), *text = NULL;
    cJSON *root = cJSON_CreateObject(), *targets = cJSON_AddArrayToObject(root, "target_modules");
    const char *list = adapter->options.targets;
    for (const char *p = list + strspn(list, MARKS); *p; p += strspn(p, MARKS)) {
        char *name = mb_string_format("%.*s", (int)strcspn(p, MARKS), p);
        cJSON_AddItemToArray(targets, cJSON_CreateString(name ? name : ""));
        free(name);
        p += strcspn(p, MARKS);
    }
    cJSON_AddStringToObject(root, "peft_type", "LORA");
    cJSON_AddStringToObject(root, "task_type", "CAUSAL_LM");
    cJSON_AddStringToObject(root, "base_model_name_or_path", base);
    cJSON_AddNumberToObject(root, "r", adapter->options.rank);
    cJSON_AddNumberToObject(root, "lora_alpha", adapter->options.alpha);
    cJSON_AddNumberToObject(root, "lora_dropout", 0);
    cJSON_AddStringToObject(root, "bias", "none");
    cJSON_AddBoolToObject(root, "fan_in_fan_out", false);
    cJSON_AddBoolToObject(root, "inference_mode", true);
    text = cJSON_Print(root);
    int rc = path && text ? mb_file_write(path, text, strlen(text), err) : mb_no_memory(err, "a path");
    cJSON_free(text);
    cJSON_Delete(root);
    free(path);
    return rc;
}

int mb_adapter_write(const mb_adapter *adapter, const float *host, const char *base, const char *folder,
                     mb_error *err)
{
    int rc = mb_folder_make(folder, err);
    if (rc == MB_OK)
        rc = write_config(adapter, base, folder, err);
    return rc == MB_OK ? write_tensors(adapter, host, folder, err) : rc;
}
