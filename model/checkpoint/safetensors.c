/*
 * safetensors.c - parsing and validating one safetensors image.
 *
 * Layout: 8 bytes little-endian N, N bytes of JSON {name: {dtype, shape, data_offsets}}, then the
 * byte buffer that data_offsets index. The file comes from a download, so nothing in it is believed: lengths are
 * checked before they are used, products before they overflow, and a short file is called what it mostly is, an
 * incomplete download.
 */
#include "model/checkpoint/safetensors.h"

#include "model/checkpoint/json.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX ((uint64_t)100 << 20) /* the format's own limit */

/* Element sizes of all types that the format defines; only three of them can be loaded as weights. */
static const struct dtype {
    const char *name;
    int bytes;
    bool usable;
    mb_type type;
} dtypes[] = {
    {"BF16", 2, true, MB_BF16}, {"F16", 2, true, MB_F16},      {"F32", 4, true, MB_F32},
    {"F64", 8, false, MB_F32},  {"I64", 8, false, MB_F32},     {"U64", 8, false, MB_F32},
    {"I32", 4, false, MB_F32},  {"U32", 4, false, MB_F32},     {"I16", 2, false, MB_F32},
    {"U16", 2, false, MB_F32},  {"I8", 1, false, MB_F32},      {"U8", 1, false, MB_F32},
    {"BOOL", 1, false, MB_F32}, {"F8_E4M3", 1, false, MB_F32}, {"F8_E5M2", 1, false, MB_F32},
};

/* NULL for a type that the format does not define: then not even the tensor's size is known. */
static const struct dtype *find_dtype(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

/* One header entry -> tensor. `begin` and `end` are relative to the byte buffer and not yet compared with it. */
static int parse_entry(const cJSON *entry, mb_tensor *tensor, uint64_t *begin, uint64_t *end, const char *where,
                       mb_error *err)
{
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    const char *name = entry->string;
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || !cJSON_IsArray(offsets) ||
        cJSON_GetArraySize(offsets) != 2)
        return mb_fail(err, MB_E_INPUT,
                       "%s: tensor %.200s needs dtype (a string), shape (a list) and data_offsets (two numbers)",
                       where, name);
    const struct dtype *kind = find_dtype(dtype->valuestring);
    if (!kind)
        return mb_fail(err, MB_E_INPUT, "%s: tensor %.200s has the unknown dtype \"%.32s\"", where, name,
                       dtype->valuestring);
    memcpy(tensor->dtype, kind->name, strlen(kind->name) + 1);
    tensor->usable = kind->usable;
    tensor->type = kind->type;

    /* Checked at every factor: three dimensions of 2^32 must not wrap around to a small size. */
    uint64_t bytes = (uint64_t)kind->bytes;
    const cJSON *item;
    cJSON_ArrayForEach(item, shape) {
        int64_t n = 0;
        if (tensor->rank == MB_TENSOR_RANK_MAX || !mb_model_json_integer(item, 0, (int64_t)1 << 48, &n))
            return mb_fail(err, MB_E_INPUT, "%s: tensor %.200s: shape must be at most %d whole numbers >= 0",
                           where, name, MB_TENSOR_RANK_MAX);
        tensor->shape[tensor->rank++] = n;
        if (__builtin_mul_overflow(bytes, (uint64_t)n, &bytes))
            return mb_fail(err, MB_E_INPUT, "%s: tensor %.200s: the product of its shape overflows", where, name);
    }
    /* 2^53 is the limit of what cJSON's doubles tell apart; a file of that size does not exist. */
    int64_t from = 0, to = 0;
    if (!mb_model_json_integer(offsets->child, 0, INT64_MAX, &from) ||
        !mb_model_json_integer(offsets->child->next, 0, INT64_MAX, &to) || to < from)
        return mb_fail(err, MB_E_INPUT,
                       "%s: tensor %.200s: data_offsets must be two whole numbers with 0 <= begin <= end", where,
                       name);
    if ((uint64_t)(to - from) != bytes)
        return mb_fail(err, MB_E_INPUT, "%s: tensor %.200s spans %lld bytes, its shape and dtype %s need %llu",
                       where, name, (long long)(to - from), kind->name, (unsigned long long)bytes);
    tensor->bytes = (size_t)bytes;
    *begin = (uint64_t)from;
    *end = (uint64_t)to;
    return MB_OK;
}

/* Tables are sorted by name once, then searched by halves: a shard of a large model has a thousand tensors. */
static int by_name(const void *a, const void *b)
{
    return strcmp(((const mb_tensor *)a)->name, ((const mb_tensor *)b)->name);
}

/* Empty tensors sort before the data that begins at the same byte. */
static int by_place(const void *a, const void *b)
{
    const mb_tensor *x = *(const mb_tensor *const *)a, *y = *(const mb_tensor *const *)b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Neighbours in the file must not share bytes. Holes between them are harmless and allowed. */
static int check_overlap(const mb_safetensors *table, const char *where, mb_error *err)
{
    int rc = MB_OK;
    const mb_tensor **order = calloc(table->count + 1, sizeof *order);
    if (!order)
        return mb_fail(err, MB_E_SYSTEM, "%s: no memory to check its tensors", where);
    for (size_t i = 0; i < table->count; i++)
        order[i] = &table->tensors[i];
    qsort(order, table->count, sizeof *order, by_place);
    for (size_t i = 1; i < table->count && rc == MB_OK; i++)
        if (order[i]->data < order[i - 1]->data + order[i - 1]->bytes)
            rc = mb_fail(err, MB_E_INPUT, "%s: tensors %.200s and %.200s overlap", where, order[i - 1]->name,
                         order[i]->name);
    free(order);
    return rc;
}

/* Fills the table from the parsed header; names move over from the JSON tree. */
static int read_entries(mb_safetensors *table, cJSON *root, const unsigned char *buffer, uint64_t available,
                        uint64_t head, const char *where, mb_error *err)
{
    uint64_t last = 0;
    size_t entries = (size_t)cJSON_GetArraySize(root);
    int rc = MB_OK;
    table->tensors = calloc(entries + 1, sizeof *table->tensors);
    if (!table->tensors)
        return mb_fail(err, MB_E_SYSTEM, "%s: no memory for its %zu tensors", where, entries);
    for (cJSON *entry = root->child; entry; entry = entry->next) {
        if (strcmp(entry->string, "__metadata__") == 0)
            continue;
        mb_tensor *tensor = &table->tensors[table->count];
        uint64_t begin = 0, end = 0;
        rc = parse_entry(entry, tensor, &begin, &end, where, err);
        if (rc != MB_OK)
            return rc;
        tensor->name = mb_string_copy(entry->string);
        if (!tensor->name)
            return mb_no_memory(err, "the tensor names of %s", where);
        table->count++;
        tensor->data = buffer + (end <= available ? begin : 0); /* corrected or refused just below */
        last = end > last ? end : last;
    }
    /* The header tells how long the file must be; both directions of a mismatch are a failed download. */
    if (last > available)
        return mb_fail(err, MB_E_INPUT,
                       "%s is incomplete: its header describes %llu bytes, the file has %llu; download it again",
                       where, (unsigned long long)(head + last), (unsigned long long)(head + available));
    if (last < available)
        return mb_fail(err, MB_E_INPUT,
                       "%s is damaged: its header describes %llu bytes, the file has %llu; download it again",
                       where, (unsigned long long)(head + last), (unsigned long long)(head + available));
    return MB_OK;
}

int mb_safetensors_parse(mb_safetensors *table, const unsigned char *data, size_t size, const char *where,
                         mb_error *err)
{
    cJSON *root = NULL;
    uint64_t length = 0;
    *table = (mb_safetensors){0};
    if (size < 8)
        return mb_fail(err, MB_E_INPUT,
                       "%s is incomplete: weight files have at least 8 bytes, this one %zu; download it again",
                       where, size);
    if (mb_model_is_lfs_pointer(data, size))
        return mb_fail(err, MB_E_INPUT, "%s is a Git LFS pointer, not the file itself: run `git lfs pull` there",
                       where);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | data[i];
    if (length < 2 || length > HEADER_MAX)
        return mb_fail(err, MB_E_INPUT,
                       "%s is no safetensors file: its header would have %llu bytes (2 to %llu are possible)",
                       where, (unsigned long long)length, (unsigned long long)HEADER_MAX);
    if (length > size - 8)
        return mb_fail(err, MB_E_INPUT,
                       "%s is incomplete: its header alone needs %llu bytes, the file has %zu; download it again",
                       where, (unsigned long long)(length + 8), size);
    int rc = mb_model_json_parse_all(&root, (const char *)data + 8, (size_t)length, where, err);
    if (rc == MB_OK)
        rc = read_entries(table, root, data + 8 + length, size - 8 - length, 8 + length, where, err);
    cJSON_Delete(root);
    if (rc == MB_OK) {
        qsort(table->tensors, table->count, sizeof *table->tensors, by_name);
        for (size_t i = 1; i < table->count && rc == MB_OK; i++)
            if (strcmp(table->tensors[i - 1].name, table->tensors[i].name) == 0)
                rc = mb_fail(err, MB_E_INPUT, "%s: tensor %.200s is described twice", where,
                             table->tensors[i].name);
    }
    if (rc == MB_OK)
        rc = check_overlap(table, where, err);
    if (rc != MB_OK)
        mb_safetensors_free(table);
    return rc;
}

/* Names are the table's own copies: the JSON tree they came from is gone. */
void mb_safetensors_free(mb_safetensors *table)
{
    for (size_t i = 0; i < table->count; i++)
        free((char *)(uintptr_t)table->tensors[i].name);
    free(table->tensors);
    *table = (mb_safetensors){0};
}

const mb_tensor *mb_safetensors_find(const mb_safetensors *table, const char *name)
{
    mb_tensor key = {.name = name};
    return table->count ? bsearch(&key, table->tensors, table->count, sizeof key, by_name) : NULL;
}
