/*
 * latency.c - the pass that times: fixed steps per block, no early stop, every method on the same cache in the
 * same process with the same kernels, one block of each in turn until the medians stand still.
 *
 * Inside a timed forward: embedding, all layers with the method's hooks, logits, the sampler's read-back.
 * Outside: opening, filling or prefilling the cache, storing.
 */
#include "driver/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_UP_BLOCKS 2

/* What one method gathered in one case. */
typedef struct latency_arm {
    const mb_arm *arm;
    mb_attender *attender;
    mb_decode_result result;
    double *block_us;
    size_t block_count;
    bool done;
} latency_arm;

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Relative standard error of the median: 1.2533 sigma / sqrt(n), sigma from the interquartile range so that a
 * single outlier does not keep the clock running. */
static double median_error(const double *values, size_t n)
{
    if (n < 4)
        return INFINITY;
    double *sorted = malloc(n * sizeof *sorted);
    if (!sorted)
        return INFINITY;
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    double median = sorted[n / 2], spread = (sorted[3 * n / 4] - sorted[n / 4]) / 1.349;
    free(sorted);
    return median > 0 ? 1.2533 * spread / sqrt((double)n) / median : INFINITY;
}

static int measure_block(mb_run *run, mb_session *session, latency_arm *slot, int32_t steps, char *err, size_t err_cap)
{
    double before = slot->result.decode_us; /* counts the block alone, without the method's set-up of the prefix */
    int rc = mb_decode_fixed_work(session, slot->attender, 1, steps, &mb_interrupted, &slot->result, err, err_cap);
    double us = slot->result.decode_us - before;
    (void)run;
    if (rc != MB_OK)
        return rc;
    double *grown = realloc(slot->block_us, (slot->block_count + 1) * sizeof *grown);
    if (!grown)
        return mb_fail(err, err_cap, MB_E_SYSTEM, "no memory for latency samples");
    slot->block_us = grown;
    slot->block_us[slot->block_count++] = us;
    return MB_OK;
}

static size_t append(mb_latency_row *rows, size_t n, const char *phase, const double *us, size_t count,
                     const mb_latency_row *like)
{
    for (size_t i = 0; i < count; i++) {
        rows[n] = *like;
        rows[n].phase = phase;
        rows[n++].us = us[i];
    }
    return n;
}

static int store_case(mb_run *run, const latency_arm *slot, const mb_latency_row *like, char *err, size_t err_cap)
{
    const mb_decode_result *r = &slot->result;
    size_t total = r->first_count + r->later_count + r->commit_count + slot->block_count, n = 0;
    mb_latency_row *rows = calloc(total + 1, sizeof *rows);
    int64_t cell = 0;
    int rc = rows ? mb_run_cell(run, slot->arm, 0, "latency", &cell, err, err_cap)
                  : mb_fail(err, err_cap, MB_E_SYSTEM, "no memory for latency samples");
    if (rc == MB_OK) {
        n = append(rows, n, "first_step", r->first_us, r->first_count, like);
        n = append(rows, n, "later_step", r->later_us, r->later_count, like);
        n = append(rows, n, "commit", r->commit_us, r->commit_count, like);
        n = append(rows, n, "block", slot->block_us, slot->block_count, like);
        rc = mb_store_latency(run->store, cell, rows, n, err, err_cap);
    }
    free(rows);
    return rc;
}

/* Forgets the warm-up's samples. */
static void reset(latency_arm *slot)
{
    mb_decode_result_free(&slot->result);
    memset(&slot->result, 0, sizeof slot->result);
    slot->block_count = 0;
}

static int measure_case(mb_run *run, mb_session *session, latency_arm *slots, size_t count, int32_t steps, char *err,
                        size_t err_cap)
{
    const mb_latency_spec *spec = &run->config->latency;
    int rc = MB_OK;
    for (int w = 0; rc == MB_OK && w < WARM_UP_BLOCKS; w++)
        for (size_t i = 0; rc == MB_OK && i < count; i++)
            rc = measure_block(run, session, &slots[i], steps, err, err_cap);
    for (size_t i = 0; i < count; i++)
        reset(&slots[i]);
    uint64_t start = mb_clock_ns();
    for (int round = 0; rc == MB_OK && round < spec->blocks_max; round++) {
        bool all = true;
        for (size_t i = 0; rc == MB_OK && i < count; i++) {
            if (slots[i].done)
                continue;
            rc = measure_block(run, session, &slots[i], steps, err, err_cap);
            slots[i].done = round + 1 >= spec->blocks_min &&
                            median_error(slots[i].block_us, slots[i].block_count) < spec->error;
            all = all && slots[i].done;
        }
        if (all || (round + 1 >= spec->blocks_min &&
                    (double)(mb_clock_ns() - start) * 1e-9 > spec->seconds * (double)count))
            break;
    }
    return rc;
}

/* One (context, batch, steps): every method opened on one session. */
static int latency_case(mb_run *run, int32_t context, int32_t batch, int32_t steps, char *err, size_t err_cap)
{
    mb_session *session = NULL;
    latency_arm *slots = calloc(run->config->method_count, sizeof *slots);
    size_t count = 0, opened = 0;
    mb_session_request request = {.batch = batch, .capacity = context + 2 * run->shape.block,
                                  .prefill_chunk = run->config->prefill_chunk, .graphs = run->config->graphs};
    mb_latency_row like = {.context = context, .batch = batch, .steps = steps, .throttle = -1, .temperature = NAN,
                           .power = NAN, .other_processes = -1, .kept = true, .timer = "host_clock"};
    int rc = slots ? mb_session_open(&session, run->model, &request, err, err_cap)
                   : mb_fail(err, err_cap, MB_E_SYSTEM, "no memory for the latency pass");
    if (rc == MB_OK)
        rc = mb_session_fill_random(session, context, run->config->seed, err, err_cap);
    for (size_t i = 0; rc == MB_OK && i < run->config->method_count; i++) {
        bool unsupported = false;
        latency_arm *slot = &slots[count];
        slot->arm = &run->arms[i];
        rc = mb_attender_open(&slot->attender, session, slot->arm->spec->method, slot->arm->spec->options, steps,
                              run->config->seed, &unsupported, err, err_cap);
        if (rc == MB_OK) {
            opened = ++count;
        } else if (unsupported) {
            int64_t cell = 0;
            char reason[256];
            snprintf(reason, sizeof reason, "%s", err);
            rc = mb_run_cell(run, slot->arm, 0, "latency", &cell, err, err_cap);
            if (rc == MB_OK)
                rc = mb_store_cell_state(run->store, cell, "skipped", reason, err, err_cap);
        }
    }
    if (rc == MB_OK)
        rc = measure_case(run, session, slots, count, steps, err, err_cap);
    for (size_t i = 0; rc == MB_OK && i < count; i++)
        rc = store_case(run, &slots[i], &like, err, err_cap);
    for (size_t i = opened; i-- > 0;)
        mb_attender_close(slots[i].attender);
    for (size_t i = 0; slots && i < count; i++) {
        mb_decode_result_free(&slots[i].result);
        free(slots[i].block_us);
    }
    mb_session_close(session);
    free(slots);
    return rc;
}

int mb_latency_pass(mb_run *run, char *err, size_t err_cap)
{
    const mb_latency_spec *spec = &run->config->latency;
    int rc = MB_OK;
    for (size_t c = 0; rc == MB_OK && c < spec->context_count; c++)
        for (size_t b = 0; rc == MB_OK && b < spec->batch_count; b++)
            for (size_t s = 0; rc == MB_OK && s < spec->step_count; s++) {
                char label[64];
                int32_t steps = spec->steps[s] ? spec->steps[s] : run->shape.block;
                if (steps > run->shape.block)
                    return mb_fail(err, err_cap, MB_E_INPUT,
                                   "config key latency.steps holds %d but a block of this model has %d tokens", steps,
                                   run->shape.block);
                if (spec->contexts[c] + 2 * run->shape.block > run->shape.positions)
                    return mb_fail(err, err_cap, MB_E_INPUT,
                                   "config key latency.contexts holds %d but %s has %d positions", spec->contexts[c],
                                   run->shape.name, run->shape.positions);
                snprintf(label, sizeof label, "latency %d tokens, batch %d, %d steps", spec->contexts[c],
                         spec->batches[b], steps);
                mb_progress_label(&run->progress, label);
                rc = latency_case(run, spec->contexts[c], spec->batches[b], steps, err, err_cap);
                mb_progress_step(&run->progress, true);
                if (rc == MB_OK && mb_interrupted)
                    rc = MB_E_STOP;
            }
    return rc;
}
