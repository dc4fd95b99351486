/*
 * test_cpu.c - the suite on the CPU, in both storage types: every operation against double precision; one thread
 * against three bit for bit; the arena's promises; conversions; the exponential; refusals.
 */
#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu.h"
#include "tests/kernels/suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

static const suite_bounds bounds = {.product = 2e-7 * 16,
                                    .attention = 4e-6,
                                    .lse = 1e-5,
                                    .mass = 2e-5,
                                    .probability = 2e-6,
                                    .slips = 0.01,
                                    .same_bits = true};

static void open_device(suite *s, mb_type type, int threads)
{
    mb_error err = {0};
    mb_device_options options = {.type = type, .threads = threads, .arena_bytes = (size_t)1 << 30};
    memset(s, 0, sizeof *s);
    s->kernels = mb_kernels_cpu();
    s->type = type;
    s->bounds = bounds;
    assert_int_equal(s->kernels->open(&s->device, &options, &err), MB_OK);
}

static void every_operation(mb_type type, int every)
{
    suite s;
    int ran = 0;
    open_device(&s, type, 2);
    s.every = every;
    for (int operation = 0; operation < MB_OPERATION_COUNT; operation++) {
        int n = suite_run_operation(&s, (mb_operation)operation);
        if (n == 0)
            fail_msg("no case of %s", mb_operation_name((mb_operation)operation));
        ran += n;
    }
    suite_reuse(&s);
    s.kernels->close(s.device);
    assert_int_equal(s.failures, 0);
    assert_true(ran > (every ? 60 / every : 60));
}

static void test_f32(void **state)
{
    (void)state;
    every_operation(MB_F32, 0);
}

static void test_bf16(void **state)
{
    (void)state;
    every_operation(MB_BF16, 0);
}

static void test_f16(void **state)
{
    (void)state;
    every_operation(MB_F16, 4); /* the code of bf16 with another conversion; test_cuda runs all */
}

/* Every byte that any operation wrote, hashed. */
static void digest_of(mb_type type, int threads, char hex[MB_HASH_CAP])
{
    suite s;
    open_device(&s, type, threads);
    s.digest = mb_hash_new();
    for (int operation = 0; operation < MB_OPERATION_COUNT; operation++)
        suite_run_operation(&s, (mb_operation)operation);
    suite_reuse(&s);
    mb_hash_end(s.digest, hex);
    s.kernels->close(s.device);
}

static void test_threads(void **state)
{
    char one[MB_HASH_CAP], three[MB_HASH_CAP];
    (void)state;
    digest_of(MB_BF16, 1, one);
    digest_of(MB_BF16, 3, three);
    assert_string_equal(one, three);
}

static void test_conversion(void **state)
{
    (void)state;
    /* Every bf16 survives the way through fp32; halfway cases go to even; NaN stays NaN. */
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float x = mb_float_from_bf16((uint16_t)bits);
        uint16_t back = mb_bf16_from_float(x);
        if (isnan(x))
            assert_true(isnan(mb_float_from_bf16(back)));
        else
            assert_int_equal(back, bits);
    }
    assert_int_equal(mb_bf16_from_float(mb_float_of(0x3f808000u)), 0x3f80); /* half, even below */
    assert_int_equal(mb_bf16_from_float(mb_float_of(0x3f818000u)), 0x3f82); /* half, even above */
    assert_int_equal(mb_bf16_from_float(mb_float_of(0x3f808001u)), 0x3f81);
    assert_int_equal(mb_bf16_from_float(mb_float_of(0x7f7fffffu)), 0x7f80); /* overflow to infinity */
    assert_true(isnan(mb_float_from_bf16(mb_bf16_from_float(mb_float_of(0x7f800001u)))));
    assert_true(isnan(mb_float_from_bf16(mb_bf16_from_float(mb_float_of(0xffffffffu)))));
    for (uint32_t bits = 0; bits < 65536; bits++) { /* and every f16 */
        float x = mb_float_from_f16((uint16_t)bits);
        uint16_t back = mb_f16_from_float(x);
        if (isnan(x))
            assert_true(isnan(mb_float_from_f16(back)));
        else
            assert_int_equal(back, bits);
    }
    assert_true(isnan(mb_float_from_f16(mb_f16_from_float(mb_float_of(0x7f800001u)))));
    assert_true(mb_round_to(MB_F16, 65519.0f) == 65504.0f && isinf(mb_round_to(MB_F16, 65520.0f)));
    assert_true(mb_round_to(MB_F16, 0x1p-25f) == 0.0f && mb_round_to(MB_F16, 0x1.8p-25f) == 0x1p-24f);
    mb_random random = mb_random_seed(3);
    for (int i = 0; i < 100000; i++) {
        float x = mb_float_of((uint32_t)mb_random_next(&random));
        if (isfinite(x) && fabsf(x) < 3e38f)
            assert_true(mb_round_to(MB_BF16, x) == suite_round(MB_BF16, (double)x));
        float y = mb_float_of(((uint32_t)mb_random_next(&random) & 0x87ffffffu) + 0x30000000u); /* 2^-31 to 2^17 */
        assert_true(mb_round_to(MB_F16, y) == suite_round(MB_F16, (double)y));
    }
}

static void test_exponential(void **state)
{
    double worst = 0.0;
    (void)state;
    for (double x = -87.25; x < 88.25; x += 0.00137) {
        double want = exp((double)(float)x), got = (double)mb_exp((float)x);
        worst = fmax(worst, fabs(got - want) / want);
    }
    assert_true(worst < 2e-7);
    assert_true(mb_exp(0.0f) == 1.0f);
    assert_true(mb_exp(-INFINITY) == 0.0f && mb_exp(-1000.0f) == 0.0f);
    assert_true(mb_exp(INFINITY) == INFINITY && mb_exp(1000.0f) == INFINITY);
    assert_true(isnan(mb_exp(NAN)));
}

static void test_arena(void **state)
{
    suite s;
    (void)state;
    open_device(&s, MB_F32, 1);
    size_t start = s.kernels->mark(s.device);
    static const size_t sizes[] = {1, 255, 256, 257, 5000000, 3};
    for (int round = 0; round < 2; round++) {
        unsigned char *before = NULL;
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            unsigned char *at = s.kernels->alloc(s.device, sizes[i]);
            assert_non_null(at);
            assert_int_equal((uintptr_t)at % 256, 0);
            assert_true(at > before);
            for (size_t c = 0; c < sizes[i]; c++)
                if (at[c])
                    fail_msg("round %d: byte %zu of %zu is not zero", round, c, sizes[i]);
            memset(at, 0xee, sizes[i]);
            before = at;
        }
        s.kernels->release(s.device, start);
        assert_int_equal(s.kernels->mark(s.device), start);
    }
    assert_null(s.kernels->alloc(s.device, (size_t)2 << 30));
    assert_true(strlen(s.kernels->error(s.device)) > 10);
    assert_non_null(s.kernels->alloc(s.device, ((size_t)1 << 30) - start));
    assert_null(s.kernels->alloc(s.device, 1));
    s.kernels->close(s.device);
}

static void test_device(void **state)
{
    suite s;
    mb_device_info info;
    mb_device *device = NULL;
    double us = -1.0;
    char bytes[5] = "four", back[5] = "";
    mb_error err = {0};
    mb_device_options bad = {.type = MB_I32};
    (void)state;
    assert_int_equal(mb_kernels_cpu()->open(&device, &bad, &err), MB_E_INPUT);
    assert_null(device);
    assert_true(strlen(err.text) > 10);
    open_device(&s, MB_F32, 0);
    s.kernels->info(s.device, &info);
    assert_true(info.name[0] && info.detail[0] && info.memory_total > 0);
    assert_int_equal(s.kernels->timer_mark(s.device, 0), MB_OK);
    assert_int_equal(s.kernels->timer_mark(s.device, MB_TIMER_SLOTS - 1), MB_OK);
    assert_int_equal(s.kernels->timer_elapsed(s.device, 0, MB_TIMER_SLOTS - 1, &us), MB_OK);
    assert_true(us >= 0.0);
    assert_int_equal(s.kernels->timer_mark(s.device, MB_TIMER_SLOTS), MB_E_BUG);
    char *a = s.kernels->alloc(s.device, 16), *b = s.kernels->alloc(s.device, 16);
    s.kernels->upload(s.device, a, bytes, 5);
    s.kernels->copy(s.device, b, a, 5);
    s.kernels->download(s.device, back, b, 5);
    assert_string_equal(back, "four");
    s.kernels->range_push(s.device, "nothing");
    s.kernels->range_pop(s.device);
    s.kernels->close(s.device);
    s.kernels->close(NULL);
}

static void test_refusals(void **state)
{
    suite s;
    int32_t length = 10, id = 5;
    (void)state;
    open_device(&s, MB_F32, 1);
    float *cache = s.kernels->alloc(s.device, 1 << 16);
    mb_attention args = {.rows = {.batch = 1, .rows = 2, .prefix_len = &length, .max_prefix = 10, .block_keys = 2},
                         .kv = {.k = cache, .v = cache, .batch = 1, .kv_heads = 2, .capacity = 12, .head_dim = 8},
                         .query_heads = 4,
                         .q = cache,
                         .out = cache,
                         .lse = cache};
    assert_int_equal(s.kernels->attend(s.device, &args), MB_OK);
    args.rows.max_prefix = 9; /* not a bound of 10 */
    assert_int_equal(s.kernels->attend(s.device, &args), MB_E_BUG);
    assert_non_null(strstr(s.kernels->error(s.device), "prefix"));
    args.rows.max_prefix = 10;
    args.rows.block_keys = 3; /* 10 + 3 > 12 */
    assert_int_equal(s.kernels->attend(s.device, &args), MB_E_BUG);
    args.rows.block_keys = 2;
    args.query_heads = 3;
    assert_int_equal(s.kernels->attend(s.device, &args), MB_E_BUG);
    args.query_heads = 4;
    args.kv.head_dim = 12;
    assert_int_equal(s.kernels->attend(s.device, &args), MB_E_BUG);
    args.kv.head_dim = 8;
    assert_int_equal(s.kernels->attend_sparse(s.device, &args), MB_E_BUG); /* no pages */
    assert_int_equal(s.kernels->embed(s.device, &(mb_embed){&id, 1, cache, 5, 4, cache + 100, 0}), MB_E_BUG);
    s.kernels->close(s.device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversion), cmocka_unit_test(test_exponential), cmocka_unit_test(test_arena),
        cmocka_unit_test(test_device),     cmocka_unit_test(test_refusals),    cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),       cmocka_unit_test(test_f16),         cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
