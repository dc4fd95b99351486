/*
 * result_wire.c - flattening a decode result or a recall, and taking it apart again with every length checked.
 *
 * The counts in a struct say how long its arrays are. A reader takes them from bytes that a plug-in may have
 * written to, so it first holds the sum of all arrays against the length of the message.
 */
#include "driver/worker/result_wire.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x6d627772u
enum { KIND_RESULT = 1, KIND_RECALL = 2 };
enum { MOST_ARRAYS = 5 };

struct header {
    uint32_t magic, kind;
    uint64_t fixed, bytes; /* of the struct; of everything behind the header */
};

/* One array of a struct: where in it the pointer stands, how many elements of which size. */
struct array {
    size_t place, count, size;
};

#define ARRAY(type, field, n)                                                                                     \
    {                                                                                                             \
        offsetof(type, field), (n), sizeof *((type *)0)->field                                                    \
    }

static size_t arrays_of_result(const mb_decode_result *r, struct array arrays[MOST_ARRAYS])
{
    const struct array all[] = {
        ARRAY(mb_decode_result, ids, r->count), ARRAY(mb_decode_result, first_us, r->first_count),
        ARRAY(mb_decode_result, later_us, r->later_count), ARRAY(mb_decode_result, commit_us, r->commit_count),
        ARRAY(mb_decode_result, maps, r->map_count)};
    memcpy(arrays, all, sizeof all);
    return sizeof all / sizeof all[0];
}

static size_t arrays_of_recall(const mb_recall *r, struct array arrays[MOST_ARRAYS])
{
    arrays[0] = (struct array)ARRAY(mb_recall, cells, r->count);
    return 1;
}

/* The pointers of a struct as bytes: they have as many types as there are arrays. */
static void *get_pointer(const void *fixed, const struct array *array)
{
    void *pointer;
    memcpy(&pointer, (const char *)fixed + array->place, sizeof pointer);
    return pointer;
}

static void set_pointer(void *fixed, const struct array *array, void *pointer)
{
    memcpy((char *)fixed + array->place, &pointer, sizeof pointer);
}

/* flat: the caller's copy of the struct; its pointers are cleared before it goes out. */
static void put(mb_text *text, uint32_t kind, void *flat, size_t fixed, const struct array *arrays, size_t n)
{
    struct header header = {.magic = MAGIC, .kind = kind, .fixed = fixed, .bytes = fixed};
    const void *data[MOST_ARRAYS] = {NULL};
    for (size_t i = 0; i < n; i++) {
        header.bytes += arrays[i].count * arrays[i].size;
        data[i] = get_pointer(flat, &arrays[i]);
        set_pointer(flat, &arrays[i], NULL);
    }
    mb_text_append(text, (const char *)&header, sizeof header);
    mb_text_append(text, flat, fixed);
    for (size_t i = 0; i < n; i++)
        if (arrays[i].count)
            mb_text_append(text, data[i], arrays[i].count * arrays[i].size);
}

void mb_wire_put_result(mb_text *text, const mb_decode_result *result)
{
    mb_decode_result flat = *result;
    struct array arrays[MOST_ARRAYS];
    put(text, KIND_RESULT, &flat, sizeof flat, arrays, arrays_of_result(result, arrays));
}

void mb_wire_put_recall(mb_text *text, const mb_recall *recall)
{
    mb_recall flat = *recall;
    struct array arrays[MOST_ARRAYS];
    put(text, KIND_RECALL, &flat, sizeof flat, arrays, arrays_of_recall(recall, arrays));
}

/* Bytes that are read, message by message. */
struct reading {
    const char *bytes;
    size_t size, at;
    const char *body; /* the arrays of the message that is open, */
    size_t length;    /* and how many bytes they have */
};

/* Copies the struct out of the message at in->at. */
static int open_message(struct reading *in, uint32_t kind, void *fixed, size_t size, mb_error *err)
{
    struct header header;
    if (in->at > in->size || in->size - in->at < sizeof header)
        return mb_fail(err, MB_E_SAMPLE, "a result is cut off");
    memcpy(&header, in->bytes + in->at, sizeof header);
    if (header.magic != MAGIC || header.kind != kind || header.fixed != size)
        return mb_fail(err, MB_E_SAMPLE, "bytes that should be a result are something else");
    if (header.bytes < size || header.bytes > in->size - in->at - sizeof header)
        return mb_fail(err, MB_E_SAMPLE, "a result is cut off");
    memcpy(fixed, in->bytes + in->at + sizeof header, size);
    in->body = in->bytes + in->at + sizeof header + size;
    in->length = (size_t)header.bytes - size;
    return MB_OK;
}

/* Clears the pointers, holds the counts against the length, copies the arrays. After a failure all are freed. */
static int take_arrays(void *fixed, const struct array *arrays, size_t n, const char *body, size_t length,
                       mb_error *err)
{
    size_t rest = length;
    bool whole = true;
    for (size_t i = 0; i < n; i++) {
        set_pointer(fixed, &arrays[i], NULL);
        whole = whole && arrays[i].count <= rest / arrays[i].size;
        rest -= whole ? arrays[i].count * arrays[i].size : 0;
    }
    if (!whole || rest != 0)
        return mb_fail(err, MB_E_SAMPLE, "a result does not have the length that it states");
    for (size_t i = 0; i < n; i++) {
        size_t size = arrays[i].count * arrays[i].size;
        void *copy = size ? malloc(size) : NULL;
        if (size && !copy) {
            while (i-- > 0)
                free(get_pointer(fixed, &arrays[i]));
            return mb_no_memory(err, "a result of %zu bytes", length);
        }
        if (size)
            memcpy(copy, body, size);
        set_pointer(fixed, &arrays[i], copy);
        body += size;
    }
    return MB_OK;
}

/* A byte of memory that is no bool must not be read as one. */
static bool is_bool(const bool *at)
{
    unsigned char byte;
    memcpy(&byte, at, 1);
    return byte <= 1;
}

/* What a method's hooks are held to where they run (attender.c) holds for what comes out of their process. */
static bool is_sound_result(const mb_decode_result *r)
{
    if (!is_bool(&r->stopped) || r->blocks < 0 || r->denoise_forwards < 0 || r->commit_forwards < 0 ||
        r->edits < 0)
        return false;
    for (size_t i = 0; i < sizeof r->counters / sizeof r->counters[0]; i++)
        if (isinf(r->counters[i]))
            return false;
    for (size_t i = 0; i < r->map_count; i++)
        if (!isfinite(r->maps[i].sum) || !isfinite(r->maps[i].weight) || !(r->maps[i].weight > 0))
            return false;
    return isfinite(r->work) && isfinite(r->work_select) && isfinite(r->engaged) && isfinite(r->decode_us);
}

static bool is_sound_recall(const mb_recall *r)
{
    const int32_t most = (int32_t)(sizeof r->cells->index_head / sizeof r->cells->index_head[0]);
    for (size_t i = 0; i < r->count; i++)
        if (r->cells[i].heads < 0 || r->cells[i].heads > most)
            return false;
    return is_bool(&r->failed);
}

static int unsound(mb_error *err)
{
    return mb_fail(err, MB_E_SAMPLE, "a result holds values that no result has");
}

int mb_wire_get_result(const void *bytes, size_t n, size_t *at, mb_decode_result *result, mb_error *err)
{
    struct array arrays[MOST_ARRAYS];
    struct reading in = {.bytes = bytes, .size = n, .at = *at};
    int rc = open_message(&in, KIND_RESULT, result, sizeof *result, err);
    if (rc == MB_OK)
        rc = take_arrays(result, arrays, arrays_of_result(result, arrays), in.body, in.length, err);
    if (rc == MB_OK && !is_sound_result(result)) {
        mb_decode_result_free(result);
        rc = unsound(err);
    }
    if (rc == MB_OK)
        *at = (size_t)(in.body - in.bytes) + in.length;
    else
        memset(result, 0, sizeof *result);
    return rc;
}

int mb_wire_get_recall(const void *bytes, size_t n, size_t *at, mb_recall *recall, mb_error *err)
{
    struct array arrays[MOST_ARRAYS];
    struct reading in = {.bytes = bytes, .size = n, .at = *at};
    int rc = open_message(&in, KIND_RECALL, recall, sizeof *recall, err);
    if (rc == MB_OK)
        rc = take_arrays(recall, arrays, arrays_of_recall(recall, arrays), in.body, in.length, err);
    if (rc == MB_OK && !is_sound_recall(recall)) {
        free(recall->cells);
        rc = unsound(err);
    }
    if (rc == MB_OK) {
        recall->error.text[sizeof recall->error.text - 1] = '\0';
        *at = (size_t)(in.body - in.bytes) + in.length;
    } else {
        memset(recall, 0, sizeof *recall);
    }
    return rc;
}
