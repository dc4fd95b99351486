/*
 * gguf.h - one GGUF file: metadata by key, and tensors. Internal to model/checkpoint/; who wants a model asks
 * source.h, which shows the file as if it were a checkpoint folder.
 *
 * Invariant after a successful parse: every key, text and tensor lies inside the file, texts are UTF-8 without
 * zero bytes, keys and tensor names occur once, tensors do not overlap, and their types can be read.
 */
#ifndef MB_MODEL_GGUF_H
#define MB_MODEL_GGUF_H

#include "model/checkpoint/quant.h"

/* Types of metadata, as the format numbers them. */
typedef enum mb_gguf_type {
    MB_GGUF_U8 = 0,
    MB_GGUF_I8,
    MB_GGUF_U16,
    MB_GGUF_I16,
    MB_GGUF_U32,
    MB_GGUF_I32,
    MB_GGUF_F32,
    MB_GGUF_BOOL,
    MB_GGUF_STRING,
    MB_GGUF_ARRAY,
    MB_GGUF_U64,
    MB_GGUF_I64,
    MB_GGUF_F64,
    MB_GGUF_TYPES
} mb_gguf_type;

typedef struct mb_gguf_value {
    const char *key; /* not terminated */
    size_t key_length;
    mb_gguf_type type;         /* of an array: of its elements */
    bool array;                /* not of arrays */
    uint64_t count;            /* 1, or elements of an array */
    const unsigned char *data; /* first element; a text with its length in front */
} mb_gguf_value;

typedef struct mb_gguf {
    const char *where; /* begins the errors; borrowed */
    mb_gguf_value *values;
    size_t value_count;
    mb_tensor *tensors; /* names as in the file, malloc'ed; shapes row-major: the file's order turned round */
    size_t tensor_count;
} mb_gguf;

/* data and where must outlive the struct. */
int mb_gguf_parse(mb_gguf *gguf, const unsigned char *data, size_t size, const char *where, mb_error *err);
void mb_gguf_free(mb_gguf *gguf);

/* NULL: no such key. */
const mb_gguf_value *mb_gguf_find(const mb_gguf *gguf, const char *key);

/* A text in the file. */
typedef struct mb_gguf_text {
    const char *bytes;
    size_t length;
} mb_gguf_text;
/* Takes the text at *at (the data of a value, or what the last call left) and moves *at behind it. */
mb_gguf_text mb_gguf_take_text(const unsigned char **at);
bool mb_gguf_same(mb_gguf_text text, const char *string);

/* Optional keys: what `value` points to is left alone when the key is absent; MB_E_INPUT when it is of another
 * type or outside of the range. */
int mb_gguf_want_int(const mb_gguf *gguf, const char *key, int64_t min, int64_t max, int64_t *value,
                     mb_error *err);
int mb_gguf_want_real(const mb_gguf *gguf, const char *key, double *value, mb_error *err);
int mb_gguf_want_bool(const mb_gguf *gguf, const char *key, bool *value, mb_error *err);
int mb_gguf_want_text(const mb_gguf *gguf, const char *key, mb_gguf_text *value, mb_error *err);
/* An array of this type of elements; *value NULL = absent. Integers of any kind are asked for as MB_GGUF_I32. */
int mb_gguf_want_array(const mb_gguf *gguf, const char *key, mb_gguf_type type, const mb_gguf_value **value,
                       mb_error *err);
/* The i-th element of an array of integers or of fp32 numbers; i < count. */
int64_t mb_gguf_integer_at(const mb_gguf_value *value, uint64_t i);
float mb_gguf_float_at(const mb_gguf_value *value, uint64_t i);

#endif
