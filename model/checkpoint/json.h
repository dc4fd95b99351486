/*
 * json.h - reading the JSON files of a checkpoint: parsing with a place in the error, and typed access that
 * says file, key and what would have been right. Internal to model/.
 *
 * `where` is the text errors begin with, mostly the file's path.
 */
#ifndef MB_MODEL_JSON_H
#define MB_MODEL_JSON_H

#include "base/json.h"

/* True when the bytes are a Git LFS pointer: what a clone without LFS leaves in the place of a large file. */
bool mb_model_is_lfs_pointer(const void *data, size_t size);

/* *root must be freed with cJSON_Delete(). Only an object is accepted at the top; nothing may follow it. */
int mb_model_json_parse(cJSON **root, const char *text, size_t size, const char *where, mb_error *err);
/* The same, and every member of an object stays, twice or not. */
int mb_model_json_parse_all(cJSON **root, const char *text, size_t size, const char *where, mb_error *err);
/* Reads and parses one file of at most max bytes. *text receives the raw bytes (malloc'ed) when not NULL. */
int mb_model_json_load(cJSON **root, const char *path, size_t max, char **text, size_t *size, mb_error *err);

/* True when the item is a number without fraction in [min, max]; *value is set then. Infinities and NaN fail. */
bool mb_model_json_integer(const cJSON *item, int64_t min, int64_t max, int64_t *value);

/* A required integer in [min, max]. */
int mb_model_json_need_int(const cJSON *object, const char *key, const char *where, int32_t min, int32_t max,
                           int32_t *value, mb_error *err);
/* Optional: `value` is left alone when the key is absent or null; wrong types and ranges are errors. */
int mb_model_json_want_int(const cJSON *object, const char *key, const char *where, int32_t min, int32_t max,
                           int32_t *value, mb_error *err);
int mb_model_json_want_real(const cJSON *object, const char *key, const char *where, double min, double max,
                            double *value, mb_error *err);
int mb_model_json_want_bool(const cJSON *object, const char *key, const char *where, bool *value, mb_error *err);

#endif
