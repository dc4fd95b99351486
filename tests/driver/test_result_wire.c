/*
 * test_result_wire.c - results come out of their bytes as they went in, and bytes that were cut, stretched or
 * changed are refused without a read outside of them (the sanitizers watch).
 */
#include "driver/worker/result_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void fill_result(mb_decode_result *r)
{
    static const int32_t ids[] = {5, 6, 7};
    static const double times[] = {1.5, 2.5};
    static const mb_counter_place maps[] = {{3, 4, 0, 1, 2, 0}, {1, 1, 1, -1, 0, 0}};
    memset(r, 0, sizeof *r);
    r->count = 3;
    r->ids = malloc(sizeof ids);
    r->later_count = 2;
    r->later_us = malloc(sizeof times);
    r->map_count = 2;
    r->maps = malloc(sizeof maps);
    assert_true(r->ids && r->later_us && r->maps);
    memcpy(r->ids, ids, sizeof ids);
    memcpy(r->later_us, times, sizeof times);
    memcpy(r->maps, maps, sizeof maps);
    r->blocks = 9;
    r->work = 0.25;
    r->counters[31] = 42;
}

static void test_round_trip(void **state)
{
    mb_decode_result sent, got, empty = {0};
    mb_recall recall = {.count = 2, .sparse_calls = 7}, recalled;
    mb_text text = {0};
    size_t at = 0;
    mb_error err = {0};
    (void)state;
    fill_result(&sent);
    recall.cells = calloc(2, sizeof *recall.cells);
    assert_non_null(recall.cells);
    recall.cells[1].step = 8;
    recall.cells[1].mass_head[63] = 0.5f;
    mb_wire_put_result(&text, &sent);
    mb_wire_put_recall(&text, &recall);
    mb_wire_put_result(&text, &empty);
    assert_false(text.failed);
    assert_int_equal(mb_wire_get_result(text.data, text.length, &at, &got, &err), MB_OK);
    assert_int_equal(got.count, 3);
    assert_memory_equal(got.ids, sent.ids, 3 * sizeof *got.ids);
    assert_null(got.first_us);
    assert_memory_equal(got.later_us, sent.later_us, 2 * sizeof *got.later_us);
    assert_memory_equal(got.maps, sent.maps, 2 * sizeof *got.maps);
    assert_true(got.blocks == 9 && got.work == 0.25 && got.counters[31] == 42);
    assert_true(got.ids != sent.ids && got.maps != sent.maps);
    assert_int_equal(mb_wire_get_recall(text.data, text.length, &at, &recalled, &err), MB_OK);
    assert_true(recalled.count == 2 && recalled.sparse_calls == 7);
    assert_memory_equal(recalled.cells, recall.cells, 2 * sizeof *recall.cells);
    mb_decode_result_free(&got);
    assert_int_equal(mb_wire_get_result(text.data, text.length, &at, &got, &err), MB_OK);
    assert_true(got.count == 0 && !got.ids && !got.maps);
    assert_int_equal(at, text.length);
    assert_int_equal(mb_wire_get_result(text.data, text.length, &at, &got, &err), MB_E_SAMPLE);
    mb_decode_result_free(&sent);
    mb_recall_free(&recall);
    mb_recall_free(&recalled);
    mb_text_free(&text);
}

/* A copy of exactly n bytes, so that a read behind them is an error. */
static int read_part(const mb_text *text, size_t n, size_t changed, uint64_t value)
{
    char *part = malloc(n ? n : 1);
    mb_error err = {0};
    mb_decode_result got;
    size_t at = 0;
    assert_non_null(part);
    memcpy(part, text->data, n);
    if (changed < n && n - changed >= sizeof value)
        memcpy(part + changed, &value, sizeof value);
    int rc = mb_wire_get_result(part, n, &at, &got, &err);
    if (rc == MB_OK)
        mb_decode_result_free(&got);
    else
        assert_true(at == 0 && !got.ids && !got.maps && got.count == 0 && err.text[0]);
    free(part);
    return rc;
}

static void test_damage(void **state)
{
    mb_decode_result sent;
    mb_recall recall = {0};
    mb_text text = {0};
    mb_error err = {0};
    size_t at = 0;
    (void)state;
    fill_result(&sent);
    mb_wire_put_result(&text, &sent);
    for (size_t n = 0; n < text.length; n++)
        assert_int_equal(read_part(&text, n, SIZE_MAX, 0), MB_E_SAMPLE);
    assert_int_equal(read_part(&text, text.length, SIZE_MAX, 0), MB_OK);
    assert_int_equal(mb_wire_get_recall(text.data, text.length, &at, &recall, &err), MB_E_SAMPLE);
    /* The counts: one more, one less, as many as overflow. */
    const size_t header = 24, counts[] = {header + offsetof(mb_decode_result, count),
                                          header + offsetof(mb_decode_result, later_count),
                                          header + offsetof(mb_decode_result, map_count)};
    static const uint64_t wrong[] = {1, 4, SIZE_MAX, SIZE_MAX / 4 + 1, SIZE_MAX / 8 + 3, SIZE_MAX / 32 + 3};
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < sizeof wrong / sizeof wrong[0]; j++)
            assert_int_equal(read_part(&text, text.length, counts[i], wrong[j]), MB_E_SAMPLE);
    /* A pointer in the bytes is never followed. */
    assert_int_equal(read_part(&text, text.length, header + offsetof(mb_decode_result, ids), 0xdead), MB_OK);
    mb_decode_result_free(&sent);
    mb_text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_damage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
