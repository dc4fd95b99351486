/*
 * sampler.c - what the families' samplers share: the growing token list, the stop test, ranking by confidence, the
 * fixed schedule, the forced trajectory and the trace. The families' loops are in sdar.c, fast_dllm.c,
 * llada2.c and canvas.c, their defaults in settings.c, drawn tokens in draw.c.
 */
#include "model/sampler/sampler.h"

#include "model/internal.h"

#include <stdlib.h>
#include <string.h>

int32_t mb_schedule_share(int32_t block, int32_t steps, int32_t step)
{
    return block / steps + (step < block % steps ? 1 : 0);
}

/* Blocks are short: picking the best n times costs less than sorting, and ties fall to the lower slot. */
int32_t mb_choose_best(const float *confidence, const bool *open, int32_t slots, int32_t n, bool *chosen)
{
    int32_t found = 0;
    memset(chosen, 0, (size_t)slots * sizeof *chosen);
    while (found < n) {
        int32_t best = -1;
        for (int32_t i = 0; i < slots; i++)
            if (open[i] && !chosen[i] && (best < 0 || confidence[i] > confidence[best]))
                best = i;
        if (best < 0)
            break;
        chosen[best] = true;
        found++;
    }
    return found;
}

void mb_sampling_refuse_mask(const mb_sampling *sampling, int32_t *best, float *confidence, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        if (best[i] != sampling->mask_id)
            continue;
        best[i] = sampling->stop_count > 0 ? sampling->stop_ids[0] : 0;
        confidence[i] = -1.0f;
    }
}

int32_t mb_sampling_masks(const mb_sampling *sampling, const int32_t *tokens, int32_t n)
{
    int32_t masks = 0;
    for (int32_t i = 0; i < n; i++)
        masks += tokens[i] == sampling->mask_id;
    return masks;
}

bool mb_sampling_is_stop(const mb_sampling *sampling, int32_t token)
{
    for (int32_t i = 0; i < sampling->stop_count; i++)
        if (sampling->stop_ids[i] == token)
            return true;
    return false;
}

int32_t mb_sampling_stop_from(const mb_sampling *sampling)
{
    return sampling->prompt + (sampling->min_new_tokens > 0 ? sampling->min_new_tokens : 0);
}

int32_t mb_sampling_stop(const mb_sampling *sampling, int32_t from, int32_t to)
{
    if (sampling->sampler->ignore_stop)
        return -1;
    for (int32_t i = from; i < to; i++) {
        if (sampling->tokens[i] == sampling->mask_id)
            return -1;
        if (mb_sampling_is_stop(sampling, sampling->tokens[i]))
            return i;
    }
    return -1;
}

bool mb_sampling_forced_beyond(const mb_sampling *sampling, int32_t position)
{
    return position - sampling->prompt < (int64_t)sampling->forced_count;
}

/* A slot that is still masked counts as compared: the run did not give the reference's token there. */
void mb_sampling_force(mb_sampling *sampling, int32_t from, int32_t to)
{
    if (!sampling->forced)
        return;
    for (int32_t i = from; i < to && mb_sampling_forced_beyond(sampling, i); i++) {
        int32_t wanted = sampling->forced[i - sampling->prompt];
        sampling->compared++;
        sampling->agree += sampling->tokens[i] == wanted;
        sampling->tokens[i] = wanted;
    }
}

int mb_sampling_reserve(mb_sampling *sampling, int32_t count, mb_error *err)
{
    if (count <= sampling->capacity)
        return MB_OK;
    int32_t capacity = count + count / 2 + 64;
    int32_t *tokens = realloc(sampling->tokens, (size_t)capacity * sizeof *tokens);
    if (!tokens)
        return mb_no_memory(err, "%d tokens", capacity);
    sampling->tokens = tokens;
    sampling->capacity = capacity;
    return MB_OK;
}

/* As the families' own generate(): SDAR and LLaDA2 round their end up to a block, Fast-dLLM v2 decodes
 * max_new_tokens div B blocks. */
int64_t mb_sampling_length(const mb_sampling *sampling, int64_t prompt)
{
    int64_t block = sampling->block, fresh = sampling->max_new_tokens;
    if (sampling->canvas.steps > 0) /* whole canvases, from the prompt's end on */
        return prompt + (fresh + block - 1) / block * block;
    if (sampling->family != MB_FAMILY_FAST_DLLM_V2)
        return (prompt + fresh + block - 1) / block * block;
    return prompt / block * block + (fresh / block > 0 ? fresh / block : 1) * block;
}

static void trace(mb_sampling *sampling, const mb_trace_step *event)
{
    if (sampling->trace)
        sampling->trace(sampling->user, event);
}

int mb_sampling_prefill(mb_sampling *sampling, const mb_network *network, int32_t n, int32_t *next, mb_error *err)
{
    int rc = network->prefill(network->self, sampling->tokens, n, next, err);
    if (rc < 0)
        return rc;
    trace(sampling, &(mb_trace_step){.block = -1, .kind = 'C', .rows = n});
    sampling->cached = n;
    return MB_OK;
}

int mb_sampling_commit(mb_sampling *sampling, const mb_network *network, int32_t block_number, int32_t at,
                       int32_t *next, mb_error *err)
{
    int rc = network->commit(network->self, sampling->tokens + at, next, err);
    if (rc < 0)
        return rc;
    trace(sampling, &(mb_trace_step){
                        .block = block_number, .kind = 'C', .prefix = sampling->cached, .rows = sampling->block});
    sampling->cached += sampling->block;
    sampling->commit_forwards++;
    return MB_OK;
}

void mb_sampling_reveal(mb_sampling *sampling, int32_t block_number, int32_t step, int32_t at, int32_t rows,
                        int32_t row_offset, const int32_t *slot_tokens, const bool *chosen)
{
    /* Masks are counted before the reveal: that is what the forward saw. */
    int32_t positions[256], tokens[256], count = 0, edits = 0; /* blocks have at most 256 slots: mb_sampling_run */
    int32_t masks = mb_sampling_masks(sampling, sampling->tokens + at + row_offset, rows);
    for (int32_t i = 0; i < sampling->block; i++) {
        if (!chosen[i])
            continue;
        edits += sampling->tokens[at + i] != sampling->mask_id;
        positions[count] = at + i;
        tokens[count++] = slot_tokens[i];
        sampling->tokens[at + i] = slot_tokens[i];
    }
    sampling->denoise_forwards++;
    sampling->edits += edits;
    trace(sampling, &(mb_trace_step){.block = block_number,
                                     .step = step,
                                     .masked_before = masks,
                                     .kind = rows < sampling->block ? 's' : 'd',
                                     .prefix = sampling->cached,
                                     .rows = rows,
                                     .row_offset = row_offset,
                                     .positions = positions,
                                     .tokens = tokens,
                                     .count = count,
                                     .edits = edits});
}

void mb_sampling_event(mb_sampling *sampling, const mb_trace_step *event)
{
    sampling->denoise_forwards++;
    trace(sampling, event);
}

void mb_sampling_block_done(mb_sampling *sampling, int32_t forwards)
{
    int32_t last = MB_FORWARD_HISTOGRAM - 1;
    sampling->blocks++;
    sampling->histogram[forwards < last ? forwards : last]++;
}

int mb_sampling_run(mb_sampling *sampling, const mb_network *network, const int32_t *prompt, size_t n,
                    mb_error *err)
{
    if (sampling->block < 1 || sampling->block > 256)
        return mb_fail(err, MB_E_INPUT, "block %d: blocks have 1 to 256 tokens", sampling->block);
    if (sampling->sampler->schedule == MB_SCHEDULE_FIXED && sampling->sampler->steps > sampling->block)
        return mb_fail(err, MB_E_INPUT, "%d steps per block of %d tokens: use 1 to %d steps",
                       sampling->sampler->steps, sampling->block, sampling->block);
    if (n > INT32_MAX / 4 || sampling->max_new_tokens < 0 || sampling->max_new_tokens > INT32_MAX / 4)
        return mb_fail(err, MB_E_INPUT, "%zu prompt tokens and %d new ones are more than can be counted", n,
                       sampling->max_new_tokens);
    int rc = mb_sampling_reserve(sampling, (int32_t)n + sampling->block + 1, err);
    if (rc < 0)
        return rc;
    if (n)
        memcpy(sampling->tokens, prompt, n * sizeof *prompt);
    sampling->count = sampling->prompt = (int32_t)n;
    sampling->cached = 0;
    switch (sampling->family) {
    case MB_FAMILY_SDAR:
        rc = mb_sample_sdar(sampling, network, err);
        break;
    case MB_FAMILY_LLADA2:
        rc = mb_sample_llada2(sampling, network, err);
        break;
    case MB_FAMILY_DIFFUSION_GEMMA:
        rc = mb_sample_canvas(sampling, network, err);
        break;
    case MB_FAMILY_FAST_DLLM_V2:
        rc = mb_sample_fast_dllm(sampling, network, err);
        break;
    }
    if (rc < 0)
        return rc;
    /* The reference cuts just after the first stop token, whatever is still masked behind it. */
    int32_t stop = mb_sampling_stop(sampling, mb_sampling_stop_from(sampling), sampling->count);
    if (stop >= 0) {
        sampling->count = stop + 1;
        sampling->stopped = true;
    }
    return MB_OK;
}

void mb_sampling_free(mb_sampling *sampling)
{
    free(sampling->tokens);
    mb_draw_free(&sampling->draw);
    sampling->tokens = NULL;
    sampling->count = sampling->capacity = 0;
}
