/*
 * recall.c - the shadow pass: the reference decodes, every other method selects on the same queries, and what it
 * chose is compared with the exact top keys of the same number. One decode serves all methods of a sampler.
 */
#include "driver/pass/pass.h"
#include "driver/pass/plan.h"

#include "driver/os/os.h"
#include "driver/worker/isolate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int store_recall(mb_run *run, const mb_prepared *prepared, int64_t cell, const mb_recall *recall,
                        mb_error *err)
{
    mb_sample_row row;
    mb_recall_row *rows = calloc(recall->count + 1, sizeof *rows);
    if (!rows)
        return mb_no_memory(err, "the recall of a sample");
    for (size_t i = 0; i < recall->count; i++) {
        const mb_recall_cell *c = &recall->cells[i];
        rows[i] = (mb_recall_row){.layer = c->layer,
                                  .step = c->step,
                                  .blocks = c->blocks,
                                  .heads = c->heads,
                                  .index_recall = c->index_recall,
                                  .mass_recall = c->mass_recall,
                                  .captured_mass = c->captured_mass,
                                  .index_head = c->index_head,
                                  .mass_head = c->mass_head};
    }
    mb_run_sample_row(prepared, cell, &row);
    if (recall->failed) { /* what it measured before it failed is no mean over the sample */
        row.status = "failed";
        row.error = recall->error.text;
        run->failed_samples++;
    } else {
        row.recalls = rows;
        row.recall_count = recall->count;
    }
    row.dense_calls = recall->dense_calls;
    row.sparse_calls = recall->sparse_calls;
    int rc = mb_store_sample(run->store, &row, err);
    free(rows);
    return rc;
}

/* The arms of a sampler that have no stored recall for this sample yet. */
static int collect(mb_run *run, const mb_prepared *prepared, size_t sampler, mb_arm **arms, int64_t *cells,
                   size_t *count, mb_error *err)
{
    *count = 0;
    for (size_t i = 0; i < run->arm_count; i++) {
        mb_arm *arm = &run->arms[i];
        uint64_t caps = arm->spec->method->caps;
        int64_t cell = 0;
        if (arm->sampler != sampler || (!arm->attender && !arm->isolated && !arm->broken) ||
            (caps & (MB_CAP_LOSSLESS | MB_CAP_OPAQUE)))
            continue;
        int rc = mb_run_cell(run, arm, prepared->dataset_id, "recall", &cell, err);
        if (rc != MB_OK)
            return rc;
        if (mb_run_stored(run, prepared, arm, "recall", cell))
            continue;
        arms[*count] = arm;
        cells[(*count)++] = cell;
    }
    return MB_OK;
}

/* The arms that do not share a decode with others: each isolated one has a worker, each broken one a reason. They
 * are taken off the lists. */
static int recall_apart(mb_run *run, const mb_prepared *prepared, mb_arm **arms, int64_t *cells, size_t *count,
                        const mb_decode_request *request, mb_error *err)
{
    size_t kept = 0, all = *count;
    int rc = MB_OK;
    *count = 0; /* nothing to free yet */
    for (size_t i = 0; rc == MB_OK && i < all; i++) {
        mb_recall recall = {0};
        mb_error why = {0};
        if (arms[i]->attender) {
            arms[kept] = arms[i];
            cells[kept++] = cells[i];
            continue;
        }
        int code = MB_E_SAMPLE;
        if (arms[i]->broken)
            mb_fail(&why, 0, "%s", arms[i]->reason);
        else
            code = mb_isolate_shadow(run, prepared, arms[i], request, &recall, &why);
        if (code == MB_E_STOP)
            return mb_fail(err, code, "%s", why.text);
        if (code != MB_OK) {
            recall.failed = true;
            recall.error = why;
        }
        rc = store_recall(run, prepared, cells[i], &recall, err);
        mb_recall_free(&recall);
    }
    *count = kept;
    return rc;
}

/* A prompt that cannot be prefilled, or a reference that cannot decode: failed rows, as in the quality pass. err
 * holds the reason. */
static int store_lost(mb_run *run, const mb_prepared *prepared, const int64_t *cells, size_t count, mb_error *err)
{
    char reason[MB_ERROR_CAP];
    int rc = MB_OK;
    snprintf(reason, sizeof reason, "%s", err->text);
    run->failed_samples++;
    for (size_t i = 0; rc == MB_OK && i < count; i++) {
        mb_sample_row row;
        mb_run_sample_row(prepared, cells[i], &row);
        row.status = "failed";
        row.error = reason;
        rc = mb_store_sample(run->store, &row, err);
    }
    return rc;
}

static int recall_sampler(mb_run *run, mb_prepared *prepared, size_t sampler, mb_error *err)
{
    mb_arm *reference = mb_run_reference(run, sampler);
    mb_arm **arms = calloc(run->arm_count, sizeof *arms);
    mb_attender **shadows = calloc(run->arm_count, sizeof *shadows);
    int64_t *cells = calloc(run->arm_count, sizeof *cells);
    mb_recall *recalls = calloc(run->arm_count, sizeof *recalls);
    mb_decode_result result = {0};
    mb_decode_request request;
    size_t count = 0;
    int rc = MB_OK;
    if (!arms || !shadows || !cells || !recalls) {
        rc = mb_no_memory(err, "the recall pass");
        goto out;
    }
    if (!reference) {
        rc = mb_fail(err, MB_E_INPUT,
                     "the recall pass needs a method that equals exact attention in config key methods");
        goto out;
    }
    rc = collect(run, prepared, sampler, arms, cells, &count, err);
    if (rc != MB_OK || count == 0)
        goto out;
    rc = mb_run_prefill(run, prepared, err);
    if (rc == MB_OK) {
        mb_run_request(run, prepared, sampler, &request);
        rc = recall_apart(run, prepared, arms, cells, &count, &request, err);
        if (rc != MB_OK || count == 0)
            goto out;
        for (size_t i = 0; i < count; i++)
            shadows[i] = arms[i]->attender;
        rc = mb_decode_shadow(run->session, reference->attender, shadows, count, &request, &result, recalls, err);
    }
    if (rc == MB_E_SAMPLE || rc == MB_E_INPUT) {
        rc = store_lost(run, prepared, cells, count, err);
    } else {
        for (size_t i = 0; rc == MB_OK && i < count; i++)
            rc = store_recall(run, prepared, cells[i], &recalls[i], err);
    }
out:
    for (size_t i = 0; recalls && i < count; i++)
        mb_recall_free(&recalls[i]);
    mb_decode_result_free(&result);
    free(arms);
    free(shadows);
    free(cells);
    free(recalls);
    return rc;
}

int mb_recall_sample(mb_run *run, mb_prepared *prepared, mb_error *err)
{
    int rc = MB_OK;
    for (size_t s = 0; rc == MB_OK && s < run->config->samplers.count; s++)
        rc = recall_sampler(run, prepared, s, err);
    mb_progress_step(&run->progress, mb_plan_sample_seconds(run, prepared->task), true);
    return rc;
}
