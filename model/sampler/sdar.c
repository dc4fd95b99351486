/*
 * sdar.c - greedy decoding of SDAR and TraDo (block_diffusion_generate of SDAR's generate.py): row i predicts slot
 * i, one block after the other, at most `steps` denoising forwards a block, then a clean commit forward. The
 * confidence is the probability under the unfiltered softmax, as in SDAR's evaluation code (huggingface_bd3.py),
 * which produced the published tables.
 *
 * Differs from the reference in two points: a step never reveals more slots than are masked (the reference's topk
 * then overwrites known tokens, the prompt's among them), and [MASK] is never revealed.
 */
#include "model/sampler/sampler.h"

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

int mb_block_work_make(mb_block_work *work, int32_t block, mb_error *err)
{
    work->best = malloc((size_t)block * sizeof *work->best);
    work->confidence = malloc((size_t)block * sizeof *work->confidence);
    work->flags = malloc(2 * (size_t)block * sizeof *work->flags);
    return work->best && work->confidence && work->flags
               ? MB_OK
               : mb_no_memory(err, "the sampler's block of %d slots", block);
}

void mb_block_work_free(mb_block_work *work)
{
    free(work->best);
    free(work->confidence);
    free(work->flags);
}

int mb_sample_block(mb_sampling *sampling, const mb_network *network, mb_block_work *work, mb_error *err)
{
    int32_t block = sampling->block, at = work->at, step = 0;
    bool *open = work->flags, *chosen = work->flags + block;
    for (int32_t i = sampling->count; i < at + block; i++)
        sampling->tokens[i] = sampling->mask_id;
    sampling->count = at + block;
    if (network->block_begin) {
        int rc = network->block_begin(network->self, work->number, sampling->tokens + at, err);
        if (rc < 0)
            return rc;
    }
    while (mb_sampling_masks(sampling, sampling->tokens + at, block) > 0) {
        const int32_t *tokens = sampling->tokens + at;
        /* The shares of all steps add up to B and each reveals at least its share: `steps` are enough. */
        int32_t n = mb_schedule_share(block, work->steps, step);
        int rc = network->denoise(network->self, step + 1, tokens, block, 0, work->best, work->confidence, err);
        if (rc < 0)
            return rc;
        mb_sampling_refuse_mask(sampling, work->best, work->confidence, block);
        for (int32_t i = 0; i < block; i++)
            open[i] = tokens[i] == sampling->mask_id;
        choose(sampling, work->confidence, open, n, chosen);
        mb_sampling_reveal(sampling, work->number, ++step, at, block, 0, work->best, chosen);
    }
    return step;
}

int mb_sample_sdar(mb_sampling *sampling, const mb_network *network, mb_error *err)
{
    int32_t block = sampling->block, prompt = sampling->prompt, ignored = 0;
    int32_t end = (int32_t)mb_sampling_length(sampling, prompt);
    int32_t prefilled = prompt / block * block;
    mb_block_work work = {.steps = sampling->sampler->steps > 0 ? sampling->sampler->steps : block};
    int rc = mb_block_work_make(&work, block, err);
    if (rc < 0 || (rc = mb_sampling_reserve(sampling, end, err)) < 0)
        goto out;
    if (prefilled > 0 && (rc = mb_sampling_prefill(sampling, network, prefilled, &ignored, err)) < 0)
        goto out;
    for (work.at = prefilled; work.at < end; work.at += block, work.number++) {
        int forwards = rc = mb_sample_block(sampling, network, &work, err);
        if (rc < 0)
            goto out;
        mb_sampling_force(sampling, work.at > prompt ? work.at : prompt, work.at + block);
        /* The reference commits before it looks for a stop: the last forward of a stopped answer is wasted. */
        rc = mb_sampling_commit(sampling, network, work.number, work.at, &ignored, err);
        if (rc == MB_OK && network->block_end)
            rc = network->block_end(network->self, work.number, sampling->tokens + work.at, err);
        if (rc < 0)
            goto out;
        mb_sampling_block_done(sampling, forwards);
        if (sampling->forced) {
            if (!mb_sampling_forced_beyond(sampling, work.at + block))
                break;
        } else if (mb_sampling_stop(sampling, mb_sampling_stop_from(sampling), sampling->count) >= 0) {
            break;
        }
    }
    rc = MB_OK;
out:
    mb_block_work_free(&work);
    return rc;
}
