/*
 * latency.c - the cases of the latency pass: which there are, what fits the device together, prefill.
 *
 * All methods of a case are opened on one session. When their indices do not fit beside each other, they go in
 * groups, each with the reference in it, so that every ratio comes from blocks that took turns. A method that does
 * not fit even alone with the reference, or that does not support the shape, is a row with its reason.
 */
#include "driver/pass/latency.h"

#include "driver/os/os.h"
#include "driver/pass/pass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_CAP 1024

int mb_latency_event(mb_latency_case *c, const char *level, const char *who, const char *text, mb_error *err)
{
    char *line =
        mb_string_format("%s at %d tokens, batch %d, %d steps: %s", who, c->context, c->batch, c->steps, text);
    if (!line)
        return mb_no_memory(err, "an event");
    if (strcmp(level, "note") != 0) /* notes are many: they stand in v_events */
        mb_progress_note(&c->run->progress, "%s", line);
    int rc = mb_store_event(c->run->store, c->run->run_id, level, line, err);
    free(line);
    return rc;
}

int mb_latency_failed(mb_latency_case *c, mb_latency_slot *slot, const char *pass, const char *reason,
                      mb_error *err)
{
    int64_t cell = 0;
    slot->failed = true;
    c->run->failed_samples++;
    int rc = mb_run_cell(c->run, slot->arm, 0, pass, &cell, err);
    if (rc == MB_OK)
        rc = mb_store_cell_state(c->run->store, cell, "failed", reason, err);
    return rc == MB_OK ? mb_latency_event(c, "error", slot->arm->spec->label, reason, err) : rc;
}

/* ---- what fits ---- */

/* Device bytes beyond the weights of a session with these methods. */
static size_t bytes_needed(const mb_run *run, int32_t context, int32_t batch, int32_t steps, const mb_arm *arms,
                           size_t count)
{
    mb_memory_plan plan;
    mb_run_memory(run, batch, mb_latency_capacity(run, context), steps, arms, count, &plan);
    return plan.total - plan.weights;
}

static size_t bytes_free(const mb_run *run)
{
    mb_device_info info;
    run->kernels->info(run->device, &info);
    return info.arena_free;
}

static size_t reference_index(const mb_run *run)
{
    for (size_t i = 0; i < run->config->method_count; i++)
        if (run->arms[i].spec->method->caps & MB_CAP_LOSSLESS)
            return i;
    return run->config->method_count;
}

/* The reference and one other method beside it, whichever takes most: every comparison of this batch fits. */
static bool pairs_fit(const mb_run *run, int32_t context, int32_t batch, int32_t steps)
{
    size_t reference = reference_index(run), count = run->config->method_count, free_bytes = bytes_free(run);
    for (size_t i = 0; i < count; i++) {
        if (mb_arm_fault(run, &run->arms[i], context)) /* it is not even measured */
            continue;
        mb_arm pair[2] = {run->arms[i], run->arms[reference < count ? reference : i]};
        bool alone = i == reference || reference == count;
        if (bytes_needed(run, context, batch, steps, pair, alone ? 1 : 2) > free_bytes)
            return false;
    }
    return true;
}

int32_t mb_latency_largest(const mb_run *run, int32_t context, int32_t steps)
{
    int32_t batch = 0;
    for (int32_t b = 1; b <= BATCH_CAP && pairs_fit(run, context, b, steps); b *= 2)
        batch = b;
    return batch;
}

/* ---- opening ---- */

static int fill_cache(mb_latency_case *c, mb_error *err)
{
    mb_run *run = c->run;
    mb_random random = mb_random_named(run->config->seed, "latency prompts");
    if (run->config->latency.synthetic_cache)
        return mb_session_fill_random(c->session, c->context, run->config->seed, err);
    int32_t *ids = malloc((size_t)c->context * sizeof *ids);
    int rc = ids ? MB_OK : mb_no_memory(err, "%d random tokens", c->context);
    for (int32_t b = 0; rc == MB_OK && b < c->batch; b++) {
        for (int32_t i = 0; i < c->context; i++)
            ids[i] = (int32_t)mb_random_below(&random, (uint64_t)run->model_config.vocab);
        rc = mb_session_prefill(c->session, b, ids, (size_t)c->context, NULL, err);
    }
    free(ids);
    return rc;
}

/* Opens the methods [from, to) of order on one session; those that cannot run get their reason. */
static int open_group(mb_latency_case *c, const size_t *order, size_t count, size_t *opened, mb_error *err)
{
    mb_run *run = c->run;
    mb_session_request request = {.batch = c->batch,
                                  .capacity = mb_latency_capacity(run, c->context),
                                  .prefill_chunk = run->config->prefill_chunk,
                                  .graphs = run->config->graphs};
    int rc = mb_session_open(&c->session, run->model, &request, err);
    if (rc == MB_OK)
        rc = fill_cache(c, err);
    *opened = 0;
    for (size_t i = 0; rc == MB_OK && i < count; i++) {
        mb_latency_slot *slot = &c->slots[order[i]];
        bool unsupported = false;
        rc = mb_attender_open(&slot->attender, c->session, slot->arm->spec->method, slot->arm->spec->options,
                              c->steps, run->config->seed, &unsupported, err);
        if (rc != MB_OK && (unsupported || rc == MB_E_SAMPLE)) {
            snprintf(slot->reason, sizeof slot->reason, "%.250s", err->text);
            rc = MB_OK;
        }
        *opened = i + 1;
    }
    return rc;
}

static void close_group(mb_latency_case *c, const size_t *order, size_t opened)
{
    for (size_t i = opened; i-- > 0;) {
        mb_attender_close(c->slots[order[i]].attender);
        c->slots[order[i]].attender = NULL;
    }
    mb_session_close(c->session);
    c->session = NULL;
}

int mb_latency_groups(mb_latency_case *c, int (*work)(mb_latency_case *c, void *user, mb_error *err), void *user,
                      mb_error *err)
{
    mb_run *run = c->run;
    size_t reference = reference_index(run), next = 0, free_bytes = bytes_free(run);
    bool reference_done = reference == c->count;
    size_t *order = calloc(c->count + 1, sizeof *order);
    mb_arm *arms = calloc(c->count + 1, sizeof *arms);
    int rc = order && arms ? MB_OK : mb_no_memory(err, "the latency pass");
    /* A plug-in is timed in process like everybody, if its rehearsal went well. */
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        const char *fault = mb_arm_fault(run, c->slots[i].arm, c->context);
        if (fault)
            rc = mb_latency_failed(c, &c->slots[i], "latency", fault, err);
    }
    while (rc == MB_OK && (next < c->count || !reference_done)) {
        size_t n = 0, opened = 0;
        if (reference < c->count) {
            order[n] = reference;
            arms[n++] = run->arms[reference];
        }
        size_t first = n;
        for (; next < c->count; next++) {
            if (next == reference || c->slots[next].failed)
                continue;
            arms[n] = run->arms[next];
            size_t needed = bytes_needed(run, c->context, c->batch, c->steps, arms, n + 1);
            if (needed <= free_bytes) {
                order[n++] = next;
                continue;
            }
            if (n > first)
                break; /* it opens the next group */
            snprintf(c->slots[next].reason, sizeof c->slots[next].reason,
                     "does not fit: %.2f GiB beside the weights%s, %.2f GiB are free", (double)needed / 0x1p30,
                     first ? " together with the reference" : "", (double)free_bytes / 0x1p30);
        }
        if (n == first && reference_done)
            break;
        if (n == first && bytes_needed(run, c->context, c->batch, c->steps, arms, n) > free_bytes) {
            snprintf(c->slots[reference].reason, sizeof c->slots[reference].reason, "does not fit the device");
            break;
        }
        rc = open_group(c, order, n, &opened, err);
        if (rc == MB_OK)
            rc = work(c, user, err);
        close_group(c, order, opened);
        reference_done = true;
    }
    free(order);
    free(arms);
    return rc;
}

/* ---- a case ---- */

/* One prefill of random tokens, once per context: the same for every method, so it stands with the reference. */
static int time_prefill(mb_latency_case *c, mb_error *err)
{
    mb_run *run = c->run;
    size_t reference = reference_index(run);
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
    if (reference == c->count || bytes_needed(run, c->context, 1, c->steps, run->arms, 0) > bytes_free(run))
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

int mb_latency_case_open(mb_latency_case *c, mb_run *run, int32_t context, int32_t batch, int32_t steps,
                         mb_error *err)
{
    *c = (mb_latency_case){
        .run = run, .context = context, .batch = batch, .steps = steps, .count = run->config->method_count};
    c->audits = mb_random_named(run->config->seed + (uint64_t)context * 31 + (uint64_t)batch, "audits");
    c->slots = calloc(c->count, sizeof *c->slots);
    if (!c->slots)
        return mb_no_memory(err, "the latency pass");
    for (size_t i = 0; i < c->count; i++) {
        c->slots[i].arm = &run->arms[i];
        c->slots[i].audit.random = mb_random_named(run->config->seed + i, "audited forwards");
    }
    return MB_OK;
}

void mb_latency_case_close(mb_latency_case *c)
{
    for (size_t i = 0; c->slots && i < c->count; i++)
        free(c->slots[i].samples);
    free(c->slots);
    c->slots = NULL;
}

int mb_latency_stored(mb_run *run, const mb_latency_row *which, bool everyone, bool *stored, mb_error *err)
{
    int64_t reference = 0, cell = 0;
    const mb_arm *arm = mb_run_reference_arm(run, 0);
    int rc = MB_OK;
    *stored = arm && !run->flags.again_latency && !run->flags.profile && !run->flags.audit;
    if (!*stored)
        return MB_OK;
    rc = mb_run_cell(run, arm, 0, "latency", &reference, err);
    *stored = rc == MB_OK && mb_store_has_latency(run->store, reference, reference, which);
    for (size_t i = 0; rc == MB_OK && *stored && everyone && i < run->config->method_count; i++) {
        rc = mb_run_cell(run, &run->arms[i], 0, "latency", &cell, err);
        *stored = rc == MB_OK && mb_store_has_latency(run->store, cell, reference, which);
    }
    run->reused += *stored ? (everyone ? (int64_t)run->config->method_count : 1) : 0;
    return rc;
}

static int latency_case(mb_run *run, int32_t context, int32_t batch, int32_t steps, mb_latency_totals *totals,
                        mb_error *err)
{
    mb_latency_case c;
    char label[64];
    bool stored = false;
    mb_latency_row which = {.phase = "block", .context = context, .batch = batch, .steps = steps};
    int found = mb_latency_stored(run, &which, true, &stored, err);
    if (found != MB_OK || stored) {
        mb_progress_step(&run->progress, false);
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
    mb_progress_step(&run->progress, true);
    return rc == MB_OK && mb_interrupted ? mb_fail(err, MB_E_STOP, "interrupted") : rc;
}

int mb_latency_check(const mb_run *run, int32_t context, int32_t steps, mb_error *err)
{
    if (steps > run->model_config.block)
        return mb_fail(err, MB_E_INPUT,
                       "config key latency.steps holds %d but a block of this model has %d tokens", steps,
                       run->model_config.block);
    if (mb_latency_capacity(run, context) > run->model_config.positions)
        return mb_fail(err, MB_E_INPUT,
                       "config key latency.contexts holds %d but %s has %d positions (a block more is needed; "
                       "model.positions raises it for synthetic models)",
                       context, run->model_config.name, run->model_config.positions);
    return MB_OK;
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
    int32_t largest = rc == MB_OK && spec->largest_batch && context >= spec->largest_from
                          ? mb_latency_largest(run, context, steps)
                          : 0;
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
