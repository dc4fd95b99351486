/*
 * test_samplers.c - the control flow of each family's sampler on the stub network (stub_network.h). The expected
 * call logs and tables of Fast-dLLM v2 and SDAR come from runs of the original Python samplers, not from this
 * code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/model/stub_network.h"

/* Five call logs of the original sampler, letter for letter. */
static void fast_dllm_logs(void **state)
{
    static const struct {
        struct setting setting;
        const char *log;
        int32_t length;
    } cases[] = {
        {{45, 64, 32, 0, -1, 0.9, false, false, false, MB_SCHEDULE_THRESHOLD},
         "C32@0 d19 d18 d17 d16 d12 d11 d9 d8 d4 d3 d1 C32@32 d31 d28 d26 d24 d20 d19 d17 d16 d12 d11 d9 d8 d4 d3 "
         "d1 C32@64",
         97},
        {{45, 64, 32, 0, -1, 0.9, true, false, false, MB_SCHEDULE_THRESHOLD},
         "C32@0 d19 s8:2 s8:1 d16 d12 d11 s16:1 d8 d4 d3 s24:1 C32@32 d31 s0:4 s0:2 d24 d20 d19 s8:1 d16 d12 d11 "
         "s16:1 d8 d4 d3 s24:1 C32@64",
         97},
        {{5, 64, 32, 0, -1, 0.9, false, false, false, MB_SCHEDULE_THRESHOLD},
         "d27 d26 d25 d24 d20 d19 d17 d16 d12 d11 d9 d8 d4 d3 d1 C32@0 d31 d28 d26 d24 d20 d19 d17 d16 d12 d11 d9 "
         "d8 d4 d3 d1 C32@32",
         65},
        {{64, 64, 32, 0, 40, 0.9, false, false, false, MB_SCHEDULE_THRESHOLD},
         "C64@0 d31 d28 d26 d24 d20 d19 d17 d16 d12 d11 d9 d8 d4 d3 d1 C32@64 d31 d28 d26 d24 d20 d19",
         105},
        {{45, 64, 32, 0, 10, 1.0, true, false, false, MB_SCHEDULE_THRESHOLD},
         "C32@0 d19 s8:2 s8:1 d16 d15 s16:6 s16:5 s16:4 s16:3 s16:2 s16:1",
         56},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        run(&stub, &sampling, &sampler, MB_FAMILY_FAST_DLLM_V2, &cases[i].setting);
        assert_true(stub.log.length > 0);
        stub.log.data[stub.log.length - 1] = '\0';
        assert_string_equal(stub.log.data, cases[i].log);
        assert_int_equal(sampling.count, cases[i].length);
        assert_targets(&stub, &sampling);
        assert_int_equal(sampling.stopped, cases[i].setting.stop_at >= 0);
        release(&stub, &sampling);
    }
}

/* Lengths by the original sampler; it forgets a prompt of P = B = 32 tokens (compat_prompt_bug). */
static void fast_dllm_lengths(void **state)
{
    static const struct {
        int32_t prompt, length, commits, first_masks, first_position;
        bool compat;
    } rows[] = {
        {1, 65, 2, 31, 0, false},    {5, 65, 2, 27, 0, false},
        {31, 65, 2, 1, 0, false},    {32, 97, 2, 32, 0, true},
        {33, 97, 3, 31, 32, false},  {45, 97, 3, 19, 32, false},
        {64, 129, 3, 31, 64, false}, {65, 129, 3, 31, 64, false},
        {32, 97, 3, 31, 32, false}, /* without that: like any other multiple of B */
        {33, 97, 3, 31, 32, true},   {64, 129, 3, 31, 64, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        struct setting setting = {rows[i].prompt,       64, 32, 0, -1, 0.9, false, false, rows[i].compat,
                                  MB_SCHEDULE_THRESHOLD};
        run(&stub, &sampling, &sampler, MB_FAMILY_FAST_DLLM_V2, &setting);
        assert_int_equal(sampling.count, rows[i].length);
        assert_int_equal(stub.commits, rows[i].commits);
        assert_int_equal(stub.first_masks, rows[i].first_masks);
        assert_int_equal(stub.first_position, rows[i].first_position);
        if (rows[i].compat && rows[i].prompt == 32)
            /* The prompt is ignored: slot 0 holds what its own row predicts at position 0 of an empty cache. */
            assert_int_equal(sampling.tokens[32], stub.target[1]);
        else
            assert_targets(&stub, &sampling);
        release(&stub, &sampling);
    }
}

/* Threshold 1: one token a forward. P=45: 3 KV-writing forwards and 19 + 31 denoising ones; with the block cache
 * 12 of them cover the block and 38 a sub-block. */
static void fast_dllm_one_token_a_step(void **state)
{
    (void)state;
    for (int cache = 0; cache < 2; cache++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        struct setting setting = {45, 64, 32, 0, -1, 1.0, cache == 1, false, false, MB_SCHEDULE_THRESHOLD};
        run(&stub, &sampling, &sampler, MB_FAMILY_FAST_DLLM_V2, &setting);
        int32_t full = 0, partial = 0;
        for (size_t i = 0; i < stub.log.length; i++) {
            full += stub.log.data[i] == 'd';
            partial += stub.log.data[i] == 's';
        }
        assert_int_equal(stub.commits, 3);
        assert_int_equal(full, cache ? 12 : 50);
        assert_int_equal(partial, cache ? 38 : 0);
        assert_int_equal(sampling.denoise_forwards, 50);
        assert_int_equal(sampling.histogram[19], 1);
        assert_int_equal(sampling.histogram[31], 1);
        release(&stub, &sampling);
    }
}

static void fast_dllm_stops(void **state)
{
    static const struct {
        int32_t prompt, stop_at;
        double threshold;
        int32_t commits, forwards, length;
    } rows[] = {
        {45, 5, 0.9, 1, 7, 51},   /* the 6th new token: 7 forwards in all, only the prompt in the cache */
        {45, 18, 0.9, 1, -1, 64}, /* last slot of the block: the block is not committed */
        {45, 19, 0.9, 2, -1, 65}, /* the seed token of the next block: noticed at its start */
        {64, 0, 0.9, 1, 1, 65},   /* the prefill's own seed: one forward in total */
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        struct setting setting = {rows[i].prompt,    64,    32,    0,     rows[i].stop_at,
                                  rows[i].threshold, false, false, false, MB_SCHEDULE_THRESHOLD};
        run(&stub, &sampling, &sampler, MB_FAMILY_FAST_DLLM_V2, &setting);
        assert_int_equal(stub.commits, rows[i].commits);
        if (rows[i].forwards >= 0)
            assert_int_equal(stub.commits + stub.denoised, rows[i].forwards);
        assert_int_equal(sampling.count, rows[i].length);
        assert_true(sampling.stopped);
        assert_int_equal(sampling.tokens[sampling.count - 1], STOP);
        release(&stub, &sampling);
    }
}

/* SDAR, B = 4: the prompt is kept, its tail shares the first block, the commit runs before the stop check. */
static void sdar_prompts(void **state)
{
    static const int32_t prompts[] = {6, 7, 8, 3};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        struct setting setting = {prompts[i], 12, 4, 4, -1, 1.0, false, false, false, MB_SCHEDULE_THRESHOLD};
        run(&stub, &sampling, &sampler, MB_FAMILY_SDAR, &setting);
        int32_t length = (prompts[i] + 12 + 3) / 4 * 4, prefilled = prompts[i] / 4 * 4;
        char first[32];
        if (prefilled)
            snprintf(first, sizeof first, "C%d@0 d%d ", prefilled, 4 - prompts[i] % 4);
        else
            snprintf(first, sizeof first, "d%d ", 4 - prompts[i] % 4);
        assert_int_equal(strncmp(stub.log.data, first, strlen(first)), 0);
        assert_int_equal(sampling.count, length);
        assert_targets(&stub, &sampling); /* the prompt's tail included */
        /* static with steps = B: exactly one token a forward, one commit a block */
        assert_int_equal(stub.denoised, length - prompts[i]);
        assert_int_equal(sampling.commit_forwards, (length - prefilled) / 4);
        release(&stub, &sampling);
    }
}

/* With fewer steps than tokens the reference overwrites the prompt's tail. Ours must not. */
static void sdar_keeps_the_prompt_tail(void **state)
{
    (void)state;
    for (int dynamic = 0; dynamic < 2; dynamic++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        struct setting setting = {7, 8, 4, 2, -1, 1.0, false, dynamic == 1, false, MB_SCHEDULE_THRESHOLD};
        run(&stub, &sampling, &sampler, MB_FAMILY_SDAR, &setting);
        stub.log.data[stub.log.length - 1] = '\0';
        assert_string_equal(stub.log.data, "C4@0 d1 C4@4 d4 d2 C4@8 d4 d2 C4@12");
        assert_targets(&stub, &sampling);
        release(&stub, &sampling);
    }
}

static void sdar_stop_and_threshold(void **state)
{
    struct stub stub;
    mb_sampling sampling;
    mb_sampler sampler;
    struct setting setting = {8, 12, 4, 4, 1, 1.0, false, false, false, MB_SCHEDULE_THRESHOLD};
    (void)state;
    run(&stub, &sampling, &sampler, MB_FAMILY_SDAR, &setting);
    stub.log.data[stub.log.length - 1] = '\0';
    assert_string_equal(stub.log.data, "C8@0 d4 d3 d2 d1 C4@8"); /* no later block runs */
    assert_int_equal(sampling.count, 10);
    assert_true(sampling.stopped);
    release(&stub, &sampling);
    /* Dynamic, no shift: at step 1 slots g = 8..11 with 4 masks have confidences levels[(7g+4)%4] = 4, 9, 7.5, 6:
     * two are above 0.9, then (2 masks, same two slots: 6 and 4 become levels[(56+2)%4]=7.5 and [(77+2)%4]=9). */
    setting = (struct setting){8, 4, 4, 4, -1, 0.9, false, true, false, MB_SCHEDULE_THRESHOLD};
    run(&stub, &sampling, &sampler, MB_FAMILY_SDAR, &setting);
    stub.log.data[stub.log.length - 1] = '\0';
    assert_string_equal(stub.log.data, "C8@0 d4 d2 C4@8");
    release(&stub, &sampling);
}

/* LLaDA2's generate(): steps are at most as many as new tokens; nothing is committed behind the last block. */
static void llada2_rules(void **state)
{
    static const struct {
        struct setting setting;
        const char *log;
        int32_t count;
        bool stopped;
    } cases[] = {
        {{32, 8, 32, 32, -1, 1.0, false, true, false, MB_SCHEDULE_THRESHOLD},
         "C32@0 d32 d28 d24 d20 d16 d12 d8 d4 ",
         40,
         false},
        {{32, 100, 32, 32, 38, 0.0, false, true, false, MB_SCHEDULE_THRESHOLD}, "C32@0 d32 C32@32 d32 ", 71, true},
        {{5, 40, 32, 32, -1, 0.0, false, true, false, MB_SCHEDULE_THRESHOLD}, "d27 C32@0 d32 ", 45, false},
        {{32, 32, 32, 2, -1, 0.0, false, false, false, MB_SCHEDULE_THRESHOLD}, "C32@0 d32 d16 ", 64, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        run(&stub, &sampling, &sampler, MB_FAMILY_LLADA2, &cases[i].setting);
        assert_string_equal(stub.log.data, cases[i].log);
        assert_int_equal(sampling.count, cases[i].count);
        assert_int_equal(sampling.stopped, cases[i].stopped);
        assert_targets(&stub, &sampling);
        release(&stub, &sampling);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_dllm_logs),
        cmocka_unit_test(fast_dllm_lengths),
        cmocka_unit_test(fast_dllm_one_token_a_step),
        cmocka_unit_test(fast_dllm_stops),
        cmocka_unit_test(sdar_prompts),
        cmocka_unit_test(sdar_keeps_the_prompt_tail),
        cmocka_unit_test(sdar_stop_and_threshold),
        cmocka_unit_test(llada2_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
