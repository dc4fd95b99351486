/*
 * json.c - parsing and typed access for the JSON files of a checkpoint.
 *
 * base/json.h does the parsing; nesting beyond 1000 levels is refused, so a hostile file cannot exhaust the stack.
 * What is added here are the sentences: which file, which line, which key, what is allowed.
 */
#include "model/checkpoint/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool mb_model_is_lfs_pointer(const void *data, size_t size)
{
    static const char begin[] = "version https://git-lfs";
    return size > sizeof begin && memcmp(data, begin, sizeof begin - 1) == 0;
}

static int parse(cJSON **root, const char *text, size_t size, bool keep_all, const char *where, mb_error *err)
{
    size_t bad = 0, line = 1, column = 1;
    *root = mb_json_parse(text, size, keep_all, &bad);
    if (cJSON_IsObject(*root))
        return MB_OK;
    for (size_t i = 0; i < bad && i < size; i++) {
        column++;
        if (text[i] == '\n') {
            line++;
            column = 1;
        }
    }
    if (mb_model_is_lfs_pointer(text, size))
        mb_fail(err, 0, "%s is a Git LFS pointer, not the file itself: run `git lfs pull` there", where);
    else if (*root)
        mb_fail(err, 0, "%s: a JSON object { ... } is expected", where);
    else
        mb_fail(err, 0, "%s: not valid JSON (or nested too deeply) at line %zu, column %zu", where, line, column);
    cJSON_Delete(*root);
    *root = NULL;
    return MB_E_INPUT;
}

int mb_model_json_parse(cJSON **root, const char *text, size_t size, const char *where, mb_error *err)
{
    return parse(root, text, size, false, where, err);
}

int mb_model_json_parse_all(cJSON **root, const char *text, size_t size, const char *where, mb_error *err)
{
    return parse(root, text, size, true, where, err);
}

/* The text is handed over only on success, so that a caller has one thing to free in either case. */
int mb_model_json_load(cJSON **root, const char *path, size_t max, char **text, size_t *size, mb_error *err)
{
    char *data = NULL;
    size_t n = 0;
    *root = NULL;
    int rc = mb_file_read(path, max, &data, &n, err);
    if (rc == MB_OK)
        rc = mb_model_json_parse(root, data, n, path, err);
    if (rc == MB_OK && text) {
        *text = data;
        *size = n;
        data = NULL;
    }
    free(data);
    return rc;
}

bool mb_model_json_integer(const cJSON *item, int64_t min, int64_t max, int64_t *value)
{
    if (!cJSON_IsNumber(item))
        return false;
    double v = item->valuedouble;
    /* 2^53: beyond it a double no longer tells neighbouring integers apart. */
    if (!isfinite(v) || v != floor(v) || fabs(v) > 0x1p53 || v < (double)min || v > (double)max)
        return false;
    *value = (int64_t)v;
    return true;
}

/* The want_ functions: absent keeps the caller's default, present but wrong is an error, never a fallback. */
int mb_model_json_want_int(const cJSON *object, const char *key, const char *where, int32_t min, int32_t max,
                           int32_t *value, mb_error *err)
{
    const cJSON *item = mb_json_member(object, key);
    int64_t v = 0;
    if (!item)
        return MB_OK;
    if (!mb_model_json_integer(item, min, max, &v))
        return mb_fail(err, MB_E_INPUT, "%s: \"%s\" must be an integer from %d to %d", where, key, min, max);
    *value = (int32_t)v;
    return MB_OK;
}

int mb_model_json_need_int(const cJSON *object, const char *key, const char *where, int32_t min, int32_t max,
                           int32_t *value, mb_error *err)
{
    if (!mb_json_member(object, key))
        return mb_fail(err, MB_E_INPUT, "%s: \"%s\" is missing; it must be an integer from %d to %d", where, key,
                       min, max);
    return mb_model_json_want_int(object, key, where, min, max, value, err);
}

int mb_model_json_want_real(const cJSON *object, const char *key, const char *where, double min, double max,
                            double *value, mb_error *err)
{
    const cJSON *item = mb_json_member(object, key);
    if (!item)
        return MB_OK;
    /* !(a && b) rather than the opposite comparisons: a NaN fails both. */
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max))
        return mb_fail(err, MB_E_INPUT, "%s: \"%s\" must be a number from %g to %g", where, key, min, max);
    *value = item->valuedouble;
    return MB_OK;
}

int mb_model_json_want_bool(const cJSON *object, const char *key, const char *where, bool *value, mb_error *err)
{
    const cJSON *item = mb_json_member(object, key);
    if (!item)
        return MB_OK;
    if (!cJSON_IsBool(item))
        return mb_fail(err, MB_E_INPUT, "%s: \"%s\" must be true or false", where, key);
    *value = cJSON_IsTrue(item);
    return MB_OK;
}
