/*
 * latency_common.c - what the passes over fixed work share: a case and its slots, the groups of methods that fit
 * the device together, telemetry, events, and the median.
 *
 * All methods of a case are opened on one session. When their indices do not fit beside each other, they go in
 * groups, each with the reference in it, so that every ratio comes from blocks that took turns. A method that does
 * not fit even alone with the reference, or that does not support the shape, is a row with its reason.
 */
#include "driver/pass/latency.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- words and numbers ---- */

mb_time_phase mb_time_phase_of(mb_phase phase)
{
    return phase == MB_PHASE_COMMIT       ? MB_TIME_COMMIT
           : phase == MB_PHASE_FIRST_STEP ? MB_TIME_FIRST
                                          : MB_TIME_LATER;
}

const char *mb_time_phase_name(mb_time_phase phase)
{
    static const mb_phase forwards[] = {MB_PHASE_FIRST_STEP, MB_PHASE_LATER_STEP, MB_PHASE_COMMIT};
    return phase == MB_TIME_BLOCK ? "block" : mb_phase_name(forwards[phase]);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double mb_median(double *values, size_t n)
{
    if (n == 0)
        return NAN;
    qsort(values, n, sizeof *values, compare_doubles);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

/* ---- telemetry ---- */

const char *mb_latency_timer(const mb_run *run)
{
    return strcmp(run->kernels->name, "cpu") == 0 ? "host_clock" : "cuda_event";
}

void mb_telemetry_read(const mb_run *run, mb_telemetry *telemetry)
{
    *telemetry = (mb_telemetry){.throttle = -1, .temperature = NAN, .power = NAN, .other_processes = -1};
    if (run->kernels->telemetry)
        run->kernels->telemetry(run->device, telemetry);
}

void mb_telemetry_join(mb_telemetry *state, const mb_telemetry *other)
{
    if (other->sm_mhz > 0 && (state->sm_mhz <= 0 || other->sm_mhz < state->sm_mhz))
        state->sm_mhz = other->sm_mhz;
    if (other->throttle >= 0)
        state->throttle = state->throttle >= 0 ? state->throttle | other->throttle : other->throttle;
    state->temperature = fmax(state->temperature, other->temperature); /* fmax prefers a number to NAN */
    state->power = fmax(state->power, other->power);
    if (other->other_processes > state->other_processes)
        state->other_processes = other->other_processes;
}

/* ---- a case ---- */

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

size_t mb_latency_bytes(const mb_latency_case *c, int32_t batch, const mb_arm *arms, size_t count)
{
    mb_memory_plan plan;
    mb_run_memory(c->run, batch, mb_latency_capacity(c->run, c->context), c->steps, arms, count, &plan);
    return plan.total - plan.weights;
}

size_t mb_latency_bytes_free(const mb_run *run)
{
    mb_device_info info;
    run->kernels->info(run->device, &info);
    return info.arena_free;
}

size_t mb_latency_reference(const mb_run *run)
{
    for (size_t i = 0; i < run->config->method_count; i++)
        if (run->arms[i].spec->method->caps & MB_CAP_LOSSLESS)
            return i;
    return run->config->method_count;
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

/* A walk over the slots of a case in groups that fit the device. */
struct groups {
    size_t *order;      /* slots of the present group, the reference first */
    mb_arm *arms;       /* theirs, to plan with */
    size_t count, next; /* of order; the first slot that was in no group yet */
    size_t reference, free_bytes;
    bool reference_done;
};

/* A plug-in is timed in process like everybody, if its rehearsal went well. */
static int refuse_faults(mb_latency_case *c, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        const char *fault = mb_arm_fault(c->run, c->slots[i].arm, c->context);
        if (fault)
            rc = mb_latency_failed(c, &c->slots[i], "latency", fault, err);
    }
    return rc;
}

/* Slots from `next` on that fit beside those in the group; the first that does not begins the next group, unless
 * it would not fit there either. */
static void gather(mb_latency_case *c, struct groups *g)
{
    const size_t first = g->count;
    for (; g->next < c->count; g->next++) {
        mb_latency_slot *slot = &c->slots[g->next];
        if (g->next == g->reference || slot->failed)
            continue;
        g->arms[g->count] = *slot->arm;
        size_t needed = mb_latency_bytes(c, c->batch, g->arms, g->count + 1);
        if (needed <= g->free_bytes) {
            g->order[g->count++] = g->next;
            continue;
        }
        if (g->count > first)
            return;
        snprintf(slot->reason, sizeof slot->reason,
                 "does not fit: %.2f GiB beside the weights%s, %.2f GiB are free", (double)needed / 0x1p30,
                 first ? " together with the reference" : "", (double)g->free_bytes / 0x1p30);
    }
}

/* False: all that can run have had their group. */
static bool next_group(mb_latency_case *c, struct groups *g)
{
    const bool has_reference = g->reference < c->count;
    if (g->next >= c->count && g->reference_done)
        return false;
    g->count = 0;
    if (has_reference) {
        g->order[0] = g->reference;
        g->arms[g->count++] = *c->slots[g->reference].arm;
    }
    gather(c, g);
    if (g->count == (size_t)has_reference) { /* nobody beside the reference */
        if (g->reference_done)
            return false;
        if (mb_latency_bytes(c, c->batch, g->arms, g->count) > g->free_bytes) {
            mb_latency_slot *slot = &c->slots[g->reference];
            snprintf(slot->reason, sizeof slot->reason, "does not fit the device");
            return false;
        }
    }
    g->reference_done = true;
    return true;
}

int mb_latency_groups(mb_latency_case *c, int (*work)(mb_latency_case *c, void *user, mb_error *err), void *user,
                      mb_error *err)
{
    struct groups g = {.order = calloc(c->count + 1, sizeof *g.order),
                       .arms = calloc(c->count + 1, sizeof *g.arms),
                       .reference = mb_latency_reference(c->run),
                       .free_bytes = mb_latency_bytes_free(c->run)};
    g.reference_done = g.reference == c->count;
    int rc = g.order && g.arms ? refuse_faults(c, err) : mb_no_memory(err, "the latency pass");
    while (rc == MB_OK && next_group(c, &g)) {
        size_t opened = 0;
        rc = open_group(c, g.order, g.count, &opened, err);
        if (rc == MB_OK)
            rc = work(c, user, err);
        close_group(c, g.order, opened);
    }
    free(g.order);
    free(g.arms);
    return rc;
}
