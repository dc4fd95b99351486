/*
 * quality.c - the pass in which every method decodes on its own trajectory, and the forced pass in which every
 * block starts from the reference's tokens. Nothing is timed for a latency table here: the wall times in these
 * rows are those of a run that also counts and stores.
 */
#include "driver/pass/pass.h"
#include "driver/pass/plan.h"
#include "driver/pass/record.h"

#include "driver/os/os.h"
#include "driver/worker/isolate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Copies what a decode measured into its row. */
static void fill_row(mb_sample_row *row, const mb_decode_result *result)
{
    row->new_tokens = (int32_t)result->count;
    row->blocks = result->blocks;
    row->denoise_forwards = result->denoise_forwards;
    row->commit_forwards = result->commit_forwards;
    row->stopped = result->stopped;
    row->engaged = result->engaged;
    row->work_attend = result->work;
    row->work_select = result->work_select;
    row->decode_us = result->decode_us;
    row->forwards_histogram = result->forwards_histogram;
    row->histogram_size = MB_FORWARD_HISTOGRAM;
    row->agree = result->agree;
    row->compared = result->compared;
}

enum { METHOD_COUNTERS = 32 };

/* The method's own counters, and one of a sampler that edits; rows must have room for METHOD_COUNTERS + 1. */
static size_t fill_counters(const mb_run *run, const mb_arm *arm, const mb_decode_result *result,
                            mb_counter_row *rows)
{
    size_t n = 0;
    for (const mb_counter *c = arm->spec->method->counters; c && c->name && n < METHOD_COUNTERS; c++, n++)
        rows[n] = (mb_counter_row){c->name, c->unit, c->better, c->aggregate, result->counters[n]};
    if (mb_sampler_edits(&run->samplers[arm->sampler]))
        rows[n++] = (mb_counter_row){"edited_tokens", "tokens", "", "mean", result->edits};
    return n;
}

/* Its counters by layer and step: *rows malloc'ed, in the order of the result. */
static int fill_grids(const mb_method *method, const mb_decode_result *result, mb_grid_row **rows, mb_error *err)
{
    *rows = result->map_count ? calloc(result->map_count, sizeof **rows) : NULL;
    if (result->map_count && !*rows)
        return mb_no_memory(err, "%zu counters by layer and step", result->map_count);
    size_t declared = 0;
    while (method->maps && method->maps[declared].name)
        declared++;
    for (size_t i = 0; i < result->map_count; i++) {
        const mb_counter_place *v = &result->maps[i];
        if (v->map < 0 || (size_t)v->map >= declared) /* it came through a pipe */
            return mb_fail(err, MB_E_SAMPLE, "method %s: a value of counter map %d, which it does not have",
                           method->name, v->map);
        const mb_counter_map *g = &method->maps[v->map];
        (*rows)[i] =
            (mb_grid_row){g->name, g->unit, g->better, g->aggregate, v->layer, v->step, v->sum, v->weight};
    }
    return MB_OK;
}

/* Status row of a sample that has no result: the method cannot run here, or its decode failed. */
static int store_status(mb_run *run, const mb_prepared *prepared, int64_t cell, const char *status,
                        const char *reason, mb_error *err)
{
    mb_sample_row row;
    mb_run_sample_row(prepared, cell, &row);
    row.status = status;
    row.error = reason;
    return mb_store_sample(run->store, &row, err);
}

/* The answer, as texts are: a vocabulary may have byte 0 in its tokens. */
static int text_of(const mb_run *run, const mb_decode_result *result, char **text, mb_error *err)
{
    char *bytes = NULL;
    size_t length = 0;
    mb_text spelled = {0};
    int rc = mb_tokenizer_decode(mb_model_tokenizer(run->model), result->ids, result->count, true, &bytes, &length,
                                 err);
    if (rc == MB_OK) {
        mb_text_spell(&spelled, bytes, length);
        *text = mb_text_take(&spelled);
        if (!*text)
            rc = mb_no_memory(err, "an answer of %zu bytes", length);
    }
    free(bytes);
    return rc;
}

/* --verbose: a line a decoded sample, as it is stored. */
static void tell_sample(mb_run *run, const mb_prepared *prepared, const mb_arm *arm, const mb_sample_row *row)
{
    if (run->flags.verbose)
        mb_progress_note(&run->progress, "%s %s, %s: score %.3g, %d tokens", prepared->task->task,
                         prepared->sample->key ? prepared->sample->key : "?", arm->spec->label, row->score,
                         (int)row->new_tokens);
}

/* Text of the answer, score and row of one decoded sample. */
static int store_result(mb_run *run, const mb_prepared *prepared, const mb_arm *arm, int64_t cell,
                        const mb_decode_result *result, mb_recorder *recorder, mb_error *err)
{
    mb_counter_row counters[METHOD_COUNTERS + 1];
    mb_grid_row *grids = NULL;
    mb_error reason = {0};
    char *text = NULL;
    mb_sample_row row;
    int rc = text_of(run, result, &text, err);
    if (rc != MB_OK)
        goto out;
    mb_run_sample_row(prepared, cell, &row);
    fill_row(&row, result);
    row.prediction = text;
    row.counter_count = fill_counters(run, arm, result, counters);
    row.counters = counters;
    rc = fill_grids(arm->spec->method, result, &grids, err);
    if (rc != MB_OK)
        goto out;
    row.grid_count = result->map_count;
    row.grids = grids;
    rc = mb_record_finish(recorder, &row, err);
    if (rc != MB_OK)
        goto out;
    rc = mb_sample_score(prepared->task->task, prepared->sample, text, &row.score, &reason);
    if (rc == MB_E_SAMPLE) { /* the answer is kept: it can be scored elsewhere */
        row.status = "skipped";
        row.error = reason.text;
        row.score = NAN;
        rc = MB_OK;
    } else if (rc != MB_OK) {
        mb_fail(err, rc, "%s", reason.text);
        goto out;
    }
    rc = mb_store_sample(run->store, &row, err);
    if (rc == MB_OK)
        tell_sample(run, prepared, arm, &row);
out:
    free(grids);
    free(text);
    return rc;
}

/* A failed decode is a row; only a broken machine or the user's interrupt ends the run. */
static int store_failure(mb_run *run, const mb_prepared *prepared, const mb_arm *arm, int64_t cell, int code,
                         mb_error *err)
{
    char reason[MB_ERROR_CAP];
    if (code == MB_E_STOP || code == MB_E_SYSTEM)
        return code;
    snprintf(reason, sizeof reason, "%s", err->text);
    run->failed_samples++;
    mb_progress_note(&run->progress, "failed: %s on %s %s: %s", arm->spec->label, prepared->task->task,
                     prepared->sample->key, reason);
    return store_status(run, prepared, cell, "failed", reason, err);
}

/* The rows of an arm that is known not to work. */
static int store_broken(mb_run *run, const mb_prepared *prepared, const mb_arm *arm, int64_t cell, mb_error *err)
{
    run->failed_samples++;
    mb_progress_step(&run->progress, mb_plan_sample_seconds(run, prepared->task), false);
    return store_status(run, prepared, cell, "failed", arm->reason, err);
}

/* Arms whose decodes are still to come; up to as many as the session has lanes. */
struct queue {
    mb_pending of[MB_PENDING_MAX];
    size_t count;
};

/* Decodes what is in the queue and stores every row, the failed ones, too. */
static int flush(mb_run *run, mb_prepared *prepared, struct queue *queue, mb_error *err)
{
    mb_group_arm arms[MB_PENDING_MAX];
    mb_decode_result results[MB_PENDING_MAX];
    size_t count = queue->count;
    int rc = MB_OK;
    queue->count = 0;
    if (count == 0)
        return MB_OK;
    memset(results, 0, sizeof results);
    rc = mb_pending_decode(run, queue->of, count, arms, results, err);
    for (size_t i = 0; i < count; i++) {
        mb_pending *p = &queue->of[i];
        mb_error *why = &arms[i].error;
        int own = rc;
        if (run->lanes > 1) /* the last of an item may be alone: its time is no more another's measure */
            results[i].decode_us = NAN;
        if (own == MB_OK)
            own = arms[i].rc == MB_OK ? store_result(run, prepared, p->arm, p->cell, &results[i], p->recorder, why)
                                      : store_failure(run, prepared, p->arm, p->cell, arms[i].rc, why);
        if (own != MB_OK && rc == MB_OK) /* what the others have is still stored */
            rc = own == MB_E_STOP ? rc : mb_fail(err, own, "%s", why->text);
        mb_record_free(p->recorder);
        mb_decode_result_free(&results[i]);
        mb_progress_step(&run->progress, mb_plan_sample_seconds(run, prepared->task), true);
    }
    return rc == MB_OK && mb_interrupted ? mb_fail(err, MB_E_STOP, "interrupted") : rc;
}

/* An arm that a worker has decodes there; others wait in the queue until it is full. */
static int decode_arm(mb_run *run, mb_prepared *prepared, struct queue *queue, const mb_pending *p, mb_error *err)
{
    mb_decode_result result = {0};
    if (!p->arm->isolated) {
        queue->of[queue->count++] = *p;
        return queue->count >= (size_t)(run->lanes > 1 ? run->lanes : 1) ? flush(run, prepared, queue, err)
                                                                         : MB_OK;
    }
    int rc = mb_arm_decode(run, prepared, p->arm, &p->request, &result, err);
    rc = rc == MB_OK ? store_result(run, prepared, p->arm, p->cell, &result, NULL, err)
                     : store_failure(run, prepared, p->arm, p->cell, rc, err);
    mb_decode_result_free(&result);
    mb_progress_step(&run->progress, mb_plan_sample_seconds(run, prepared->task), true);
    return rc;
}

static int quality_arm(mb_run *run, mb_prepared *prepared, mb_arm *arm, struct queue *queue, mb_error *err)
{
    mb_pending p = {.arm = arm};
    int rc = mb_run_cell(run, arm, prepared->dataset_id, "quality", &p.cell, err);
    if (rc != MB_OK)
        return rc;
    if (mb_run_stored(run, prepared, arm, "quality", p.cell)) {
        mb_progress_step(&run->progress, mb_plan_sample_seconds(run, prepared->task), false);
        return MB_OK;
    }
    if (arm->broken)
        return store_broken(run, prepared, arm, p.cell, err);
    if (!arm->attender && !arm->isolated) {
        rc = mb_store_cell_state(run->store, p.cell, "skipped", arm->reason, err);
        if (rc == MB_OK)
            rc = store_status(run, prepared, p.cell, "skipped", arm->reason, err);
        mb_progress_step(&run->progress, mb_plan_sample_seconds(run, prepared->task), false);
        return rc;
    }
    if ((rc = mb_run_prefill(run, prepared, err)) != MB_OK)
        return store_failure(run, prepared, arm, p.cell, rc, err);
    mb_run_request(run, prepared, arm->sampler, &p.request);
    rc = mb_record_begin(run, prepared, arm, &p.request, &p.recorder, err);
    return rc == MB_OK ? decode_arm(run, prepared, queue, &p, err)
                       : store_failure(run, prepared, arm, p.cell, rc, err);
}

int mb_quality_sample(mb_run *run, mb_prepared *prepared, mb_error *err)
{
    struct queue queue = {.count = 0};
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < run->arm_count; i++) {
        rc = quality_arm(run, prepared, &run->arms[i], &queue, err);
        if (rc == MB_OK && mb_interrupted)
            rc = MB_E_STOP;
    }
    if (rc == MB_OK)
        return flush(run, prepared, &queue, err);
    for (size_t i = 0; i < queue.count; i++)
        mb_record_free(queue.of[i].recorder);
    return rc;
}

/* The reference decodes first; then every method denoises the same blocks and is overwritten with its tokens. */
static int forced_sampler(mb_run *run, mb_prepared *prepared, size_t sampler, mb_error *err)
{
    mb_arm *reference = mb_run_reference(run, sampler);
    mb_decode_result truth = {0};
    mb_decode_request request;
    struct queue queue = {.count = 0};
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < run->arm_count; i++) {
        mb_arm *arm = &run->arms[i];
        int64_t cell = 0;
        if (arm->sampler != sampler || (!arm->attender && !arm->isolated && !arm->broken))
            continue;
        rc = mb_run_cell(run, arm, prepared->dataset_id, "forced", &cell, err);
        if (rc != MB_OK)
            break;
        if (mb_run_stored(run, prepared, arm, "forced", cell)) {
            mb_progress_step(&run->progress, mb_plan_sample_seconds(run, prepared->task), false);
            continue;
        }
        if (arm->broken) {
            rc = store_broken(run, prepared, arm, cell, err);
            continue;
        }
        if (!reference) {
            rc = store_status(run, prepared, cell, "skipped", "no method in this config equals exact attention",
                              err);
            continue;
        }
        rc = mb_run_prefill(run, prepared, err);
        mb_run_request(run, prepared, sampler, &request);
        if (rc == MB_OK && !truth.ids)
            rc = mb_decode(run->session, reference->attender, &request, &truth, err);
        if (rc != MB_OK) { /* there is nothing to force: a row, as in the other passes */
            rc = store_failure(run, prepared, arm, cell, rc, err);
            continue;
        }
        request.forced = truth.ids;
        request.forced_count = truth.count;
        rc = decode_arm(run, prepared, &queue, &(mb_pending){.arm = arm, .cell = cell, .request = request}, err);
    }
    if (rc == MB_OK)
        rc = flush(run, prepared, &queue, err);
    mb_decode_result_free(&truth);
    return rc;
}

int mb_forced_sample(mb_run *run, mb_prepared *prepared, mb_error *err)
{
    int rc = MB_OK;
    for (size_t s = 0; rc == MB_OK && s < run->config->samplers.count; s++)
        rc = forced_sampler(run, prepared, s, err);
    return rc;
}
