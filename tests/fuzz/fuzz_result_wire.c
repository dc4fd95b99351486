/*
 * fuzz_result_wire.c - any bytes as what a worker answers, in which a plug-in can write over anything. The bytes
 * are laid over sound messages (first byte odd: pairs of offset and value), or stand for themselves. Every message
 * is refused with a sentence, or its arrays can be read to their ends and its values are such that they can be
 * stored; then it is sent and read once more.
 */
#include "driver/worker/result_wire.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile double sink;

static void put_sound(mb_text *text)
{
    int32_t ids[3] = {7, 8, 9};
    double us[2] = {1.5, 2.5};
    mb_counter_place maps[1] = {{.sum = 1, .weight = 2, .map = 0, .layer = 1, .step = 2}};
    mb_recall_cell cells[2] = {{.layer = 0, .step = 1}, {.layer = 1, .step = 2}};
    mb_decode_result result = {
        .ids = ids, .count = 3, .later_us = us, .later_count = 2, .maps = maps, .map_count = 1};
    mb_recall recall = {.cells = cells, .count = 2};
    mb_wire_put_result(text, &result);
    mb_wire_put_recall(text, &recall);
}

static void check_result(const mb_decode_result *r)
{
    double sum = 0; /* every element is there */
    for (size_t i = 0; i < r->count; i++)
        sum += r->ids[i];
    for (size_t i = 0; i < r->first_count; i++)
        sum += r->first_us[i];
    for (size_t i = 0; i < r->later_count; i++)
        sum += r->later_us[i];
    for (size_t i = 0; i < r->commit_count; i++)
        sum += r->commit_us[i];
    for (size_t i = 0; i < r->map_count; i++) {
        if (!isfinite(r->maps[i].sum) || !(r->maps[i].weight > 0))
            abort();
        sum += r->maps[i].sum;
    }
    for (size_t i = 0; i < sizeof r->counters / sizeof r->counters[0]; i++)
        if (isinf(r->counters[i]))
            abort();
    sink = sum + r->stopped;
}

static void read_all(const char *bytes, size_t n)
{
    size_t at = 0, before;
    do {
        mb_decode_result result;
        mb_recall recall;
        mb_error err = {0};
        mb_text again = {0};
        before = at;
        if (mb_wire_get_result(bytes, n, &at, &result, &err) == MB_OK) {
            check_result(&result);
            mb_wire_put_result(&again, &result);
            mb_decode_result_free(&result);
            size_t end = 0;
            if (mb_wire_get_result(again.data, again.length, &end, &result, &err) != MB_OK || end != again.length)
                abort();
            mb_decode_result_free(&result);
        } else if (!err.text[0] || at != before) {
            abort();
        } else if (mb_wire_get_recall(bytes, n, &at, &recall, &err) == MB_OK) {
            for (size_t i = 0; i < recall.count; i++)
                sink += recall.cells[i].index_head[recall.cells[i].heads ? recall.cells[i].heads - 1 : 0];
            mb_recall_free(&recall);
        }
        mb_text_free(&again);
    } while (at > before && at < n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mb_text text = {0};
    if (size == 0)
        return 0;
    if (data[0] & 1) {
        put_sound(&text);
        for (size_t i = 1; i + 2 < size; i += 3)
            text.data[((size_t)data[i] << 8 | data[i + 1]) % text.length] = (char)data[i + 2];
    } else {
        mb_text_append(&text, (const char *)data + 1, size - 1);
    }
    char *exact = malloc(text.length ? text.length : 1); /* no terminator behind it */
    if (exact) {
        if (text.length)
            memcpy(exact, text.data, text.length);
        read_all(exact, text.length);
    }
    free(exact);
    mb_text_free(&text);
    return 0;
}
