/*
 * stub_network.h - a stub in place of the network and a run of a sampler on it, for the tests of the samplers. It
 * predicts a fixed token at each position with one of four confidences and writes down every call: Cn@p writes n
 * tokens behind p cached ones, dm is a forward of the block with m masks in it, sK:m one of the sub-block at slot
 * K.
 */
#ifndef MB_TESTS_MODEL_STUB_NETWORK_H
#define MB_TESTS_MODEL_STUB_NETWORK_H

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
    int32_t shift; /* 1: the row of token g-1 predicts g (Fast-dLLM v2); 0: row g does (SDAR) */
    int32_t block, cached;
    const float *levels; /* four logits to cycle through */
    mb_type confidence;
    mb_text log;
    int32_t commits, denoised, first_masks, first_position;
    int32_t prompt_seen; /* largest position a KV-writing or denoising call covered in the prompt */
    int32_t begins, ends;
};

static const float graded[4] = {4.0f, 6.0f, 7.5f, 9.0f};

static inline float level(const struct stub *stub, int32_t g, int32_t masks)
{
    return stub->levels[(7 * g + masks) % 4];
}

/* The stub's logit row in bf16 through an fp32 softmax, probabilities rounded, as the reference computes it. */
static inline void answer(const struct stub *stub, int32_t g, int32_t masks, int32_t *id, float *probability)
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

static inline int32_t count_masks(const int32_t *tokens, int32_t n)
{
    int32_t masks = 0;
    for (int32_t i = 0; i < n; i++)
        masks += tokens[i] == MASK;
    return masks;
}

static inline int stub_prefill(void *self, const int32_t *ids, int32_t n, int32_t *next, mb_error *err)
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

static inline int stub_denoise(void *self, int32_t step, const int32_t *tokens, int32_t rows, int32_t row_offset,
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

static inline int stub_commit(void *self, const int32_t *tokens, int32_t *next, mb_error *err)
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

static inline int stub_begin(void *self, int32_t block, const int32_t *tokens, mb_error *err)
{
    struct stub *stub = self;
    (void)tokens, (void)err;
    assert_int_equal(block, stub->begins);
    stub->begins++;
    return MB_OK;
}

static inline int stub_end(void *self, int32_t block, const int32_t *tokens, mb_error *err)
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

static inline void run(struct stub *stub, mb_sampling *sampling, mb_sampler *sampler, mb_family family,
                       const struct setting *setting)
{
    mb_error err = {0};
    memset(stub, 0, sizeof *stub);
    memset(sampling, 0, sizeof *sampling);
    *sampler = (mb_sampler){.schedule = setting->schedule,
                            .steps = setting->steps,
                            .threshold = setting->threshold,
                            .remasking = setting->dynamic ? MB_REMASK_DYNAMIC : MB_REMASK_STATIC,
                            .editing_threshold = 2,
                            .block_cache = setting->block_cache,
                            .confidence = MB_BF16,
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
    mb_network network = {.self = stub,
                          .prefill = stub_prefill,
                          .denoise = stub_denoise,
                          .commit = stub_commit,
                          .block_begin = stub_begin,
                          .block_end = stub_end};
    int rc = mb_sampling_run(sampling, &network, stub->target, (size_t)setting->prompt, &err);
    if (rc != MB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(stub->begins, stub->ends);
    assert_int_equal(stub->begins, sampling->blocks);
}

static inline void release(struct stub *stub, mb_sampling *sampling)
{
    mb_text_free(&stub->log);
    mb_sampling_free(sampling);
}

static inline void assert_targets(const struct stub *stub, const mb_sampling *sampling)
{
    for (int32_t i = 0; i < sampling->count; i++)
        assert_int_equal(sampling->tokens[i], stub->target[i]);
}

#endif
