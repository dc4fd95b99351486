/*
 * gguf.c - parsing and validating one GGUF image, versions 2 and 3, little-endian.
 *
 * Layout: "GGUF", version, number of tensors, number of keys; the keys with their values; name, shape, type and
 * offset of each tensor; padding to the alignment; the data that offsets index. The file comes from a download, so
 * nothing in it is believed: a count is compared with the bytes that are left before anything is allocated for it.
 */
#include "model/checkpoint/gguf.h"

#include "model/checkpoint/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 32 /* where general.alignment does not say otherwise */
#define NAME_MAX_BYTES 255
#define KEY_MAX_BYTES 65535
#define DIMENSIONS_MAX 4

/* Where the parser stands. Every step asks for its bytes first. */
struct reader {
    const unsigned char *data;
    size_t size, at;
    const char *where;
    mb_error *err;
};

static uint64_t number_at(const unsigned char *bytes, int n)
{
    uint64_t value = 0;
    for (int i = n - 1; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

static size_t left(const struct reader *r)
{
    return r->size - r->at;
}

static int truncated(const struct reader *r, const char *what)
{
    return mb_fail(r->err, MB_E_INPUT,
                   "%s is incomplete or damaged: %s passes its end (%zu bytes); download it again", r->where, what,
                   r->size);
}

static int take_number(struct reader *r, int n, const char *what, uint64_t *value)
{
    if (left(r) < (size_t)n)
        return truncated(r, what);
    *value = number_at(r->data + r->at, n);
    r->at += (size_t)n;
    return MB_OK;
}

/* A text with its length in front: UTF-8, no zero byte. */
static int take_text(struct reader *r, uint64_t max, const char *what, mb_gguf_text *text)
{
    uint64_t length = 0;
    int rc = take_number(r, 8, what, &length);
    if (rc != MB_OK)
        return rc;
    if (length > left(r))
        return truncated(r, what);
    if (length > max)
        return mb_fail(r->err, MB_E_INPUT, "%s: %s has %llu bytes; %llu are possible", r->where, what,
                       (unsigned long long)length, (unsigned long long)max);
    *text = (mb_gguf_text){(const char *)r->data + r->at, (size_t)length};
    r->at += (size_t)length;
    if (memchr(text->bytes, '\0', text->length) || !mb_utf8_check(text->bytes, text->length, NULL))
        return mb_fail(r->err, MB_E_INPUT, "%s: %s is no UTF-8 text", r->where, what);
    return MB_OK;
}

/* ---- metadata ---- */

static int value_bytes(mb_gguf_type type)
{
    static const int bytes[MB_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[type];
}

/* The elements of a value: `count` of them, each at least a byte. */
static int take_elements(struct reader *r, mb_gguf_value *value, const char *what)
{
    int bytes = value_bytes(value->type);
    value->data = r->data + r->at;
    if (value->count > left(r) / (size_t)(bytes ? bytes : 8))
        return truncated(r, what);
    if (bytes) {
        r->at += (size_t)value->count * (size_t)bytes;
        return MB_OK;
    }
    int rc = MB_OK;
    for (uint64_t i = 0; i < value->count && rc == MB_OK; i++)
        rc = take_text(r, SIZE_MAX, what, &(mb_gguf_text){0});
    return rc;
}

static int take_value(struct reader *r, mb_gguf_value *value)
{
    mb_gguf_text key;
    uint64_t type = 0;
    char what[96];
    int rc = take_text(r, KEY_MAX_BYTES, "a key of the metadata", &key);
    if (rc != MB_OK)
        return rc;
    value->key = key.bytes;
    value->key_length = key.length;
    value->count = 1;
    snprintf(what, sizeof what, "the value of %.*s", (int)(key.length < 64 ? key.length : 64), key.bytes);
    rc = take_number(r, 4, what, &type);
    if (rc == MB_OK && type == MB_GGUF_ARRAY) {
        value->array = true;
        rc = take_number(r, 4, what, &type);
        if (rc == MB_OK)
            rc = take_number(r, 8, what, &value->count);
    }
    if (rc == MB_OK && (type >= MB_GGUF_TYPES || type == MB_GGUF_ARRAY))
        rc = mb_fail(r->err, MB_E_INPUT, "%s: %s has type %llu, which is not known", r->where, what,
                     (unsigned long long)type);
    if (rc != MB_OK)
        return rc;
    value->type = (mb_gguf_type)type;
    return take_elements(r, value, what);
}

static int by_key(const void *a, const void *b)
{
    const mb_gguf_value *x = a, *y = b;
    size_t n = x->key_length < y->key_length ? x->key_length : y->key_length;
    int order = memcmp(x->key, y->key, n);
    return order ? order : x->key_length < y->key_length ? -1 : x->key_length > y->key_length;
}

static int take_values(struct reader *r, mb_gguf *gguf, uint64_t count)
{
    if (count > left(r) / 13) /* length of a key, a type, a byte of value */
        return truncated(r, "the metadata");
    gguf->values = calloc((size_t)count + 1, sizeof *gguf->values);
    if (!gguf->values)
        return mb_no_memory(r->err, "the metadata of %s", r->where);
    for (uint64_t i = 0; i < count; i++) {
        int rc = take_value(r, &gguf->values[gguf->value_count++]);
        if (rc != MB_OK)
            return rc;
    }
    qsort(gguf->values, gguf->value_count, sizeof *gguf->values, by_key);
    for (size_t i = 1; i < gguf->value_count; i++)
        if (by_key(&gguf->values[i - 1], &gguf->values[i]) == 0)
            return mb_fail(r->err, MB_E_INPUT, "%s: the key %.*s stands there twice", r->where,
                           (int)(gguf->values[i].key_length < 200 ? gguf->values[i].key_length : 200),
                           gguf->values[i].key);
    return MB_OK;
}

const mb_gguf_value *mb_gguf_find(const mb_gguf *gguf, const char *key)
{
    const mb_gguf_value wanted = {.key = key, .key_length = strlen(key)};
    return gguf->value_count ? bsearch(&wanted, gguf->values, gguf->value_count, sizeof *gguf->values, by_key)
                             : NULL;
}

/* ---- tensors ---- */

/* Shape and type; the file has the fastest dimension first. */
static int take_shape(struct reader *r, mb_tensor *tensor)
{
    uint64_t dimensions = 0, size = 0, type = 0, elements = 1;
    int rc = take_number(r, 4, tensor->name, &dimensions);
    if (rc == MB_OK && (dimensions < 1 || dimensions > DIMENSIONS_MAX))
        rc = mb_fail(r->err, MB_E_INPUT, "%s: tensor %s has %llu dimensions; 1 to %d are possible", r->where,
                     tensor->name, (unsigned long long)dimensions, DIMENSIONS_MAX);
    for (uint64_t i = 0; i < dimensions && rc == MB_OK; i++) {
        rc = take_number(r, 8, tensor->name, &size);
        if (rc == MB_OK &&
            (size < 1 || size > (uint64_t)1 << 48 || __builtin_mul_overflow(elements, size, &elements)))
            rc = mb_fail(r->err, MB_E_INPUT, "%s: tensor %s: a dimension of %llu is impossible", r->where,
                         tensor->name, (unsigned long long)size);
        tensor->shape[dimensions - 1 - i] = (int64_t)size;
    }
    if (rc == MB_OK)
        rc = take_number(r, 4, tensor->name, &type);
    if (rc != MB_OK)
        return rc;
    tensor->rank = (int32_t)dimensions;
    const struct mb_quant *quant = mb_quant_find((uint32_t)type);
    if (!quant) {
        mb_text known = {0};
        mb_quant_list(&known);
        mb_fail(r->err, 0, "%s: tensor %s has type %llu of ggml; those that are read: %s", r->where, tensor->name,
                (unsigned long long)type, known.data ? known.data : "");
        mb_text_free(&known);
        return MB_E_INPUT;
    }
    const uint64_t columns = (uint64_t)tensor->shape[dimensions - 1], each = (uint64_t)quant->elements;
    uint64_t bytes = 0;
    if (columns % each || __builtin_mul_overflow(elements / each, (uint64_t)quant->bytes, &bytes))
        return mb_fail(r->err, MB_E_INPUT, "%s: tensor %s: rows of %llu numbers are no blocks of type %s",
                       r->where, tensor->name, (unsigned long long)columns, quant->name);
    snprintf(tensor->dtype, sizeof tensor->dtype, "%s", quant->name);
    tensor->usable = true;
    tensor->type = quant->type;
    tensor->quant = quant->decode ? quant : NULL;
    tensor->bytes = (size_t)bytes;
    return MB_OK;
}

static int take_tensor(struct reader *r, mb_tensor *tensor, uint64_t *offset)
{
    mb_gguf_text name;
    int rc = take_text(r, NAME_MAX_BYTES, "the name of a tensor", &name);
    if (rc != MB_OK)
        return rc;
    tensor->name = mb_string_format("%.*s", (int)name.length, name.bytes);
    if (!tensor->name)
        return mb_no_memory(r->err, "the tensors of %s", r->where);
    rc = take_shape(r, tensor);
    return rc == MB_OK ? take_number(r, 8, tensor->name, offset) : rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mb_tensor *)a)->name, ((const mb_tensor *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const mb_tensor *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data;
}

/* Names once, bytes once. Leaves the table sorted by name. */
static int check_tensors(const struct reader *r, mb_gguf *gguf)
{
    mb_tensor *tensors = gguf->tensors;
    qsort(tensors, gguf->tensor_count, sizeof *tensors, by_place);
    for (size_t i = 1; i < gguf->tensor_count; i++)
        if (tensors[i].data < tensors[i - 1].data + tensors[i - 1].bytes)
            return mb_fail(r->err, MB_E_INPUT, "%s: tensors %s and %s overlap", r->where, tensors[i - 1].name,
                           tensors[i].name);
    qsort(tensors, gguf->tensor_count, sizeof *tensors, by_name);
    for (size_t i = 1; i < gguf->tensor_count; i++)
        if (strcmp(tensors[i - 1].name, tensors[i].name) == 0)
            return mb_fail(r->err, MB_E_INPUT, "%s: tensor %s is described twice", r->where, tensors[i].name);
    return MB_OK;
}

static int take_tensors(struct reader *r, mb_gguf *gguf, uint64_t count)
{
    int64_t alignment = ALIGNMENT;
    if (count > left(r) / 32) /* length of a name, one dimension, type, offset */
        return truncated(r, "the list of tensors");
    gguf->tensors = calloc((size_t)count + 1, sizeof *gguf->tensors);
    uint64_t *offsets = calloc((size_t)count + 1, sizeof *offsets);
    int rc = gguf->tensors && offsets ? MB_OK : mb_no_memory(r->err, "the tensors of %s", r->where);
    for (uint64_t i = 0; i < count && rc == MB_OK; i++) {
        gguf->tensor_count++;
        rc = take_tensor(r, &gguf->tensors[i], &offsets[i]);
    }
    if (rc == MB_OK)
        rc = mb_gguf_want_int(gguf, "general.alignment", 1, 1 << 20, &alignment, r->err);
    if (rc == MB_OK && (alignment & (alignment - 1)))
        rc = mb_fail(r->err, MB_E_INPUT, "%s: general.alignment %lld is no power of two", r->where,
                     (long long)alignment);
    const size_t pad = (size_t)(-r->at & (size_t)(alignment - 1)), room = left(r) > pad ? left(r) - pad : 0;
    for (uint64_t i = 0; i < count && rc == MB_OK; i++) {
        mb_tensor *tensor = &gguf->tensors[i];
        if (offsets[i] > room || tensor->bytes > room - offsets[i])
            rc = truncated(r, tensor->name);
        else if (offsets[i] % (uint64_t)alignment)
            rc = mb_fail(r->err, MB_E_INPUT, "%s: tensor %s begins at byte %llu, which is not aligned to %lld",
                         r->where, tensor->name, (unsigned long long)offsets[i], (long long)alignment);
        else
            tensor->data = r->data + r->at + pad + offsets[i];
    }
    free(offsets);
    return rc == MB_OK ? check_tensors(r, gguf) : rc;
}

int mb_gguf_parse(mb_gguf *gguf, const unsigned char *data, size_t size, const char *where, mb_error *err)
{
    struct reader r = {.data = data, .size = size, .where = where, .err = err};
    uint64_t version = 0, tensors = 0, values = 0;
    *gguf = (mb_gguf){.where = where};
    if (mb_model_is_lfs_pointer(data, size))
        return mb_fail(err, MB_E_INPUT, "%s is a Git LFS pointer, not the file itself: run `git lfs pull` there",
                       where);
    if (size < 4 || memcmp(data, "GGUF", 4) != 0)
        return mb_fail(err, MB_E_INPUT,
                       "%s is no GGUF file: --model takes a checkpoint folder, or one file that begins with GGUF",
                       where);
    r.at = 4;
    int rc = take_number(&r, 4, "its version", &version);
    if (rc == MB_OK && version != 2 && version != 3)
        rc = mb_fail(err, MB_E_INPUT, "%s: GGUF version %llu is not read, only 2 and 3%s", where,
                     (unsigned long long)version,
                     version >> 24 && !(version & 0xffff) ? "; this file is big-endian" : "");
    if (rc == MB_OK)
        rc = take_number(&r, 8, "the number of tensors", &tensors);
    if (rc == MB_OK)
        rc = take_number(&r, 8, "the number of keys", &values);
    if (rc == MB_OK)
        rc = take_values(&r, gguf, values);
    if (rc == MB_OK)
        rc = take_tensors(&r, gguf, tensors);
    if (rc != MB_OK)
        mb_gguf_free(gguf);
    return rc;
}

void mb_gguf_free(mb_gguf *gguf)
{
    for (size_t i = 0; i < gguf->tensor_count; i++)
        free((char *)(uintptr_t)gguf->tensors[i].name);
    free(gguf->tensors);
    free(gguf->values);
    *gguf = (mb_gguf){0};
}

/* ---- values ---- */

mb_gguf_text mb_gguf_take_text(const unsigned char **at)
{
    mb_gguf_text text = {(const char *)*at + 8, (size_t)number_at(*at, 8)};
    *at += 8 + text.length;
    return text;
}

bool mb_gguf_same(mb_gguf_text text, const char *string)
{
    return text.length == strlen(string) && memcmp(text.bytes, string, text.length) == 0;
}

static bool is_integer(mb_gguf_type type)
{
    return type <= MB_GGUF_I32 || type == MB_GGUF_U64 || type == MB_GGUF_I64;
}

/* Sign-extended; an unsigned one above INT64_MAX stays there. */
int64_t mb_gguf_integer_at(const mb_gguf_value *value, uint64_t i)
{
    const int bytes = value_bytes(value->type);
    const uint64_t raw = number_at(value->data + i * (uint64_t)bytes, bytes);
    switch (value->type) {
    case MB_GGUF_I8:
        return (int8_t)raw;
    case MB_GGUF_I16:
        return (int16_t)raw;
    case MB_GGUF_I32:
        return (int32_t)raw;
    case MB_GGUF_I64:
        return (int64_t)raw;
    default:
        return raw > INT64_MAX ? INT64_MAX : (int64_t)raw;
    }
}

float mb_gguf_float_at(const mb_gguf_value *value, uint64_t i)
{
    const uint32_t bits = (uint32_t)number_at(value->data + 4 * i, 4);
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static int wrong(const mb_gguf *gguf, const char *key, const char *wanted, mb_error *err)
{
    return mb_fail(err, MB_E_INPUT, "%s: %s must be %s", gguf->where, key, wanted);
}

int mb_gguf_want_int(const mb_gguf *gguf, const char *key, int64_t min, int64_t max, int64_t *value, mb_error *err)
{
    const mb_gguf_value *found = mb_gguf_find(gguf, key);
    if (!found)
        return MB_OK;
    if (found->array || !is_integer(found->type))
        return wrong(gguf, key, "one whole number", err);
    int64_t number = mb_gguf_integer_at(found, 0);
    if (number < min || number > max)
        return mb_fail(err, MB_E_INPUT, "%s: %s is %lld; %lld to %lld are possible", gguf->where, key,
                       (long long)number, (long long)min, (long long)max);
    *value = number;
    return MB_OK;
}

int mb_gguf_want_real(const mb_gguf *gguf, const char *key, double *value, mb_error *err)
{
    const mb_gguf_value *found = mb_gguf_find(gguf, key);
    if (!found)
        return MB_OK;
    if (found->array || (found->type != MB_GGUF_F32 && found->type != MB_GGUF_F64))
        return wrong(gguf, key, "one number with a fraction", err);
    if (found->type == MB_GGUF_F32) {
        *value = (double)mb_gguf_float_at(found, 0);
    } else {
        const uint64_t bits = number_at(found->data, 8);
        memcpy(value, &bits, sizeof *value);
    }
    return MB_OK;
}

int mb_gguf_want_bool(const mb_gguf *gguf, const char *key, bool *value, mb_error *err)
{
    const mb_gguf_value *found = mb_gguf_find(gguf, key);
    if (!found)
        return MB_OK;
    if (found->array || found->type != MB_GGUF_BOOL || found->data[0] > 1)
        return wrong(gguf, key, "true or false", err);
    *value = found->data[0] != 0;
    return MB_OK;
}

int mb_gguf_want_text(const mb_gguf *gguf, const char *key, mb_gguf_text *value, mb_error *err)
{
    const mb_gguf_value *found = mb_gguf_find(gguf, key);
    if (!found)
        return MB_OK;
    if (found->array || found->type != MB_GGUF_STRING)
        return wrong(gguf, key, "a text", err);
    const unsigned char *at = found->data;
    *value = mb_gguf_take_text(&at);
    return MB_OK;
}

int mb_gguf_want_array(const mb_gguf *gguf, const char *key, mb_gguf_type type, const mb_gguf_value **value,
                       mb_error *err)
{
    const mb_gguf_value *found = *value = mb_gguf_find(gguf, key);
    bool same = found && (found->type == type || (type == MB_GGUF_I32 && is_integer(found->type)));
    if (!found || (found->array && same))
        return MB_OK;
    *value = NULL;
    return wrong(gguf, key, type == MB_GGUF_STRING ? "a list of texts" : "a list of numbers", err);
}
