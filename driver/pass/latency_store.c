/*
 * latency_store.c - samples as rows: the clock guard, memory, events and the gate on graphs. A sample is kept when
 * the SM clock before and after it was at least 75 % of the reference; dropped ones are stored and counted.
 *
 * The reference is the clock that the method's own load sustains in this case, the median over its samples, not
 * the chip's nominal maximum: at 700 W an H200 runs a large batch at 1470 MHz of 1980, and that is its true speed.
 */
#include "driver/pass/latency.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLOCK_SHARE 0.75

/* Median SM clock of a slot's samples; 0 = unknown. */
static double sustained_clock(const mb_latency_slot *slot)
{
    double *clocks = malloc((slot->count + 1) * sizeof *clocks), median = 0;
    size_t n = 0;
    for (size_t i = 0; clocks && i < slot->count; i++)
        if (slot->samples[i].state.sm_mhz > 0)
            clocks[n++] = slot->samples[i].state.sm_mhz;
    if (n > 0)
        median = mb_median(clocks, n);
    free(clocks);
    return median;
}

static mb_latency_row make_row(const mb_latency_case *c, const mb_time_sample *s, double reference)
{
    bool slow = s->state.sm_mhz > 0 && s->state.sm_mhz < CLOCK_SHARE * reference;
    return (mb_latency_row){.phase = mb_time_phase_name(s->phase),
                            .context = c->context,
                            .batch = c->batch,
                            .steps = c->steps,
                            .us = s->us,
                            .sm_mhz = s->state.sm_mhz,
                            .throttle = s->state.throttle,
                            .temperature = s->state.temperature,
                            .power = s->state.power,
                            .other_processes = s->state.other_processes,
                            .graph = s->graph,
                            .kept = !slow,
                            .timer = mb_latency_timer(c->run)};
}

int mb_latency_store_one(mb_run *run, const mb_arm *arm, const mb_latency_row *row, mb_error *err)
{
    int64_t cell = 0;
    int rc = mb_run_cell(run, arm, 0, "latency", &cell, err);
    return rc == MB_OK ? mb_store_latency(run->store, cell, row, 1, err) : rc;
}

int mb_latency_store_memory(mb_latency_case *c, const mb_latency_slot *slot, mb_error *err)
{
    mb_memory_plan plan;
    int64_t cell = 0;
    mb_run_memory(c->run, c->batch, mb_latency_capacity(c->run, c->context), c->steps, slot->arm, 1, &plan);
    mb_memory_row row = {.context = c->context,
                         .batch = c->batch,
                         .weights = (int64_t)plan.weights,
                         .kv = (int64_t)plan.kv,
                         .index = (int64_t)plan.methods,
                         .scratch = (int64_t)(plan.activations + plan.logits + plan.statistics),
                         .peak = (int64_t)plan.total};
    int rc = mb_run_cell(c->run, slot->arm, 0, "latency", &cell, err);
    return rc == MB_OK ? mb_store_memory(c->run->store, cell, &row, err) : rc;
}

static int store_slot(mb_latency_case *c, mb_latency_slot *slot, mb_latency_totals *totals, mb_error *err)
{
    mb_latency_row *rows = calloc(slot->count + 1, sizeof *rows);
    int64_t cell = 0, dropped = 0;
    double reference = sustained_clock(slot);
    int rc =
        rows ? mb_run_cell(c->run, slot->arm, 0, "latency", &cell, err) : mb_no_memory(err, "latency samples");
    for (size_t i = 0; rc == MB_OK && i < slot->count; i++) {
        rows[i] = make_row(c, &slot->samples[i], reference);
        dropped += !rows[i].kept;
    }
    if (rc == MB_OK)
        rc = mb_store_latency(c->run->store, cell, rows, slot->count, err);
    if (rc == MB_OK)
        rc = mb_latency_store_memory(c, slot, err);
    if (rc == MB_OK && dropped > 0) {
        char text[128];
        snprintf(text, sizeof text, "%lld of %zu samples dropped: the SM clock was below %.0f %% of %.0f MHz",
                 (long long)dropped, slot->count, 100 * CLOCK_SHARE, reference);
        rc = mb_latency_event(c, "warning", slot->arm->spec->label, text, err);
    }
    totals->timed += (int64_t)slot->count;
    totals->dropped += dropped;
    free(rows);
    return rc;
}

static int store_audit(mb_latency_case *c, size_t i, mb_latency_totals *totals, mb_error *err)
{
    mb_latency_slot *slot = &c->slots[i];
    totals->audited += slot->audit.forwards;
    totals->audited_layers += slot->audit.layers;
    if (!slot->audit.opaque || totals->opaque_told[i])
        return MB_OK;
    totals->opaque_told[i] = true;
    return mb_latency_event(
        c, "note", slot->arm->spec->label,
        "cannot be audited: it attends without showing an index, or hands on states of earlier "
        "queries by design",
        err);
}

int mb_latency_store(mb_latency_case *c, mb_latency_totals *totals, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        mb_latency_slot *slot = &c->slots[i];
        if (slot->failed)
            continue;
        if (slot->reason[0]) {
            rc = mb_latency_event(c, "note", slot->arm->spec->label, slot->reason, err);
            snprintf(totals->reasons[i], sizeof totals->reasons[i], "at %d tokens, batch %d: %.200s", c->context,
                     c->batch, slot->reason);
            continue;
        }
        totals->measured[i] = true;
        rc = store_slot(c, slot, totals, err);
        if (rc == MB_OK)
            rc = store_audit(c, i, totals, err);
    }
    return rc;
}

int mb_latency_store_gate(mb_run *run, const mb_latency_totals *totals, mb_error *err)
{
    char detail[256];
    const char *verdict = totals->compared == 0 ? "skip" : totals->different ? "fail" : "pass";
    if (totals->compared == 0)
        snprintf(detail, sizeof detail, "no forward was replayed from a graph");
    else if (totals->different == 0)
        snprintf(detail, sizeof detail, "%lld blocks of fixed work predict the same tokens both ways",
                 (long long)totals->compared);
    else
        snprintf(detail, sizeof detail, "%lld of %lld blocks of fixed work predict other tokens: %s",
                 (long long)totals->different, (long long)totals->compared, totals->first_different);
    int rc = mb_store_gate(run->store, run->run_id, "graph and eager agree", verdict, detail, err);
    if (rc == MB_OK && run->flags.audit) {
        snprintf(detail, sizeof detail,
                 "audit: %lld forwards, %lld outputs of layers compared with attention over the index",
                 (long long)totals->audited, (long long)totals->audited_layers);
        mb_progress_note(&run->progress, "%s", detail);
        rc = mb_store_event(run->store, run->run_id, "note", detail, err);
    }
    if (rc == MB_OK && totals->dropped) {
        snprintf(detail, sizeof detail, "latency: %lld of %lld samples dropped because of a low clock",
                 (long long)totals->dropped, (long long)totals->timed);
        mb_progress_note(&run->progress, "%s", detail);
    }
    return rc;
}
