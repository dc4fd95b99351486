/*
 * sampler_sdar.c - greedy decoding of SDAR and TraDo (models.md 4.4, 4.5): row i predicts slot i, one block after
 * the other, at most `steps` denoising forwards a block, then a clean commit forward. The confidence is the
 * probability under the unfiltered softmax, as in the evaluation that produced the published tables.
 *
 * Differs from the reference in two points: a step never reveals more slots than are masked (the reference's topk
 * then overwrites known tokens, the prompt's among them: its quirk Q3), and [MASK] is never revealed.
 */
#include "model/sampler.h"

#include <stdlib.h>

/* Which slots this step reveals: n of them by rank, or all above the threshold where those are at least n. */
static void choose(const mb_sampling *sampling, const float *confidence, const bool *open, int32_t n, bool *chosen)
{
    const mb_sampler *sampler = sampling->sampler;
    float threshold = mb_sampler_threshold(sampler);
    int32_t above = 0;
    if (sampler->schedule == MB_SCHEDULE_THRESHOLD && sampler->dynamic) {
        for (int32_t i = 0; i < sampling->block; i++) {
            chosen[i] = open[i] && confidence[i] > threshold;
            above += chosen[i];
        }
        if (above >= n && above > 0)
            return;
    }
    mb_choose_best(confidence, open, sampling->block, n, chosen);
}

/* Denoises the block at `at` until it has no mask. Returns the number of forwards or a negative code. */
static int denoise_block(mb_sampling *sampling, const mb_network *network, int32_t number, int32_t at,
                         int32_t *best, float *confidence, bool *flags, char *err, size_t err_cap)
{
    int32_t block = sampling->block, step = 0;
    int32_t steps = sampling->sampler->steps > 0 ? sampling->sampler->steps : block;
    bool *open = flags, *chosen = flags + block;
    while (mb_sampling_masks(sampling, sampling->tokens + at, block) > 0) {
        const int32_t *tokens = sampling->tokens + at;
        /* The shares of all steps add up to B and each reveals at least its share: `steps` are enough. */
        int32_t n = mb_schedule_share(block, steps, step);
        int rc = network->denoise(network->self, step + 1, tokens, block, 0, best, confidence, err, err_cap);
        if (rc < 0)
            return rc;
        mb_sampling_refuse_mask(sampling, best, confidence, block);
        for (int32_t i = 0; i < block; i++)
            open[i] = tokens[i] == sampling->mask_id;
        choose(sampling, confidence, open, n, chosen);
        mb_sampling_reveal(sampling, number, ++step, at, block, 0, best, chosen);
    }
    return step;
}

int mb_sample_sdar(mb_sampling *sampling, const mb_network *network, char *err, size_t err_cap)
{
    int32_t block = sampling->block, prompt = sampling->prompt, ignored = 0;
    int32_t end = (int32_t)mb_sampling_length(sampling, prompt);
    int32_t prefilled = prompt / block * block;
    int32_t *best = malloc((size_t)block * sizeof *best);
    float *confidence = malloc((size_t)block * sizeof *confidence);
    bool *flags = malloc(2 * (size_t)block * sizeof *flags);
    int rc = MB_OK;
    if (!best || !confidence || !flags) {
        rc = mb_fail(err, err_cap, MB_E_SYSTEM, "no memory for the sampler's block of %d slots", block);
        goto out;
    }
    if ((rc = mb_sampling_reserve(sampling, end, err, err_cap)) < 0)
        goto out;
    if (prefilled > 0 && (rc = mb_sampling_prefill(sampling, network, prefilled, &ignored, err, err_cap)) < 0)
        goto out;
    for (int32_t at = prefilled, number = 0; at < end; at += block, number++) {
        for (int32_t i = sampling->count; i < at + block; i++)
            sampling->tokens[i] = sampling->mask_id;
        sampling->count = at + block;
        if (network->block_begin &&
            (rc = network->block_begin(network->self, number, sampling->tokens + at, err, err_cap)) < 0)
            goto out;
        int forwards = rc = denoise_block(sampling, network, number, at, best, confidence, flags, err, err_cap);
        if (rc < 0)
            goto out;
        mb_sampling_force(sampling, at > prompt ? at : prompt, at + block);
        /* The reference commits before it looks for a stop: the last forward of a stopped answer is wasted. */
        rc = mb_sampling_commit(sampling, network, number, at, &ignored, err, err_cap);
        if (rc == MB_OK && network->block_end)
            rc = network->block_end(network->self, number, sampling->tokens + at, err, err_cap);
        if (rc < 0)
            goto out;
        mb_sampling_block_done(sampling, forwards);
        if (sampling->forced) {
            if (!mb_sampling_forced_beyond(sampling, at + block))
                break;
        } else if (mb_sampling_stop(sampling, mb_sampling_stop_from(sampling), sampling->count) >= 0) {
            break;
        }
    }
    rc = MB_OK;
out:
    free(best);
    free(confidence);
    free(flags);
    return rc;
}
