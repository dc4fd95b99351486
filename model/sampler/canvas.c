/*
 * canvas.c - DiffusionGemma's sampler: a canvas of random tokens is denoised; a step accepts the drawn tokens of
 * lowest entropy and puts new random ones in place of the others; the best tokens of the last step are the text.
 *
 * Source: generation_diffusion_gemma.py of transformers 5.24 (EntropyBoundSampler, after arXiv 2505.24857;
 * LinearTemperatureScheduleLogitsProcessor; StableAndConfidentStoppingCriteria). A slot is accepted when the
 * entropies of those before it, in rising order, add up to at most the bound. A canvas ends early when its best
 * tokens are those of the last `stable` steps and their mean entropy is below `confident`. Temperatures are fp32
 * as there; entropies are summed in double. Our own random numbers: single texts differ from the reference's,
 * given its draws they do not.
 *
 * To a method a slot counts as masked until a step has accepted it; an accepted slot can be open again after the
 * next.
 */
#include "model/sampler/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 256 };

struct canvas {
    mb_sampling *sampling;
    const mb_network *network;
    int32_t at, block, steps; /* position of slot 0; number of the canvas; most steps */
    float *logits;            /* [vocab] of a row */
    double entropy[SLOTS];    /* of every slot, at this step's temperature */
    int32_t best[SLOTS], drawn[SLOTS], noise[SLOTS];
    int32_t *history;    /* [stable][SLOTS] best tokens of the last steps, oldest first */
    uint8_t open[SLOTS]; /* 1 = not accepted by the last step */
    mb_random random;
};

/* cold + (hot - cold) * left / steps, `left` counting down to 1. */
static float temperature_at(const struct canvas *c, int32_t step)
{
    const mb_sampling *s = c->sampling;
    float left = (float)(c->steps - step + 1) / (float)c->steps;
    return (float)s->canvas.cold + (float)(s->sampler->temperature - s->canvas.cold) * left;
}

static int draw_noise(struct canvas *c, int32_t *tokens, mb_error *err)
{
    if (c->sampling->draws)
        return c->sampling->draws->noise(c->sampling->draws->self, tokens, err);
    for (int32_t i = 0; i < c->sampling->block; i++)
        tokens[i] = (int32_t)mb_random_below(&c->random, (uint64_t)c->sampling->vocab);
    return MB_OK;
}

/* Entropy, best and drawn token of one row of logits. */
static int read_row(struct canvas *c, int32_t row, float temperature, mb_error *err)
{
    const int32_t vocab = c->sampling->vocab;
    int rc = c->network->logits(c->network->self, row, c->logits, err);
    if (rc < 0)
        return rc;
    int32_t best = 0;
    for (int32_t i = 0; i < vocab; i++) {
        c->logits[i] /= temperature;
        best = c->logits[i] > c->logits[best] ? i : best;
    }
    double sum = 0, weighted = 0, top = c->logits[best];
    for (int32_t i = 0; i < vocab; i++) {
        double share = exp(c->logits[i] - top);
        sum += share;
        weighted += share * (c->logits[i] - top);
    }
    c->best[row] = best;
    c->entropy[row] = log(sum) - weighted / sum;
    double left = mb_random_unit(&c->random) * sum;
    int32_t drawn = -1;
    for (int32_t i = 0; i < vocab && drawn < 0; i++) {
        left -= exp(c->logits[i] - top);
        drawn = left < 0 ? i : -1;
    }
    c->drawn[row] = drawn < 0 ? best : drawn; /* rounding may leave nothing at the end */
    return MB_OK;
}

/* Accepts in the order of entropy, ties to the lower slot. Returns how many. */
static int32_t accept(struct canvas *c, int32_t *slots)
{
    const int32_t block = c->sampling->block;
    double before = 0;
    int32_t accepted = 0;
    bool taken[SLOTS] = {false};
    memset(c->open, 1, (size_t)block);
    for (int32_t round = 0; round < block; round++) {
        int32_t next = -1;
        for (int32_t i = 0; i < block; i++)
            if (!taken[i] && (next < 0 || c->entropy[i] < c->entropy[next]))
                next = i;
        if (!(before <= c->sampling->sampler->eb_threshold))
            break;
        taken[next] = true;
        c->open[next] = 0;
        slots[accepted++] = next;
        before += c->entropy[next];
    }
    return accepted;
}

/* Whether the canvas may end here, and its best tokens join the history. */
static bool settled(struct canvas *c, int32_t step)
{
    const mb_sampling *s = c->sampling;
    const size_t bytes = (size_t)s->block * sizeof *c->best;
    const int32_t kept = s->canvas.stable;
    bool stable = step > kept;
    double mean = 0;
    for (int32_t k = 0; k < kept && stable; k++)
        stable = memcmp(c->history + (size_t)k * SLOTS, c->best, bytes) == 0;
    for (int32_t k = 0; k + 1 < kept; k++)
        memcpy(c->history + (size_t)k * SLOTS, c->history + (size_t)(k + 1) * SLOTS, bytes);
    if (kept > 0)
        memcpy(c->history + (size_t)(kept - 1) * SLOTS, c->best, bytes);
    for (int32_t i = 0; i < s->block; i++)
        mean += c->entropy[i] / s->block;
    return stable && mean < s->canvas.confident;
}

/* One step: forward, acceptance, new noise. */
static int one_step(struct canvas *c, int32_t step, bool *done, mb_error *err)
{
    mb_sampling *s = c->sampling;
    const mb_network *network = c->network;
    int32_t *canvas = s->tokens + c->at, ids[SLOTS], slots[SLOTS], positions[SLOTS], tokens[SLOTS], masked = 0;
    float probability[SLOTS], temperature = temperature_at(c, step);
    for (int32_t i = 0; i < s->block; i++)
        masked += c->open[i];
    int rc = network->canvas(network->self, c->open, step > 1 ? temperature_at(c, step - 1) : temperature, err);
    if (rc >= 0)
        rc = network->denoise(network->self, step, canvas, s->block, 0, ids, probability, err);
    for (int32_t i = 0; i < s->block && rc >= 0; i++)
        rc = read_row(c, i, temperature, err);
    if (rc >= 0 && s->draws)
        rc = s->draws->draw(s->draws->self, step, c->drawn, err);
    if (rc < 0)
        return rc;
    int32_t accepted = accept(c, slots);
    for (int32_t i = 0; i < accepted; i++) {
        positions[i] = c->at + slots[i];
        tokens[i] = canvas[slots[i]] = c->drawn[slots[i]];
    }
    rc = draw_noise(c, c->noise, err);
    for (int32_t i = 0; i < s->block && rc >= 0; i++)
        if (c->open[i])
            canvas[i] = c->noise[i];
    mb_sampling_event(s, &(mb_trace_step){.block = c->block,
                                          .step = step,
                                          .masked_before = masked,
                                          .kind = 'd',
                                          .prefix = s->cached,
                                          .rows = s->block,
                                          .positions = positions,
                                          .tokens = tokens,
                                          .count = accepted});
    *done = settled(c, step);
    return rc;
}

static int one_canvas(struct canvas *c, mb_error *err)
{
    mb_sampling *s = c->sampling;
    const mb_network *network = c->network;
    int32_t step = 0;
    bool done = false;
    memset(c->open, 1, (size_t)s->block);
    int rc = draw_noise(c, s->tokens + c->at, err);
    if (rc >= 0 && network->canvas)
        rc = network->canvas(network->self, c->open, temperature_at(c, 1), err);
    if (rc >= 0 && network->block_begin)
        rc = network->block_begin(network->self, c->block, s->tokens + c->at, err);
    while (rc >= 0 && !done && step < c->steps)
        rc = one_step(c, ++step, &done, err);
    if (rc < 0)
        return rc;
    memcpy(s->tokens + c->at, c->best, (size_t)s->block * sizeof *c->best);
    s->count = c->at + s->block;
    mb_sampling_force(s, c->at, s->count);
    mb_sampling_block_done(s, step);
    memset(c->open, 0, (size_t)s->block);
    return network->canvas(network->self, c->open, temperature_at(c, 1), err);
}

int mb_sample_canvas(mb_sampling *sampling, const mb_network *network, mb_error *err)
{
    struct canvas *c = calloc(1, sizeof *c);
    int32_t next = 0, end = (int32_t)mb_sampling_length(sampling, sampling->prompt);
    int rc = c ? MB_OK : mb_no_memory(err, "a canvas");
    if (rc == MB_OK && (!network->canvas || !network->logits || sampling->vocab < 1))
        rc = mb_fail(err, MB_E_BUG, "a canvas needs a network with logits");
    if (rc == MB_OK) {
        c->sampling = sampling;
        c->network = network;
        c->steps = sampling->sampler->steps;
        c->random = mb_random_named(sampling->seed, "canvas");
        c->logits = malloc((size_t)sampling->vocab * sizeof *c->logits);
        c->history = calloc((size_t)sampling->canvas.stable + 1, SLOTS * sizeof *c->history);
        if (!c->logits || !c->history)
            rc = mb_no_memory(err, "a canvas");
    }
    if (rc == MB_OK)
        rc = mb_sampling_reserve(sampling, end + 1, err);
    if (rc >= 0)
        rc = mb_sampling_prefill(sampling, network, sampling->prompt, &next, err);
    for (int32_t at = sampling->prompt; rc >= 0 && at < end; at += sampling->block, c->block++) {
        c->at = at;
        rc = one_canvas(c, err);
        const int32_t from = mb_sampling_stop_from(sampling);
        const bool last = at + sampling->block >= end ||
                          (rc >= 0 && mb_sampling_stop(sampling, at > from ? at : from, sampling->count) >= 0);
        if (rc >= 0 && !last)
            rc = mb_sampling_commit(sampling, network, c->block, at, &next, err);
        if (rc >= 0 && network->block_end)
            rc = network->block_end(network->self, c->block, sampling->tokens + at, err);
        if (last)
            break;
    }
    if (c) {
        free(c->logits);
        free(c->history);
    }
    free(c);
    return rc;
}
