/*
 * test_sampling.c - what all samplers share: the fixed schedule, ranking and thresholds, forced trajectories, stop
 * tokens, a network that predicts the mask, and failures on their way up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/model/stub_network.h"

/* T steps a block: shares of B div T and one more in the first B mod T steps, early end where fewer are masked. */
static void fixed_schedule(void **state)
{
    static const struct {
        mb_family family;
        int32_t prompt, max, steps;
        const char *log;
    } cases[] = {
        {MB_FAMILY_SDAR, 32, 32, 5, "C32@0 d32 d25 d18 d12 d6 C32@32 "},
        {MB_FAMILY_SDAR, 45, 19, 4, "C32@0 d19 d11 d3 C32@32 "},
        {MB_FAMILY_SDAR, 0, 32, 1, "d32 C32@0 "},
        {MB_FAMILY_LLADA2, 32, 64, 5, "C32@0 d32 d25 d18 d12 d6 C32@32 d32 d25 d18 d12 d6 "}, /* no last commit */
        {MB_FAMILY_LLADA2, 45, 19, 4, "C32@0 d19 d11 d3 "},
        {MB_FAMILY_FAST_DLLM_V2, 32, 32, 4, "C32@0 d31 d23 d15 d7 C32@32 "},
        {MB_FAMILY_FAST_DLLM_V2, 45, 32, 32,
         "C32@0 d19 d18 d17 d16 d15 d14 d13 d12 d11 d10 d9 d8 d7 d6 d5 d4 d3 d2 d1 C32@32 "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        struct setting setting = {cases[i].prompt, cases[i].max, 32,    cases[i].steps,   -1, 0.9,
                                  false,           false,        false, MB_SCHEDULE_FIXED};
        run(&stub, &sampling, &sampler, cases[i].family, &setting);
        assert_string_equal(stub.log.data, cases[i].log);
        assert_targets(&stub, &sampling);
        release(&stub, &sampling);
    }
}

/* Best first: the ranking takes the highest confidences, the lower slot on ties. */
static void ranking(void **state)
{
    const float confidence[6] = {0.5f, 1.0f, 0.7f, 1.0f, 0.7f, 1.0f};
    const bool open[6] = {true, false, true, true, true, true};
    bool chosen[6];
    (void)state;
    assert_int_equal(mb_choose_best(confidence, open, 6, 3, chosen), 3);
    assert_true(chosen[3] && chosen[5] && chosen[2] && !chosen[4] && !chosen[0] && !chosen[1]);
    assert_int_equal(mb_choose_best(confidence, open, 6, 9, chosen), 5);
    assert_false(chosen[1]);
}

/* As torch compares: the threshold is rounded to the confidence type; the comparison is strict. */
static void threshold_rounding(void **state)
{
    mb_sampler sampler = {.threshold = 0.85, .confidence = MB_BF16};
    (void)state;
    assert_true(mb_sampler_threshold(&sampler) == 0.8515625f);
    sampler.threshold = 0.9;
    assert_true(mb_sampler_threshold(&sampler) == 0.8984375f);
    sampler.confidence = MB_F16;
    sampler.threshold = 0.95;
    assert_true(mb_sampler_threshold(&sampler) == 0.95019531f);
    sampler.confidence = MB_F32;
    assert_true(mb_sampler_threshold(&sampler) == 0.95f);
}

/* Forced trajectory: the block is counted against the reference and then overwritten with it. */
static void forced_trajectory(void **state)
{
    static const mb_family families[3] = {MB_FAMILY_SDAR, MB_FAMILY_FAST_DLLM_V2, MB_FAMILY_LLADA2};
    (void)state;
    for (int f = 0; f < 3; f++) {
        struct stub stub = {.shift = f == 1, .block = 32, .levels = graded, .confidence = MB_BF16};
        mb_sampler sampler = {
            .threshold = 0.9, .remasking = MB_REMASK_DYNAMIC, .editing_threshold = 2, .confidence = MB_BF16};
        int32_t forced[70];
        mb_error err = {0};
        for (int32_t k = 0; k < TARGETS; k++)
            stub.target[k] = (5 * k + 3) % 50;
        for (int32_t k = 0; k < 70; k++)
            forced[k] = stub.target[45 + k];
        forced[3] = 51; /* the stub will disagree at two places, one of them in another block */
        forced[40] = 52;
        stub.target[45 + 7] =
            STOP; /* this run stops early by itself: the reference's blocks are run all the same */
        mb_sampling sampling = {.sampler = &sampler,
                                .family = families[f],
                                .block = 32,
                                .sub_block = f == 1 ? 8 : 32,
                                .mask_id = MASK,
                                .stop_ids = {STOP},
                                .stop_count = 1,
                                .max_new_tokens = 128,
                                .forced = forced,
                                .forced_count = 70};
        mb_network network = {
            .self = &stub, .prefill = stub_prefill, .denoise = stub_denoise, .commit = stub_commit};
        assert_int_equal(mb_sampling_run(&sampling, &network, stub.target, 45, &err), MB_OK);
        assert_int_equal(sampling.compared, 70);
        assert_int_equal(sampling.agree, 67); /* 3, 7 and 40 differ */
        for (int32_t k = 0; k < 70; k++)
            assert_int_equal(sampling.tokens[45 + k], forced[k]);
        assert_int_equal(sampling.blocks, 3); /* 19 + 32 + 19 tokens */
        release(&stub, &sampling);
    }
}

/* min_new_tokens: an early stop token is an ordinary token. ignore_stop: no stop token ends anything. */
static void early_stops(void **state)
{
    (void)state;
    for (int f = 0; f < 2; f++) {
        for (int ignore = 0; ignore < 2; ignore++) {
            struct stub stub = {.shift = f, .block = 32, .levels = graded, .confidence = MB_BF16};
            mb_sampler sampler = {.threshold = 0.9,
                                  .remasking = MB_REMASK_DYNAMIC,
                                  .editing_threshold = 2,
                                  .confidence = MB_BF16,
                                  .ignore_stop = ignore == 1};
            mb_error err = {0};
            for (int32_t k = 0; k < TARGETS; k++)
                stub.target[k] = (5 * k + 3) % 50;
            stub.target[45 + 2] = stub.target[45 + 12] = STOP;
            mb_sampling sampling = {.sampler = &sampler,
                                    .family = f ? MB_FAMILY_FAST_DLLM_V2 : MB_FAMILY_SDAR,
                                    .block = 32,
                                    .sub_block = f ? 8 : 32,
                                    .mask_id = MASK,
                                    .stop_ids = {STOP},
                                    .stop_count = 1,
                                    .max_new_tokens = 64,
                                    .min_new_tokens = 10};
            mb_network network = {
                .self = &stub, .prefill = stub_prefill, .denoise = stub_denoise, .commit = stub_commit};
            assert_int_equal(mb_sampling_run(&sampling, &network, stub.target, 45, &err), MB_OK);
            assert_int_equal(sampling.stopped, !ignore);
            assert_int_equal(sampling.count, ignore ? (f ? 97 : 128) : 45 + 13);
            release(&stub, &sampling);
        }
    }
}

/* A network that predicts [MASK] itself: the reference would repeat the forward for ever. */
static int masking_denoise(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset,
                           int32_t *ids, float *probability, mb_error *err)
{
    int rc = stub_denoise(self, step, tokens, rows, row_offset, ids, probability, err);
    for (int32_t j = 0; j < rows; j++)
        if ((row_offset + j) % 5 == 2) {
            ids[j] = MASK;
            probability[j] = 1.0f;
        }
    return rc;
}

static void a_predicted_mask_ends_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        int f = i % 2;
        struct stub stub = {.shift = f, .block = 32, .levels = graded, .confidence = MB_BF16};
        mb_sampler sampler = {.threshold = 0.9,
                              .remasking = MB_REMASK_DYNAMIC,
                              .editing_threshold = 2,
                              .confidence = MB_BF16,
                              .ignore_stop = true,
                              .block_cache = i >= 4,
                              .steps = i >= 2 ? 6 : 0,
                              .schedule = i / 2 == 1 ? MB_SCHEDULE_FIXED : MB_SCHEDULE_THRESHOLD};
        mb_error err = {0};
        int32_t stops = 0;
        for (int32_t k = 0; k < TARGETS; k++)
            stub.target[k] = (5 * k + 3) % 50;
        mb_sampling sampling = {.sampler = &sampler,
                                .family = f ? MB_FAMILY_FAST_DLLM_V2 : MB_FAMILY_SDAR,
                                .block = 32,
                                .sub_block = f ? 8 : 32,
                                .mask_id = MASK,
                                .stop_ids = {STOP},
                                .stop_count = 1,
                                .max_new_tokens = 64};
        mb_network network = {
            .self = &stub, .prefill = stub_prefill, .denoise = masking_denoise, .commit = stub_commit};
        assert_int_equal(mb_sampling_run(&sampling, &network, stub.target, 64, &err), MB_OK);
        assert_int_equal(count_masks(sampling.tokens, sampling.count), 0);
        for (int32_t k = 64; k < sampling.count; k++) {
            assert_true(sampling.tokens[k] == STOP || sampling.tokens[k] == stub.target[k]);
            stops += sampling.tokens[k] == STOP;
        }
        assert_true(stops > 0);
        release(&stub, &sampling);
    }
}

static int failing_denoise(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset,
                           int32_t *ids, float *probability, mb_error *err)
{
    struct stub *stub = self;
    if (stub->denoised == 3)
        return mb_fail(err, MB_E_STOP, "stopped by the user");
    return stub_denoise(self, step, tokens, rows, row_offset, ids, probability, err);
}

static void failures_travel(void **state)
{
    (void)state;
    for (int f = 0; f < 2; f++) {
        struct stub stub = {.shift = f, .block = 32, .levels = graded, .confidence = MB_BF16};
        mb_sampler sampler = {.threshold = 1.0, .confidence = MB_BF16};
        mb_error err = {0};
        mb_sampling sampling = {.sampler = &sampler,
                                .family = f ? MB_FAMILY_FAST_DLLM_V2 : MB_FAMILY_SDAR,
                                .block = 32,
                                .sub_block = f ? 8 : 32,
                                .mask_id = MASK,
                                .max_new_tokens = 64};
        mb_network network = {
            .self = &stub, .prefill = stub_prefill, .denoise = failing_denoise, .commit = stub_commit};
        assert_int_equal(mb_sampling_run(&sampling, &network, stub.target, 33, &err), MB_E_STOP);
        assert_string_equal(err.text, "stopped by the user");
        release(&stub, &sampling);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_schedule),     cmocka_unit_test(ranking),
        cmocka_unit_test(threshold_rounding), cmocka_unit_test(forced_trajectory),
        cmocka_unit_test(early_stops),        cmocka_unit_test(a_predicted_mask_ends_nothing),
        cmocka_unit_test(failures_travel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
