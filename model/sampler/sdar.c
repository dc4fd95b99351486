/*
 * sdar.c - decoding of SDAR and TraDo (block_diffusion_generate of SDAR's generate.py): row i predicts slot i, one
 * block after the other, at most `steps` denoising forwards a block, then a clean commit forward. A greedy token's
 * confidence is the probability under the unfiltered softmax, as in SDAR's evaluation code (huggingface_bd3.py),
 * which produced the published tables.
 *
 * The strategy entropy_bounded does not run in generate.py (it adds up the probabilities of the chosen tokens);
 * the rule here is that of SDAR's engine (JetEngine, engine/scheduler.py): masked slots in ascending order of the
 * entropy of their distribution, as many as keep its sum below eb_threshold, at least one. `steps` bounds nothing
 * there.
 *
 * Differs from the reference in two points: a step never reveals more slots than are masked (the reference's topk
 * then overwrites known tokens, the prompt's among them), and [MASK] is never revealed.
 *
 * LLaDA2.1's edits (generate() of its modeling_llada2_moe.py) are part of the same step: of the written slots
 * behind the prompt those whose best token is another one of more confidence than editing_threshold change, too. A
 * block without masks is looked at again until a forward changes nothing, at most max_post_steps times. A step's
 * share is one token there. Its keys and values cannot go stale: each forward writes those of the whole block, and
 * the commit forward those of the final tokens.
 */
#include "model/sampler/sampler.h"

#include "model/internal.h"

#include <stdlib.h>
#include <string.h>

/* The first n open slots. */
static void choose_first(const bool *open, int32_t slots, int32_t n, bool *chosen)
{
    memset(chosen, 0, (size_t)slots * sizeof *chosen);
    for (int32_t i = 0; i < slots && n > 0; i++) {
        chosen[i] = open[i];
        n -= open[i];
    }
}

/* Open slots by rising entropy while the sum stays below the bound, at least one. */
static void choose_certain(const float *entropy, const bool *open, int32_t slots, double bound, bool *chosen)
{
    double sum = 0;
    int32_t count = 0;
    memset(chosen, 0, (size_t)slots * sizeof *chosen);
    for (;;) {
        int32_t best = -1;
        for (int32_t i = 0; i < slots; i++)
            if (open[i] && !chosen[i] && (best < 0 || entropy[i] < entropy[best]))
                best = i;
        if (best < 0)
            return;
        sum += (double)entropy[best];
        if (count++ > 0 && sum >= bound)
            return;
        chosen[best] = true;
    }
}

/* Which of the open slots this step reveals; n is its share. A block under edits has a share of one. */
static void choose(const mb_sampling *sampling, const mb_block_work *work, const bool *open, int32_t n,
                   bool *chosen)
{
    const mb_sampler *sampler = sampling->sampler;
    float threshold = mb_sampler_threshold(sampler);
    int32_t above = 0;
    if (sampler->remasking == MB_REMASK_SEQUENTIAL) {
        choose_first(open, sampling->block, n, chosen);
        return;
    }
    if (sampler->remasking == MB_REMASK_ENTROPY) {
        choose_certain(work->entropy, open, sampling->block, sampler->eb_threshold, chosen);
        return;
    }
    if (sampler->schedule == MB_SCHEDULE_THRESHOLD && sampler->remasking == MB_REMASK_DYNAMIC) {
        for (int32_t i = 0; i < sampling->block; i++) {
            chosen[i] = open[i] && work->confidence[i] > threshold;
            above += chosen[i];
        }
        if (above >= n && above > 0)
            return;
    }
    mb_choose_best(work->confidence, open, sampling->block, n, chosen);
}

/* Adds the written slots that change; returns how many. */
static int32_t choose_edits(const mb_sampling *sampling, const mb_block_work *work, bool *chosen)
{
    const mb_sampler *sampler = sampling->sampler;
    const int32_t *tokens = sampling->tokens + work->at;
    float threshold = mb_type_round((float)sampler->editing_threshold, sampler->confidence);
    int32_t edits = 0, first = sampling->prompt > work->at ? sampling->prompt - work->at : 0;
    for (int32_t i = first; i < sampling->block; i++) {
        if (tokens[i] == sampling->mask_id || tokens[i] == work->best[i] || !(work->confidence[i] > threshold))
            continue;
        chosen[i] = true;
        edits++;
    }
    return edits;
}

int mb_block_work_make(mb_block_work *work, const mb_sampling *sampling, mb_error *err)
{
    size_t block = (size_t)sampling->block;
    bool entropy = sampling->sampler->remasking == MB_REMASK_ENTROPY;
    work->best = malloc(block * sizeof *work->best);
    work->confidence = malloc(block * sizeof *work->confidence);
    work->flags = malloc(2 * block * sizeof *work->flags);
    work->entropy = entropy ? malloc(block * sizeof *work->entropy) : NULL;
    return work->best && work->confidence && work->flags && (work->entropy || !entropy)
               ? MB_OK
               : mb_no_memory(err, "the sampler's block of %d slots", sampling->block);
}

void mb_block_work_free(mb_block_work *work)
{
    free(work->best);
    free(work->confidence);
    free(work->entropy);
    free(work->flags);
}

/* A forward of the block: best or drawn token and confidence of every slot; open: the masked ones. */
static int predict(mb_sampling *sampling, const mb_network *network, mb_block_work *work, int32_t step, bool *open,
                   mb_error *err)
{
    int32_t block = sampling->block;
    const int32_t *tokens = sampling->tokens + work->at;
    bool edits = mb_sampler_edits(sampling->sampler);
    int rc = network->denoise(network->self, step, tokens, block, 0, work->best, work->confidence, err);
    if (rc < 0)
        return rc;
    for (int32_t i = 0; i < block; i++)
        open[i] = tokens[i] == sampling->mask_id;
    mb_draw_rows rows = {.count = block,
                         .position = work->at,
                         .step = step,
                         .wanted = edits ? NULL : open,
                         .best = work->best,
                         .confidence = work->confidence,
                         .entropy = work->entropy};
    rc = mb_sampling_draw(sampling, network, &rows, err);
    mb_sampling_refuse_mask(sampling, work->best, work->confidence, block);
    return rc;
}

/* LLaDA2's early stop: this step wrote a stop token, and no slot in front of the first one is masked. */
static bool stops_early(const mb_sampling *sampling, const mb_block_work *work, const bool *chosen)
{
    bool wrote = false;
    for (int32_t i = 0; i < sampling->block; i++)
        wrote = wrote || (chosen[i] && mb_sampling_is_stop(sampling, work->best[i]));
    return wrote && !sampling->forced &&
           mb_sampling_stop(sampling, mb_sampling_stop_from(sampling), sampling->count) >= 0;
}

int mb_sample_block(mb_sampling *sampling, const mb_network *network, mb_block_work *work, mb_error *err)
{
    int32_t block = sampling->block, at = work->at, step = 0, post_steps = 0;
    bool *open = work->flags, *chosen = work->flags + block, edits = mb_sampler_edits(sampling->sampler);
    for (int32_t i = sampling->count; i < at + block; i++)
        sampling->tokens[i] = sampling->mask_id;
    sampling->count = at + block;
    if (network->block_begin) {
        int rc = network->block_begin(network->self, work->number, sampling->tokens + at, err);
        if (rc < 0)
            return rc;
    }
    for (;;) {
        bool masks = mb_sampling_masks(sampling, sampling->tokens + at, block) > 0;
        if (!masks && (!edits || ++post_steps > sampling->sampler->max_post_steps))
            return step;
        /* The shares of all steps add up to B and each reveals at least its share: `steps` are enough. */
        int32_t n = edits ? 1 : mb_schedule_share(block, work->steps, step);
        int rc = predict(sampling, network, work, step + 1, open, err);
        if (rc < 0)
            return rc;
        choose(sampling, work, open, n, chosen);
        int32_t changes = edits ? choose_edits(sampling, work, chosen) : 0;
        mb_sampling_reveal(sampling, work->number, ++step, at, block, 0, work->best, chosen);
        if (!masks && changes == 0)
            return step;
        if (sampling->sampler->eos_early_stop && !edits && stops_early(sampling, work, chosen))
            return step;
    }
}

int mb_sample_sdar(mb_sampling *sampling, const mb_network *network, mb_error *err)
{
    int32_t block = sampling->block, prompt = sampling->prompt, ignored = 0;
    int32_t end = (int32_t)mb_sampling_length(sampling, prompt);
    int32_t prefilled = prompt / block * block;
    mb_block_work work = {.steps = sampling->sampler->steps > 0 ? sampling->sampler->steps : block};
    int rc = mb_block_work_make(&work, sampling, err);
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
