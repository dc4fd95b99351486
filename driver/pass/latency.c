/*
 * latency.c - the latency pass: which cases there are, the batch that "largest" stands for, prefill, and the cells
 * of methods that were measured nowhere.
 */
#include "driver/pass/latency.h"

#include "driver/os/os.h"
#include "driver/pass/pass.h"
#include "driver/pass/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_CAP 1024

/* The reference and one other method beside it, whichever takes most: every comparison of this batch fits. */
static bool pairs_fit(const mb_latency_case *c, int32_t batch)
{
    const mb_run *run = c->run;
    size_t reference = mb_latency_reference(run), free_bytes = mb_latency_bytes_free(run);
    for (size_t i = 0; i < c->count; i++) {
        if (mb_arm_fault(run, &run->arms[i], c->context)) /* it is not even measured */
            continue;
        mb_arm pair[2] = {run->arms[i], run->arms[reference < c->count ? reference : i]};
        bool alone = i == reference || reference == c->count;
        if (mb_latency_bytes(c, batch, pair, alone ? 1 : 2) > free_bytes)
            return false;
    }
    return true;
}

/* The batch that "largest" stands for at the case's context; 0 = not even one sequence fits. */
static int32_t largest_batch(const mb_latency_case *c)
{
    int32_t batch = 0;
    for (int32_t b = 1; b <= BATCH_CAP && pairs_fit(c, b); b *= 2)
        batch = b;
    return batch;
}

/* ---- a case ---- */

/* One prefill of random tokens, once per context: the same for every method, so it stands with the reference. */
static int time_prefill(mb_latency_case *c, mb_error *err)
{
    mb_run *run = c->run;
    size_t reference = mb_latency_reference(run);
    mb_session_request request = {.batch = 1,
                                  .capacity = mb_latency_capacity(run, c->context),
                                  .prefill_chunk = run->config->prefill_chunk,
                                  .graphs = run->config->graphs};
    mb_session *session = NULL;
    mb_random random = mb_random_named(run->config->seed, "latency prefill");
    double us = 0;
    bool stored = false;
    mb_latency_row row = {.phase = "prefill",
                          .context = c->context,
                          .batch = 1,
                          .steps = c->steps,
                          .kept = true,
                          .timer = mb_latency_timer(run)};
    int rc = mb_latency_stored(run, &row, false, &stored, err);
    if (rc != MB_OK || stored)
        return rc;
    if (reference == c->count || mb_latency_bytes(c, 1, run->arms, 0) > mb_latency_bytes_free(run))
        return MB_OK;
    int32_t *ids = malloc((size_t)c->context * sizeof *ids);
    rc = ids ? MB_OK : mb_no_memory(err, "%d random tokens", c->context);
    for (int32_t i = 0; rc == MB_OK && i < c->context; i++)
        ids[i] = (int32_t)mb_random_below(&random, (uint64_t)run->model_config.vocab);
    mb_telemetry before, after;
    if (rc == MB_OK)
        rc = mb_session_open(&session, run->model, &request, err);
    if (rc == MB_OK) /* a short one first: the kernels of a prefill have not run yet */
        rc = mb_session_prefill(session, 0, ids, (size_t)(c->context < 1024 ? c->context : 1024), &us, err);
    mb_telemetry_read(run, &before);
    if (rc == MB_OK)
        rc = mb_session_prefill(session, 0, ids, (size_t)c->context, &us, err);
    mb_telemetry_read(run, &after);
    if (rc == MB_OK) {
        mb_telemetry_join(&before, &after);
        row.us = us;
        row.sm_mhz = after.sm_mhz; /* idle before: the clock of the load is the one at its end */
        row.throttle = before.throttle;
        row.temperature = before.temperature;
        row.power = before.power;
        row.other_processes = before.other_processes;
        rc = mb_latency_store_one(run, &run->arms[reference], &row, err);
    }
    mb_session_close(session);
    free(ids);
    return rc;
}

static int measure_group(mb_latency_case *c, void *user, mb_error *err)
{
    return c->run->flags.profile ? mb_latency_ranges(c, err) : mb_latency_measure(c, user, err);
}

static int latency_case(mb_run *run, int32_t context, int32_t batch, int32_t steps, mb_latency_totals *totals,
                        mb_error *err)
{
    const mb_plan_case planned = {.context = context, .batch = batch, .steps = steps};
    mb_latency_case c;
    char label[64];
    bool stored = false;
    mb_latency_row which = {.phase = "block", .context = context, .batch = batch, .steps = steps};
    int found = mb_latency_stored(run, &which, true, &stored, err);
    if (found != MB_OK || stored) {
        mb_progress_step(&run->progress, mb_plan_case_seconds(run, &planned), false);
        return found;
    }
    snprintf(label, sizeof label, "latency %d tokens, batch %d, %d steps", context, batch, steps);
    mb_progress_label(&run->progress, label);
    int rc = mb_latency_case_open(&c, run, context, batch, steps, err);
    if (rc == MB_OK)
        rc = mb_latency_groups(&c, measure_group, totals, err);
    if (rc == MB_OK && !run->flags.profile)
        rc = mb_latency_store(&c, totals, err);
    mb_latency_case_close(&c);
    mb_progress_step(&run->progress, mb_plan_case_seconds(run, &planned), true);
    return rc == MB_OK && mb_interrupted ? mb_fail(err, MB_E_STOP, "interrupted") : rc;
}

/* A method that was measured nowhere: its cell says why. */
static int store_reasons(mb_run *run, const mb_latency_totals *totals, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < run->config->method_count; i++) {
        int64_t cell = 0;
        if (totals->measured[i] || !totals->reasons[i][0])
            continue;
        rc = mb_run_cell(run, &run->arms[i], 0, "latency", &cell, err);
        if (rc == MB_OK)
            rc = mb_store_cell_state(run->store, cell, "skipped", totals->reasons[i], err);
    }
    return rc;
}

/* All batches of one context, the largest last. */
static int latency_context(mb_run *run, int32_t context, int32_t steps, mb_latency_totals *totals, mb_error *err)
{
    const mb_latency_spec *spec = &run->config->latency;
    bool seen = false;
    int rc = mb_latency_check(run, context, steps, err);
    mb_latency_case c = {.run = run, .context = context, .steps = steps, .count = run->config->method_count};
    int32_t largest = rc == MB_OK && spec->largest_batch && context >= spec->largest_from ? largest_batch(&c) : 0;
    for (size_t b = 0; rc == MB_OK && b < spec->batches.count; b++) {
        seen = seen || spec->batches.values[b] == largest;
        rc = latency_case(run, context, spec->batches.values[b], steps, totals, err);
    }
    return rc == MB_OK && largest > 0 && !seen ? latency_case(run, context, largest, steps, totals, err) : rc;
}

int mb_latency_pass(mb_run *run, mb_error *err)
{
    const mb_latency_spec *spec = &run->config->latency;
    size_t methods = run->config->method_count;
    mb_latency_totals totals = {.measured = calloc(methods, sizeof *totals.measured),
                                .opaque_told = calloc(methods, sizeof *totals.opaque_told),
                                .reasons = calloc(methods, sizeof *totals.reasons)};
    int rc =
        totals.measured && totals.opaque_told && totals.reasons ? MB_OK : mb_no_memory(err, "the latency pass");
    for (size_t x = 0; rc == MB_OK && x < spec->contexts.count; x++) {
        for (size_t s = 0; rc == MB_OK && s < spec->steps.count; s++) {
            int32_t steps = spec->steps.values[s] ? spec->steps.values[s] : run->model_config.block;
            rc = latency_context(run, spec->contexts.values[x], steps, &totals, err);
            mb_latency_case c = {
                .run = run, .context = spec->contexts.values[x], .batch = 1, .steps = steps, .count = methods};
            if (rc == MB_OK && s == 0 && spec->prefill && !run->flags.profile)
                rc = time_prefill(&c, err);
        }
    }
    if (rc == MB_OK && !run->flags.profile)
        rc = store_reasons(run, &totals, err);
    bool measured = false; /* where all was found in the store, its gate stands */
    for (size_t i = 0; i < methods && totals.measured; i++)
        measured = measured || totals.measured[i];
    if (rc == MB_OK && !run->flags.profile && measured)
        rc = mb_latency_store_gate(run, &totals, err);
    if (rc == MB_OK && !run->flags.profile)
        rc = mb_latency_requests(run, err);
    free(totals.measured);
    free(totals.opaque_told);
    free(totals.reasons);
    return rc;
}
