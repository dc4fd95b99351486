/*
 * breakdown.c - where the time of a step goes: the kernels of a few forwards by purpose, and the gaps between
 * them.
 *
 * A pass of its own, after everything that is timed: a profiler that has been attached once may leave launches
 * slower. Each method runs three blocks without it (the third gives the event times) and one with it. Parts are
 * medians over the profiled forwards of a kind. Under the profiler the gaps between kernels grow, the kernels do
 * not: the idle gap is the event time without it minus the union of the kernels' intervals. Kernels that add up to
 * more than 3 % above that event time are said in an event, never corrected.
 */
#include "driver/pass/latency.h"

#include "driver/os/os.h"
#include "driver/pass/pass.h"
#include "driver/pass/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROFILED_STRIDE 8 /* every so many-th later step is profiled */
#define FORWARDS_CAP 48
#define SUM_TOLERANCE 0.03
#define KINDS MB_TIME_BLOCK       /* first, later, commit: single forwards */
#define PARTS (MB_PART_COUNT + 1) /* the idle gap last */

/* One kind of forward of one method. */
typedef struct part_times {
    double us[PARTS][FORWARDS_CAP];
    int32_t kernels[PARTS]; /* of the last forward */
    size_t forwards;
} part_times;

typedef struct breakdown_work {
    part_times kinds[KINDS];
    mb_error error; /* of the profiler */
} breakdown_work;

/* A kind as it is stored: "first", "later", "commit". */
static void kind_name(int kind, char name[16])
{
    const char *phase = mb_time_phase_name((mb_time_phase)kind);
    snprintf(name, 16, "%.*s", (int)strcspn(phase, "_"), phase);
}

/* Records come in order of start; kernels may overlap, so the union counts each moment once. */
static void forward_profiled(void *user, const mb_profile_report *report)
{
    breakdown_work *work = user;
    part_times *times = &work->kinds[mb_time_phase_of(report->phase)];
    double covered = -INFINITY, us[PARTS] = {0};
    int32_t kernels[PARTS] = {0};
    if (report->error) {
        if (!work->error.text[0])
            mb_fail(&work->error, 0, "%s", report->error);
        return;
    }
    if (times->forwards == FORWARDS_CAP || report->count == 0)
        return;
    for (size_t i = 0; i < report->count; i++) {
        const mb_kernel_record *r = &report->records[i];
        double from = fmax(r->start_us, covered), length = r->end_us > from ? r->end_us - from : 0;
        size_t part = r->part >= 0 && r->part < MB_PART_COUNT ? (size_t)r->part : MB_PART_METHOD;
        us[part] += length;
        kernels[part]++;
        covered = fmax(covered, r->end_us);
    }
    for (size_t p = 0; p < PARTS; p++) {
        times->us[p][times->forwards] = us[p];
        times->kernels[p] = kernels[p];
    }
    times->forwards++;
}

/* The sum against the event time without the profiler. */
static int check_sum(mb_latency_case *c, const mb_latency_slot *slot, int kind, double sum, double event_us,
                     mb_error *err)
{
    char text[192], name[16];
    kind_name(kind, name);
    if (!(event_us > 0) || fabs(sum - event_us) <= SUM_TOLERANCE * event_us)
        return MB_OK;
    snprintf(text, sizeof text,
             "the parts of a %s step add up to %.1f us, without the profiler it takes %.1f us (%+.1f %%)", name,
             sum, event_us, 100 * (sum / event_us - 1));
    return mb_latency_event(c, "note", slot->arm->spec->label, text, err);
}

/* Rows of one kind, at most PARTS; *sum: of their times. */
static size_t fill_parts(const mb_latency_case *c, part_times *times, const char *name, double event_us,
                         mb_breakdown_row *rows, double *sum)
{
    size_t n = 0;
    *sum = 0;
    for (size_t p = 0; p < PARTS; p++) {
        bool gap = p == MB_PART_COUNT;
        double us = gap ? fmax(event_us - *sum, 0) : mb_median(times->us[p], times->forwards);
        *sum += us;
        if (us > 0 || gap)
            rows[n++] = (mb_breakdown_row){.context = c->context,
                                           .batch = c->batch,
                                           .step_kind = name,
                                           .part = gap ? "idle gap" : mb_part_name((mb_part)p),
                                           .us = us,
                                           .kernels = times->kernels[p]};
    }
    return n;
}

static int store_parts(mb_latency_case *c, const mb_latency_slot *slot, breakdown_work *work,
                       const double event_us[KINDS], mb_error *err)
{
    mb_breakdown_row rows[KINDS * PARTS];
    char names[KINDS][16];
    size_t n = 0;
    int64_t cell = 0;
    int rc = mb_run_cell(c->run, slot->arm, 0, "breakdown", &cell, err);
    for (int kind = 0; rc == MB_OK && kind < KINDS; kind++) {
        double sum;
        if (work->kinds[kind].forwards == 0)
            continue;
        kind_name(kind, names[kind]);
        n += fill_parts(c, &work->kinds[kind], names[kind], event_us[kind], rows + n, &sum);
        rc = check_sum(c, slot, kind, sum, event_us[kind], err);
    }
    if (rc == MB_OK && n > 0)
        rc = mb_store_breakdown(c->run->store, cell, rows, n, err);
    if (rc == MB_OK && n == 0)
        rc = mb_store_cell_state(c->run->store, cell, "skipped", work->error.text, err);
    if (rc == MB_OK && work->error.text[0])
        rc = mb_latency_event(c, "warning", slot->arm->spec->label, work->error.text, err);
    return rc;
}

static int profile_slot(mb_latency_case *c, mb_latency_slot *slot, breakdown_work *work, mb_error *err)
{
    int rc = MB_OK;
    double event_us[KINDS] = {0};
    mb_error why = {0};
    memset(work, 0, sizeof *work);
    mb_session_use_graphs(c->session, true);
    for (int block_index = 0; rc == MB_OK && block_index < 4; block_index++) {
        mb_decode_result result = {0};
        mb_measure measure = {.profile = block_index == 3 ? forward_profiled : NULL,
                              .user = work,
                              .profile_stride = c->steps > PROFILED_STRIDE ? PROFILED_STRIDE : 1};
        mb_session_measure(c->session, &measure);
        mb_session_rotate(c->session, (uint64_t)block_index); /* every method's parts on the same inputs */
        rc = mb_decode_fixed_work(c->session, slot->attender, 1, c->steps, &mb_interrupted, &result, &why);
        mb_session_measure(c->session, NULL);
        if (block_index == 2) {
            /* The profiled steps' own counterparts: a method may treat early steps otherwise. */
            double late[FORWARDS_CAP];
            size_t n = 0, stride = (size_t)measure.profile_stride;
            for (size_t i = 0; i < result.later_count && n < FORWARDS_CAP; i++)
                if ((i + 2) % stride == 0)
                    late[n++] = result.later_us[i];
            event_us[MB_TIME_FIRST] = mb_median(result.first_us, result.first_count);
            event_us[MB_TIME_LATER] = mb_median(late, n);
            event_us[MB_TIME_COMMIT] = mb_median(result.commit_us, result.commit_count);
        }
        mb_decode_result_free(&result);
    }
    if (rc == MB_E_SAMPLE)
        return mb_latency_failed(c, slot, "breakdown", why.text, err);
    if (rc != MB_OK)
        return mb_fail(err, rc, "%s", why.text);
    return store_parts(c, slot, work, event_us, err);
}

static int profile_group(mb_latency_case *c, void *user, mb_error *err)
{
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < c->count; i++) {
        mb_latency_slot *slot = &c->slots[i];
        if (slot->attender && !slot->failed && slot->groups++ == 0)
            rc = profile_slot(c, slot, user, err);
    }
    return rc;
}

static int breakdown_case(mb_run *run, int32_t context, int32_t batch, int32_t steps, breakdown_work *work,
                          mb_error *err)
{
    const mb_plan_case planned = {.breakdown = true, .context = context, .batch = batch, .steps = steps};
    mb_latency_case c = {0};
    char label[64];
    bool stored = !run->flags.again_latency;
    for (size_t i = 0; stored && i < run->config->method_count; i++) {
        int64_t cell = 0;
        int found = mb_run_cell(run, &run->arms[i], 0, "breakdown", &cell, err);
        if (found != MB_OK)
            return found;
        stored = mb_store_has_breakdown(run->store, cell, context, batch);
    }
    if (stored) {
        mb_progress_step(&run->progress, mb_plan_case_seconds(run, &planned), false);
        return MB_OK;
    }
    snprintf(label, sizeof label, "breakdown %d tokens, batch %d", context, batch);
    mb_progress_label(&run->progress, label);
    int rc = mb_latency_check(run, context, steps, err);
    if (rc == MB_OK)
        rc = mb_latency_case_open(&c, run, context, batch, steps, err);
    if (rc == MB_OK)
        rc = mb_latency_groups(&c, profile_group, work, err);
    for (size_t i = 0; rc == MB_OK && i < c.count; i++)
        if (c.slots[i].reason[0])
            rc = mb_latency_event(&c, "note", c.slots[i].arm->spec->label, c.slots[i].reason, err);
    mb_latency_case_close(&c);
    mb_progress_step(&run->progress, mb_plan_case_seconds(run, &planned), true);
    return rc;
}

int mb_breakdown_pass(mb_run *run, mb_error *err)
{
    const mb_latency_spec *spec = &run->config->latency;
    int32_t steps = 0;
    int rc = MB_OK;
    if (!run->kernels->profile_begin) {
        const char *text = "no breakdown: this backend has no profiler of kernels; it needs a GPU";
        mb_progress_note(&run->progress, "%s", text);
        for (size_t i = 0; rc == MB_OK && i < run->config->method_count; i++) {
            int64_t cell = 0;
            rc = mb_run_cell(run, &run->arms[i], 0, "breakdown", &cell, err);
            if (rc == MB_OK)
                rc = mb_store_cell_state(run->store, cell, "skipped", text, err);
        }
        return rc == MB_OK ? mb_store_event(run->store, run->run_id, "note", text, err) : rc;
    }
    for (size_t s = 0; s < spec->steps.count; s++) /* one block length, the longest */
        steps = spec->steps.values[s] > steps ? spec->steps.values[s] : steps;
    breakdown_work *work = malloc(sizeof *work);
    if (!work)
        return mb_no_memory(err, "the breakdown pass");
    for (size_t x = 0; rc == MB_OK && x < spec->breakdown_contexts.count; x++)
        for (size_t b = 0; rc == MB_OK && b < spec->batches.count; b++)
            rc = breakdown_case(run, spec->breakdown_contexts.values[x], spec->batches.values[b],
                                steps > 0 ? steps : run->model_config.block, work, err);
    free(work);
    return rc;
}
