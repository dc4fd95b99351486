/*
 * latency_case.c - the measuring itself. The methods of a case take turns, one block of fixed work each, on the
 * same cache, in the same process, so that a drift of the clock meets all of them.
 *
 * Inside a timed forward: embedding, all layers with the method's hooks, logits, best tokens. Outside: uploading
 * the block (inputs rotate, the same for all methods, so that no output can be used again), reading the tokens
 * back, step hooks, telemetry. A block's time is wall time over all of its forwards with the host's work between
 * them, telemetry excluded.
 *
 * Where graphs are possible, both launch modes are tried on the same inputs (the predicted tokens must agree) and
 * the faster one is measured: for the reference as for everyone else. Warm-up ends when the medians of two
 * consecutive blocks agree; measuring when the median's relative standard error is small enough, or at the cap.
 */
#include "driver/pass/latency.h"

#include "driver/os/os.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_AGREEMENT 0.02
#define WARM_BLOCKS 8 /* cap of the warm-up */
#define SAMPLES_MIN 10
#define TELEMETRY_NS 20000000u /* the driver refreshes its own readings no faster */
#define SAME_INPUTS 1000003u   /* rotation of the blocks that both launch modes run */
#define AUDITED_BLOCKS 0.4     /* share of blocks with audited forwards under --audit */
#define AUDITED_FORWARDS 0.15  /* of the forwards of such a block */

/* ---- one block ---- */

static int add_sample(mb_latency_case *c, mb_time_phase phase, double us, const mb_telemetry *state)
{
    mb_latency_slot *slot = c->current;
    if (slot->count == slot->capacity) {
        size_t capacity = slot->capacity ? 2 * slot->capacity : 256;
        mb_time_sample *grown = realloc(slot->samples, capacity * sizeof *grown);
        if (!grown)
            return MB_E_SYSTEM;
        slot->samples = grown;
        slot->capacity = capacity;
    }
    slot->samples[slot->count++] = (mb_time_sample){.phase = phase, .graph = c->graph, .us = us, .state = *state};
    return MB_OK;
}

/* The device's state now, read again only when the last reading is old. */
static void look(mb_latency_case *c, mb_telemetry *now, bool always)
{
    uint64_t clock = mb_clock_ns();
    if (always || clock - c->telemetry_ns > TELEMETRY_NS) {
        mb_telemetry_read(c->run, now);
        c->telemetry_ns = clock;
    } else {
        *now = c->before;
    }
}

static void forward_ended(void *user, const mb_forward_report *report)
{
    mb_latency_case *c = user;
    mb_telemetry now, state = c->before;
    look(c, &now, false);
    mb_telemetry_join(&state, &now);
    mb_telemetry_join(&c->block_state, &now);
    c->before = now;
    if (isnan(report->us)) {
        c->spoiled = true;
    } else if (c->recording && report->replayed == c->graph) {
        mb_time_phase phase = mb_time_phase_of(report->phase);
        if (add_sample(c, phase, report->us, &state) != MB_OK)
            c->spoiled = true;
    }
    if (report->replayed != c->graph)
        c->spoiled = true; /* a forward that came up for the first time ran eagerly */
}

/* rotation 0: the slot's next inputs in turn. The median of the block's steps goes into the slot's window. */
static int run_block(mb_latency_case *c, mb_latency_slot *slot, bool graph, bool recording, uint64_t rotation,
                     mb_error *err)
{
    mb_run *run = c->run;
    mb_decode_result result = {0};
    mb_measure measure = {.forward = forward_ended, .user = c};
    mb_error why = {0};
    if (run->flags.audit && rotation == 0) {
        slot->audit.share = mb_random_unit(&c->audits) < AUDITED_BLOCKS ? AUDITED_FORWARDS : 0;
        measure.audit = &slot->audit;
    }
    c->current = slot;
    c->graph = graph;
    c->recording = recording;
    c->spoiled = false;
    mb_session_use_graphs(c->session, graph);
    mb_session_measure(c->session, &measure);
    mb_session_rotate(c->session, rotation ? rotation : slot->turns++);
    look(c, &c->before, true);
    c->block_state = c->before;
    int rc = mb_decode_fixed_work(c->session, slot->attender, 1, c->steps, &mb_interrupted, &result, &why);
    mb_session_measure(c->session, NULL);
    if (rc == MB_E_SAMPLE) {
        rc = mb_latency_failed(c, slot, "latency", why.text, err);
        goto out;
    }
    if (rc != MB_OK) {
        mb_fail(err, rc, "%s", why.text);
        goto out;
    }
    if (recording && !c->spoiled && add_sample(c, MB_TIME_BLOCK, result.decode_us, &c->block_state) != MB_OK)
        rc = mb_no_memory(err, "latency samples");
    slot->digest[graph] = result.digest;
    slot->window[graph] = result.later_count ? mb_median(result.later_us, result.later_count)
                                             : mb_median(result.first_us, result.first_count);
out:
    mb_decode_result_free(&result);
    return rc;
}

/* ---- when to stop ---- */

/* Relative standard error of the median: 1.2533 sigma / sqrt(n), sigma from the interquartile range so that a
 * single outlier does not keep the clock running. Of the headline's later steps, or first steps with T = 1. */
static double median_error(const mb_latency_case *c, const mb_latency_slot *slot, size_t *n)
{
    mb_time_phase wanted = c->steps > 1 ? MB_TIME_LATER : MB_TIME_FIRST;
    double *values = malloc((slot->count + 1) * sizeof *values), error = INFINITY;
    *n = 0;
    for (size_t i = 0; values && i < slot->count; i++)
        if (slot->samples[i].phase == wanted && slot->samples[i].graph == slot->graph)
            values[(*n)++] = slot->samples[i].us;
    if (values && *n >= SAMPLES_MIN) {
        double median = mb_median(values, *n), spread = (values[3 * *n / 4] - values[*n / 4]) / 1.349;
        error = median > 0 ? 1.2533 * spread / sqrt((double)*n) / median : INFINITY;
    }
    free(values);
    return error;
}

static bool enough(const mb_latency_case *c, const mb_latency_slot *slot)
{
    size_t n = 0;
    median_error(c, slot, &n);
    return n >= SAMPLES_MIN;
}

static void drop_samples(mb_latency_slot *slot, bool graph)
{
    size_t kept = 0;
    for (size_t i = 0; i < slot->count; i++)
        if (slot->samples[i].graph != graph)
            slot->samples[kept++] = slot->samples[i];
    slot->count = kept;
}

static bool runs(const mb_latency_slot *slot)
{
    return slot->attender && !slot->failed;
}

/* ---- stages ---- */

/* One block of every method that can be replayed, in one launch mode. recorded: it counts, on the inputs that both
 * modes have in common. */
static int run_mode(mb_latency_case *c, bool graph, bool recorded, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        mb_latency_slot *slot = &c->slots[i];
        if (runs(slot) && slot->replays)
            rc = run_block(c, slot, graph, recorded && slot->groups == 0, recorded ? SAME_INPUTS : 0, err);
    }
    return rc;
}

/* Graph and eager on the same inputs, one block of each recorded; the faster one is the headline. */
static int compare_modes(mb_latency_case *c, mb_latency_totals *totals, mb_error *err)
{
    int rc = MB_OK;
    for (int turn = 0; rc == MB_OK && turn < 4; turn++)
        rc = run_mode(c, turn / 2, turn % 2, err);
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        mb_latency_slot *slot = &c->slots[i];
        if (!runs(slot) || !slot->replays)
            continue;
        slot->graph = slot->window[1] <= slot->window[0];
        totals->compared++;
        if (slot->digest[0] != slot->digest[1] && !totals->different++)
            snprintf(totals->first_different, sizeof totals->first_different, "%.60s at %d tokens, batch %d",
                     slot->arm->spec->label, c->context, c->batch);
    }
    return rc;
}

static int warm_up(mb_latency_case *c, mb_error *err)
{
    int rc = MB_OK;
    for (int round = 0; rc == MB_OK && round < WARM_BLOCKS; round++) {
        bool all = true;
        for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
            mb_latency_slot *slot = &c->slots[i];
            if (!runs(slot) || slot->warm)
                continue;
            double before = slot->window[slot->graph];
            rc = run_block(c, slot, slot->graph, false, 0, err);
            slot->warm = before > 0 && fabs(slot->window[slot->graph] - before) <= WARM_AGREEMENT * before;
            all = all && (slot->warm || slot->failed);
        }
        if (all)
            break;
    }
    for (size_t i = 0; rc == MB_OK && i < c->count; i++)
        if (runs(&c->slots[i]) && !c->slots[i].warm) {
            char text[128];
            snprintf(text, sizeof text, "the warm-up of %d blocks ended before two blocks agreed within %.0f %%",
                     WARM_BLOCKS, 100 * WARM_AGREEMENT);
            rc = mb_latency_event(c, "warning", c->slots[i].arm->spec->label, text, err);
        }
    return rc;
}

/* One measured block of every method that has not settled. *all: they all have. */
static int measure_round(mb_latency_case *c, int32_t round, bool late, bool *all, mb_error *err)
{
    const mb_latency_spec *spec = &c->run->config->latency;
    size_t n = 0;
    int rc = MB_OK;
    *all = true;
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        mb_latency_slot *slot = &c->slots[i];
        if (!runs(slot) || slot->done || slot->capped)
            continue;
        if (late && round >= spec->blocks_min && enough(c, slot)) { /* the cap */
            slot->capped = true;
            continue;
        }
        rc = run_block(c, slot, slot->graph, true, 0, err);
        slot->done = round + 1 >= spec->blocks_min && median_error(c, slot, &n) < spec->error;
        *all = *all && (slot->done || slot->failed);
    }
    return rc;
}

/* What the methods that the cap stopped were short of, in events. */
static int tell_stopped(mb_latency_case *c, mb_error *err)
{
    const mb_latency_spec *spec = &c->run->config->latency;
    size_t n = 0, stopped = 0;
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        mb_latency_slot *slot = &c->slots[i];
        if (!runs(slot) || slot->done)
            continue;
        char text[256];
        double error = median_error(c, slot, &n);
        snprintf(
            text, sizeof text,
            "stopped at the cap (%.1f s per method, %d blocks): the median of %zu steps has a relative standard "
            "error of %.2f %%, %.2f %% was wanted",
            spec->seconds, spec->blocks_max, n, 100 * error, 100 * spec->error);
        rc = mb_latency_event(c, "note", slot->arm->spec->label, text, err);
        stopped++;
    }
    if (stopped)
        mb_progress_note(
            &c->run->progress,
            "%zu methods stopped at the cap of %.1f s or %d blocks before an error of %.2f %% (see v_events)",
            stopped, spec->seconds, spec->blocks_max, 100 * spec->error);
    return rc;
}

static int settle(mb_latency_case *c, mb_error *err)
{
    const mb_latency_spec *spec = &c->run->config->latency;
    size_t running = 0;
    bool all = false;
    int rc = MB_OK;
    for (size_t i = 0; i < c->count; i++)
        running += runs(&c->slots[i]);
    uint64_t start = mb_clock_ns();
    for (int32_t round = 0; rc == MB_OK && !all && round < spec->blocks_max; round++) {
        bool late = (double)(mb_clock_ns() - start) * 1e-9 > spec->seconds * (double)running;
        rc = measure_round(c, round, late, &all, err);
    }
    return rc == MB_OK ? tell_stopped(c, err) : rc;
}

int mb_latency_measure(mb_latency_case *c, mb_latency_totals *totals, mb_error *err)
{
    for (size_t i = 0; i < c->count; i++) {
        mb_latency_slot *slot = &c->slots[i];
        if (!slot->attender)
            continue;
        mb_session_use_graphs(c->session, true);
        slot->replays = mb_attender_replays(slot->attender);
        slot->warm = slot->done = slot->capped = false;
        slot->window[0] = slot->window[1] = 0;
        const mb_method_spec *spec = slot->arm->spec;
        slot->audit.k = spec->method->caps & MB_CAP_LAYER_BUDGET ? 0 /* a single layer may read more */
                                                                 : mb_attender_budget(spec->method, spec->options);
    }
    int rc = compare_modes(c, totals, err);
    if (rc == MB_OK)
        rc = warm_up(c, err);
    /* What the faster mode gathered before it was warm does not count; what an earlier group measured does. */
    for (size_t i = 0; i < c->count; i++)
        if (runs(&c->slots[i]) && c->slots[i].groups++ == 0 && c->slots[i].replays)
            drop_samples(&c->slots[i], c->slots[i].graph);
    return rc == MB_OK ? settle(c, err) : rc;
}

int mb_latency_ranges(mb_latency_case *c, mb_error *err)
{
    mb_run *run = c->run;
    mb_measure measure = {.untimed = true};
    int rc = MB_OK;
    for (int turn = 0; turn < 3; turn++) /* the third one replays what the first two prepared */
        for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
            mb_decode_result result = {0};
            if (!runs(&c->slots[i]))
                continue;
            mb_session_use_graphs(c->session, true);
            mb_session_measure(c->session, &measure);
            run->kernels->range_push(run->device, turn < 2 ? "warm-up" : c->slots[i].arm->spec->label);
            rc =
                mb_decode_fixed_work(c->session, c->slots[i].attender, 1, c->steps, &mb_interrupted, &result, err);
            run->kernels->range_pop(run->device);
            mb_session_measure(c->session, NULL);
            mb_decode_result_free(&result);
        }
    return rc;
}
