/*
 * llada2.c - greedy decoding of LLaDA2 (generate() of its modeling_llada2_moe.py): SDAR's rule within
 * a block, fp32 confidence, at most min(steps, new tokens) steps, a stop looked for when a block is done.
 *
 * The reference has no cache: each of its forwards computes the whole text under the block-causal mask. A cache
 * that a clean forward over each finished block writes gives the same keys, so that is what runs here; behind the
 * last block nothing needs keys and no commit runs. Differs from the reference where SDAR's file says so for
 * [MASK].
 */
#include "model/sampler/sampler.h"

/* Whether nothing is left to decode behind position `next`: the reference trajectory or the text ended there. */
static bool is_done(const mb_sampling *sampling, int32_t next)
{
    if (sampling->forced)
        return !mb_sampling_forced_beyond(sampling, next);
    return mb_sampling_stop(sampling, mb_sampling_stop_from(sampling), sampling->count) >= 0;
}

int mb_sample_llada2(mb_sampling *sampling, const mb_network *network, mb_error *err)
{
    int32_t block = sampling->block, prompt = sampling->prompt, fresh = sampling->max_new_tokens, ignored = 0;
    int32_t end = (int32_t)mb_sampling_length(sampling, prompt);
    int32_t prefilled = prompt / block * block;
    mb_block_work work = {.steps = sampling->sampler->steps > 0 ? sampling->sampler->steps : block};
    int rc = mb_block_work_make(&work, sampling, err);
    /* A step reveals at least one token, the reference's minimal_topk, so short answers get fewer steps. */
    if (sampling->sampler->schedule == MB_SCHEDULE_THRESHOLD && fresh > 0 && fresh < work.steps)
        work.steps = fresh;
    if (rc < 0 || (rc = mb_sampling_reserve(sampling, end, err)) < 0)
        goto out;
    if (prefilled > 0 && (rc = mb_sampling_prefill(sampling, network, prefilled, &ignored, err)) < 0)
        goto out;
    for (work.at = prefilled; work.at < end; work.at += block, work.number++) {
        int forwards = rc = mb_sample_block(sampling, network, &work, err);
        if (rc < 0)
            goto out;
        mb_sampling_force(sampling, work.at > prompt ? work.at : prompt, work.at + block);
        bool last = work.at + block >= end || is_done(sampling, work.at + block);
        if (!last)
            rc = mb_sampling_commit(sampling, network, work.number, work.at, &ignored, err);
        if (rc >= 0 && network->block_end)
            rc = network->block_end(network->self, work.number, sampling->tokens + work.at, err);
        if (rc < 0)
            goto out;
        mb_sampling_block_done(sampling, forwards);
        if (last)
            break;
    }
    /* The reference hands out at most the tokens that were asked for, though it decodes whole blocks. */
    if (sampling->count > prompt + fresh && !sampling->forced)
        sampling->count = prompt + fresh;
    rc = MB_OK;
out:
    mb_block_work_free(&work);
    return rc;
}
