/*
 * fast_dllm.c - the reference sampler of Fast-dLLM v2 (generate() of its modeling.py), batch 1: token
 * shift (slot i is predicted by row i-1), the seed token that a commit or prefill leaves for the next block,
 * sub-blocks of 8 from left to right, the stop test inside a block, and the block cache's choice between a forward
 * of the whole block and one of the sub-block only.
 *
 * Differs from the reference in three points: a prompt of exactly B tokens is prefilled like any other (the
 * reference forgets such a prompt; compat_prompt_bug brings that back), max_new_tokens below B still decodes one
 * block, and [MASK] is never revealed (the reference would never end).
 */
#include "model/sampler/sampler.h"

#include <stdlib.h>
#include <string.h>

/* State of the block that is being decoded. */
struct work {
    mb_sampling *sampling;
    const mb_network *network;
    int32_t number, at; /* block's running number and position of its first slot */
    int32_t stop_from;  /* the stop test looks from here */
    int32_t forwards;
    bool block_cache; /* the block's temporary cache holds all B keys */
    int32_t *best;    /* per slot: token after the shift */
    float *confidence;
    int32_t *row_best; /* per row: as the network answered */
    float *row_confidence;
    bool *open, *chosen, *wanted; /* per slot, per slot, per row: a token is drawn there */
};

/* A stop token was revealed and nothing in front of it is still masked. */
static bool stopped(const struct work *w)
{
    const mb_sampling *sampling = w->sampling;
    if (sampling->forced && mb_sampling_forced_beyond(sampling, w->at + sampling->block))
        return false; /* the reference went on behind this block */
    return mb_sampling_stop(sampling, w->stop_from, w->at + sampling->block) >= 0;
}

/* One forward of rows [offset, offset+rows) and the shift inside them: slot i reads row i-1, the first its own. */
static int forward(struct work *w, int32_t rows, int32_t offset, mb_error *err)
{
    const mb_network *network = w->network;
    int rc = network->denoise(network->self, w->forwards + 1, w->sampling->tokens + w->at, rows, offset,
                              w->row_best, w->row_confidence, err);
    if (rc < 0)
        return rc;
    w->forwards++;
    for (int32_t r = 0; r < rows; r++)
        w->wanted[r] = (r == 0 && w->open[offset]) || (r + 1 < rows && w->open[offset + r + 1]);
    mb_draw_rows draws = {.count = rows,
                          .position = w->at + offset,
                          .step = w->forwards,
                          .wanted = w->wanted,
                          .best = w->row_best,
                          .confidence = w->row_confidence};
    if ((rc = mb_sampling_draw(w->sampling, network, &draws, err)) < 0)
        return rc;
    mb_sampling_refuse_mask(w->sampling, w->row_best, w->row_confidence, rows);
    for (int32_t i = 0; i < rows; i++) {
        w->best[offset + i] = w->row_best[i > 0 ? i - 1 : 0];
        w->confidence[offset + i] = w->row_confidence[i > 0 ? i - 1 : 0];
    }
    return MB_OK;
}

/* Marks the masked slots of [offset, offset+slots) as open and the others as closed; returns how many are. */
static int32_t open_slots(struct work *w, int32_t offset, int32_t slots)
{
    int32_t masks = 0;
    memset(w->open, 0, (size_t)w->sampling->block * sizeof *w->open);
    for (int32_t i = offset; i < offset + slots; i++) {
        w->open[i] = w->sampling->tokens[w->at + i] == w->sampling->mask_id;
        masks += w->open[i];
    }
    return masks;
}

/* Sub-blocks from left to right, all above the threshold, at least one a forward. */
static int denoise_threshold(struct work *w, mb_error *err)
{
    mb_sampling *sampling = w->sampling;
    int32_t block = sampling->block, width = sampling->sub_block;
    float threshold = mb_sampler_threshold(sampling->sampler);
    for (int32_t offset = 0; offset < block; offset += width) {
        while (open_slots(w, offset, width) > 0) {
            if (stopped(w))
                break; /* the later sub-blocks break at once as well: no further forward runs */
            bool partial = sampling->sampler->block_cache && w->block_cache && !w->open[offset];
            int32_t rows = partial ? width : block, row_offset = partial ? offset : 0;
            int rc = forward(w, rows, row_offset, err);
            if (rc < 0)
                return rc;
            w->block_cache = true;
            mb_choose_best(w->confidence, w->open, block, 1, w->chosen);
            for (int32_t i = offset; i < offset + width; i++)
                if (w->open[i] && w->confidence[i] > threshold)
                    w->chosen[i] = true;
            mb_sampling_reveal(sampling, w->number, w->forwards, w->at, rows, row_offset, w->best, w->chosen);
        }
    }
    return MB_OK;
}

/* Fixed schedule: step t reveals its share of the block's most confident masked slots, wherever they are. */
static int denoise_fixed(struct work *w, mb_error *err)
{
    mb_sampling *sampling = w->sampling;
    int32_t block = sampling->block, steps = sampling->sampler->steps > 0 ? sampling->sampler->steps : block;
    for (int32_t step = 0; step < steps && open_slots(w, 0, block) > 0 && !stopped(w); step++) {
        int rc = forward(w, block, 0, err);
        if (rc < 0)
            return rc;
        mb_choose_best(w->confidence, w->open, block, mb_schedule_share(block, steps, step), w->chosen);
        mb_sampling_reveal(sampling, w->number, w->forwards, w->at, block, 0, w->best, w->chosen);
    }
    return MB_OK;
}

/* The token behind a forward that wrote keys; there is room for it. */
static void append_seed(mb_sampling *sampling, int32_t next)
{
    float ignored = 0;
    mb_sampling_refuse_mask(sampling, &next, &ignored, 1);
    sampling->tokens[sampling->count++] = next;
    mb_sampling_force(sampling, sampling->count - 1, sampling->count);
}

/* One block. *finished = the answer ended inside the block (which is then not committed). */
static int decode_block(struct work *w, bool *finished, mb_error *err)
{
    mb_sampling *sampling = w->sampling;
    const mb_network *network = w->network;
    int32_t block = sampling->block, known = sampling->count, next = 0;
    int rc = mb_sampling_reserve(sampling, w->at + block + 1, err);
    if (rc < 0)
        return rc;
    for (int32_t i = known; i < w->at + block; i++)
        sampling->tokens[i] = sampling->mask_id;
    sampling->count = w->at + block;
    int32_t from = mb_sampling_stop_from(sampling);
    w->stop_from = known > from ? known : from;
    w->forwards = 0;
    w->block_cache = false;
    if (network->block_begin &&
        (rc = network->block_begin(network->self, w->number, sampling->tokens + w->at, err)) < 0)
        return rc;
    rc = sampling->sampler->schedule == MB_SCHEDULE_FIXED ? denoise_fixed(w, err) : denoise_threshold(w, err);
    if (rc < 0)
        return rc;
    *finished = stopped(w);
    /* A seed token at `known - 1` was compared when it was appended. */
    mb_sampling_force(sampling, known > sampling->prompt ? known : sampling->prompt, w->at + block);
    if (!*finished) {
        rc = mb_sampling_commit(sampling, network, w->number, w->at, &next, err);
        if (rc < 0)
            return rc;
        append_seed(sampling, next);
    }
    if (network->block_end)
        rc = network->block_end(network->self, w->number, sampling->tokens + w->at, err);
    if (rc == MB_OK)
        mb_sampling_block_done(sampling, w->forwards);
    return rc;
}

/* The prompt's whole blocks into the cache, and the seed token where it ends with one of them. */
static int begin(mb_sampling *sampling, const mb_network *network, mb_error *err)
{
    int32_t block = sampling->block, prompt = sampling->prompt, whole = prompt / block * block, next = 0;
    if (whole == 0)
        return MB_OK;
    if (prompt == block && sampling->sampler->compat_prompt_bug) /* the reference tests "longer than B" */
        return network->forget ? network->forget(network->self, err) : MB_OK;
    int rc = mb_sampling_prefill(sampling, network, whole, &next, err);
    if (rc == MB_OK && prompt == whole) {
        rc = mb_sampling_reserve(sampling, prompt + 1, err);
        if (rc == MB_OK) {
            append_seed(sampling, next);
        }
    }
    return rc;
}

int mb_sample_fast_dllm(mb_sampling *sampling, const mb_network *network, mb_error *err)
{
    int32_t block = sampling->block;
    int32_t blocks = sampling->max_new_tokens / block > 0 ? sampling->max_new_tokens / block : 1;
    size_t slots = (size_t)block;
    struct work w = {.sampling = sampling, .network = network};
    bool finished = false;
    int rc = MB_OK;
    w.best = malloc(2 * slots * sizeof *w.best);
    w.confidence = malloc(2 * slots * sizeof *w.confidence);
    w.open = malloc(3 * slots * sizeof *w.open);
    if (!w.best || !w.confidence || !w.open) {
        rc = mb_no_memory(err, "the sampler's block of %d slots", block);
        goto out;
    }
    w.row_best = w.best + slots;
    w.row_confidence = w.confidence + slots;
    w.chosen = w.open + slots;
    w.wanted = w.chosen + slots;
    if (sampling->sub_block < 1 || block % sampling->sub_block != 0) {
        rc =
            mb_fail(err, MB_E_INPUT, "block %d is not a multiple of the sub-block %d", block, sampling->sub_block);
        goto out;
    }
    if ((rc = begin(sampling, network, err)) < 0)
        goto out;
    for (w.number = 0; w.number < blocks && !finished; w.number++) {
        /* Step 4: a stop token that came as the seed is noticed here. */
        if (!sampling->forced && mb_sampling_stop(sampling, mb_sampling_stop_from(sampling), sampling->count) >= 0)
            break;
        if (sampling->forced && !mb_sampling_forced_beyond(sampling, sampling->count))
            break;
        w.at = sampling->count / block * block;
        if ((rc = decode_block(&w, &finished, err)) < 0)
            goto out;
    }
    rc = MB_OK;
out:
    free(w.best);
    free(w.confidence);
    free(w.open);
    return rc;
}
