/*
 * test_samplers.c - the control flow of both samplers on the stub network of models.md 14.1. The expected call
 * logs and tables come from runs of the original Python samplers, not from this code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/internal.h"
#include "model/sampler/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 64, MASK = 63, STOP = 62, TARGETS = 512 };

/* The stub: predicts target[g] at position g with one of four confidences. Writes its own log, apart from the
 * sampler's trace. */
struct stub {
    int32_t target[TARGETS];
    int32_t shift;              /* 1: the row of token g-1 predicts g (Fast-dLLM v2); 0: row g does (SDAR) */
    int32_t block, cached;
    const float *levels;        /* four logits to cycle through */
    mb_type confidence;
    mb_text log;
    int32_t commits, denoised, first_masks, first_position;
    int32_t prompt_seen;        /* largest position a KV-writing or denoising call covered in the prompt */
    int32_t begins, ends;
};

static const float graded[4] = {4.0f, 6.0f, 7.5f, 9.0f};

static float level(const struct stub *stub, int32_t g, int32_t masks)
{
    return stub->levels[(7 * g + masks) % 4];
}

/* The stub's logit row in bf16 through an fp32 softmax, probabilities rounded, as the reference computes it. */
static void answer(const struct stub *stub, int32_t g, int32_t masks, int32_t *id, float *probability)
{
    float value = mb_type_round(level(stub, g, masks), MB_BF16), sum = 0, best = -1;
    for (int32_t v = 0; v < VOCAB; v++)
        sum += expf((v == stub->target[g] ? value : 0.0f) - value);
    for (int32_t v = 0; v < VOCAB; v++) {
        float p = mb_type_round(expf((v == stub->target[g] ? value : 0.0f) - value) / sum, stub->confidence);
        if (p > best) {
            best = p;
            *id = v;
        }
    }
    *probability = best;
}

static int32_t count_masks(const int32_t *tokens, int32_t n)
{
    int32_t masks = 0;
    for (int32_t i = 0; i < n; i++)
        masks += tokens[i] == MASK;
    return masks;
}

static int stub_prefill(void *self, const int32_t *ids, int32_t n, int32_t *next, mb_error *err)
{
    struct stub *stub = self;
    float probability;
    (void)err;
    assert_int_equal(stub->cached, 0);
    assert_int_equal(count_masks(ids, n), 0);
    mb_text_printf(&stub->log, "C%d@0 ", n);
    stub->cached = n;
    stub->commits++;
    answer(stub, n - 1 + stub->shift, 0, next, &probability);
    return MB_OK;
}

static int stub_denoise(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset,
                        int32_t *ids, float *probability, mb_error *err)
{
    struct stub *stub = self;
    int32_t masks = count_masks(tokens + row_offset, rows);
    (void)err;
    if (rows == stub->block)
        mb_text_printf(&stub->log, "d%d ", masks);
    else
        mb_text_printf(&stub->log, "s%d:%d ", row_offset, masks);
    if (stub->denoised++ == 0) {
        stub->first_masks = masks;
        stub->first_position = stub->cached;
        assert_int_equal(step, 1);
    }
    for (int32_t j = 0; j < rows; j++)
        answer(stub, stub->cached + row_offset + j + stub->shift, masks, &ids[j], &probability[j]);
    return MB_OK;
}

static int stub_commit(void *self, const int32_t *tokens, int32_t *next, mb_error *err)
{
    struct stub *stub = self;
    float probability;
    (void)err;
    assert_int_equal(count_masks(tokens, stub->block), 0);
    mb_text_printf(&stub->log, "C%d@%d ", stub->block, stub->cached);
    stub->commits++;
    answer(stub, stub->cached + stub->block - 1 + stub->shift, 0, next, &probability);
    stub->cached += stub->block;
    return MB_OK;
}

static int stub_begin(void *self, int32_t block, const int32_t *tokens, mb_error *err)
{
    struct stub *stub = self;
    (void)tokens, (void)err;
    assert_int_equal(block, stub->begins);
    stub->begins++;
    return MB_OK;
}

static int stub_end(void *self, int32_t block, const int32_t *tokens, mb_error *err)
{
    struct stub *stub = self;
    (void)tokens, (void)err;
    assert_int_equal(block, stub->ends);
    stub->ends++;
    return MB_OK;
}

struct setting {
    int32_t prompt, max, block, steps, stop_at; /* stop_at: new token that is the stop; -1 = none */
    double threshold;
    bool block_cache, dynamic, compat;
    mb_schedule schedule;
};

static void run(struct stub *stub, mb_sampling *sampling, mb_sampler *sampler, mb_family family,
                const struct setting *setting)
{
    mb_error err = {0};
    memset(stub, 0, sizeof *stub);
    memset(sampling, 0, sizeof *sampling);
    *sampler = (mb_sampler){.schedule = setting->schedule, .steps = setting->steps,
                            .threshold = setting->threshold, .dynamic = setting->dynamic,
                            .block_cache = setting->block_cache, .confidence = MB_BF16,
                            .compat_prompt_bug = setting->compat};
    for (int32_t k = 0; k < TARGETS; k++)
        stub->target[k] = (5 * k + 3) % 50;
    if (setting->stop_at >= 0)
        stub->target[setting->prompt + setting->stop_at] = STOP;
    stub->shift = family == MB_FAMILY_FAST_DLLM_V2;
    stub->block = setting->block;
    stub->levels = graded;
    stub->confidence = MB_BF16;
    sampling->sampler = sampler;
    sampling->family = family;
    sampling->block = setting->block;
    sampling->sub_block = family == MB_FAMILY_FAST_DLLM_V2 ? 8 : setting->block;
    sampling->mask_id = MASK;
    sampling->stop_ids[0] = STOP;
    sampling->stop_count = 1;
    sampling->max_new_tokens = setting->max;
    mb_network network = {.self = stub, .prefill = stub_prefill, .denoise = stub_denoise, .commit = stub_commit,
                          .block_begin = stub_begin, .block_end = stub_end};
    int rc = mb_sampling_run(sampling, &network, stub->target, (size_t)setting->prompt, &err);
    if (rc != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(stub->begins, stub->ends);
    assert_int_equal(stub->begins, sampling->blocks);
}

static void release(struct stub *stub, mb_sampling *sampling)
{
    mb_text_free(&stub->log);
    mb_sampling_free(sampling);
}

static void assert_targets(const struct stub *stub, const mb_sampling *sampling)
{
    for (int32_t i = 0; i < sampling->count; i++)
        assert_int_equal(sampling->tokens[i], stub->target[i]);
}

/* The five call logs of models.md 14.1, letter for letter. */
static void fast_dllm_logs(void **state)
{
    static const struct {
        struct setting setting;
        const char *log;
        int32_t length;
    } cases[] = {
        {{45, 64, 32, 0, -1, 0.9, false, false, false, MB_SCHEDULE_THRESHOLD},
         "C32@0 d19 d18 d17 d16 d12 d11 d9 d8 d4 d3 d1 C32@32 d31 d28 d26 d24 d20 d19 d17 d16 d12 d11 d9 d8 d4 d3 "
         "d1 C32@64", 97},
        {{45, 64, 32, 0, -1, 0.9, true, false, false, MB_SCHEDULE_THRESHOLD},
         "C32@0 d19 s8:2 s8:1 d16 d12 d11 s16:1 d8 d4 d3 s24:1 C32@32 d31 s0:4 s0:2 d24 d20 d19 s8:1 d16 d12 d11 "
         "s16:1 d8 d4 d3 s24:1 C32@64", 97},
        {{5, 64, 32, 0, -1, 0.9, false, false, false, MB_SCHEDULE_THRESHOLD},
         "d27 d26 d25 d24 d20 d19 d17 d16 d12 d11 d9 d8 d4 d3 d1 C32@0 d31 d28 d26 d24 d20 d19 d17 d16 d12 d11 d9 "
         "d8 d4 d3 d1 C32@32", 65},
        {{64, 64, 32, 0, 40, 0.9, false, false, false, MB_SCHEDULE_THRESHOLD},
         "C64@0 d31 d28 d26 d24 d20 d19 d17 d16 d12 d11 d9 d8 d4 d3 d1 C32@64 d31 d28 d26 d24 d20 d19", 105},
        {{45, 64, 32, 0, 10, 1.0, true, false, false, MB_SCHEDULE_THRESHOLD},
         "C32@0 d19 s8:2 s8:1 d16 d15 s16:6 s16:5 s16:4 s16:3 s16:2 s16:1", 56},
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

/* The length table of models.md 14; the row of P = 32 with the reference's quirk. */
static void fast_dllm_lengths(void **state)
{
    static const struct { int32_t prompt, length, commits, first_masks, first_position; bool compat; } rows[] = {
        {1, 65, 2, 31, 0, false},  {5, 65, 2, 27, 0, false},   {31, 65, 2, 1, 0, false},
        {32, 97, 2, 32, 0, true},  {33, 97, 3, 31, 32, false}, {45, 97, 3, 19, 32, false},
        {64, 129, 3, 31, 64, false}, {65, 129, 3, 31, 64, false},
        {32, 97, 3, 31, 32, false}, /* without the quirk: like any other multiple of B */
        {33, 97, 3, 31, 32, true}, {64, 129, 3, 31, 64, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stub stub;
        mb_sampling sampling;
        mb_sampler sampler;
        struct setting setting = {rows[i].prompt, 64, 32, 0, -1, 0.9, false, false, rows[i].compat,
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
        struct setting setting = {rows[i].prompt, 64, 32, 0, rows[i].stop_at, rows[i].threshold, false, false,
                                  false, MB_SCHEDULE_THRESHOLD};
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

/* Q3: with fewer steps than tokens the reference overwrites the prompt's tail. Ours must not. */
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

/* models.md 5.4. Steps are at most as many as new tokens; nothing is committed behind the last block. */
static void llada2_rules(void **state)
{
    static const struct {
        struct setting setting;
        const char *log;
        int32_t count;
        bool stopped;
    } cases[] = {
        {{32, 8, 32, 32, -1, 1.0, false, true, false, MB_SCHEDULE_THRESHOLD},
         "C32@0 d32 d28 d24 d20 d16 d12 d8 d4 ", 40, false},
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

/* T steps a block: shares of B div T and one more in the first B mod T steps, early end where fewer are masked. */
static void fixed_schedule(void **state)
{
    static const struct { mb_family family; int32_t prompt, max, steps; const char *log; } cases[] = {
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
        struct setting setting = {cases[i].prompt, cases[i].max, 32, cases[i].steps, -1, 0.9, false, false, false,
                                  MB_SCHEDULE_FIXED};
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

/* models.md 2.7: the threshold is rounded to the confidence type, then compared strictly. */
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
        mb_sampler sampler = {.threshold = 0.9, .dynamic = true, .confidence = MB_BF16};
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
        mb_sampling sampling = {.sampler = &sampler, .family = families[f], .block = 32, .sub_block = f == 1 ? 8 : 32,
                                .mask_id = MASK, .stop_ids = {STOP}, .stop_count = 1, .max_new_tokens = 128,
                                .forced = forced, .forced_count = 70};
        mb_network network = {.self = &stub, .prefill = stub_prefill, .denoise = stub_denoise,
                              .commit = stub_commit};
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
            mb_sampler sampler = {.threshold = 0.9, .dynamic = true, .confidence = MB_BF16,
                                  .ignore_stop = ignore == 1};
            mb_error err = {0};
            for (int32_t k = 0; k < TARGETS; k++)
                stub.target[k] = (5 * k + 3) % 50;
            stub.target[45 + 2] = stub.target[45 + 12] = STOP;
            mb_sampling sampling = {.sampler = &sampler, .family = f ? MB_FAMILY_FAST_DLLM_V2 : MB_FAMILY_SDAR,
                                    .block = 32, .sub_block = f ? 8 : 32, .mask_id = MASK, .stop_ids = {STOP},
                                    .stop_count = 1, .max_new_tokens = 64, .min_new_tokens = 10};
            mb_network network = {.self = &stub, .prefill = stub_prefill, .denoise = stub_denoise,
                                  .commit = stub_commit};
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
        mb_sampler sampler = {.threshold = 0.9, .dynamic = true, .confidence = MB_BF16, .ignore_stop = true,
                              .block_cache = i >= 4, .steps = i >= 2 ? 6 : 0,
                              .schedule = i / 2 == 1 ? MB_SCHEDULE_FIXED : MB_SCHEDULE_THRESHOLD};
        mb_error err = {0};
        int32_t stops = 0;
        for (int32_t k = 0; k < TARGETS; k++)
            stub.target[k] = (5 * k + 3) % 50;
        mb_sampling sampling = {.sampler = &sampler, .family = f ? MB_FAMILY_FAST_DLLM_V2 : MB_FAMILY_SDAR,
                                .block = 32, .sub_block = f ? 8 : 32, .mask_id = MASK, .stop_ids = {STOP},
                                .stop_count = 1, .max_new_tokens = 64};
        mb_network network = {.self = &stub, .prefill = stub_prefill, .denoise = masking_denoise,
                              .commit = stub_commit};
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
        mb_sampling sampling = {.sampler = &sampler, .family = f ? MB_FAMILY_FAST_DLLM_V2 : MB_FAMILY_SDAR,
                                .block = 32, .sub_block = f ? 8 : 32, .mask_id = MASK, .max_new_tokens = 64};
        mb_network network = {.self = &stub, .prefill = stub_prefill, .denoise = failing_denoise,
                              .commit = stub_commit};
        assert_int_equal(mb_sampling_run(&sampling, &network, stub.target, 33, &err), MB_E_STOP);
        assert_string_equal(err.text, "stopped by the user");
        release(&stub, &sampling);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_dllm_logs),      cmocka_unit_test(fast_dllm_lengths),
        cmocka_unit_test(fast_dllm_one_token_a_step), cmocka_unit_test(fast_dllm_stops),
        cmocka_unit_test(sdar_prompts),        cmocka_unit_test(sdar_keeps_the_prompt_tail),
        cmocka_unit_test(sdar_stop_and_threshold), cmocka_unit_test(llada2_rules), cmocka_unit_test(fixed_schedule),
        cmocka_unit_test(ranking),             cmocka_unit_test(threshold_rounding),
        cmocka_unit_test(forced_trajectory),   cmocka_unit_test(early_stops),
        cmocka_unit_test(failures_travel),     cmocka_unit_test(a_predicted_mask_ends_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
