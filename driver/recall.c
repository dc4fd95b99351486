/*
 * recall.c - the shadow pass: the reference decodes, every other method selects on the same queries, and what it
 * chose is compared with the exact top keys of the same number. One decode serves all methods of a sampler.
 */
#include "driver/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int store_recall(mb_run *run, const mb_prepared *prepared, int64_t cell, const mb_recall *recall, char *err,
                        size_t err_cap)
{
    mb_sample_row row;
    mb_recall_row *rows = calloc(recall->count + 1, sizeof *rows);
    if (!rows)
        return mb_fail(err, err_cap, MB_E_SYSTEM, "no memory for the recall of a sample");
    for (size_t i = 0; i < recall->count; i++) {
        const mb_recall_cell *c = &recall->cells[i];
        rows[i] = (mb_recall_row){.layer = c->layer, .step = c->step, .blocks = c->blocks, .heads = c->heads,
                                  .index_recall = c->index_recall, .mass_recall = c->mass_recall,
                                  .captured_mass = c->captured_mass, .index_head = c->index_head,
                                  .mass_head = c->mass_head};
    }
    mb_run_row(prepared, cell, &row);
    row.recalls = rows;
    row.recall_count = recall->count;
    row.dense_calls = recall->dense_calls;
    row.sparse_calls = recall->sparse_calls;
    int rc = mb_store_sample(run->store, &row, err, err_cap);
    free(rows);
    return rc;
}

/* The arms of a sampler that have no stored recall for this sample yet. */
static int collect(mb_run *run, const mb_prepared *prepared, size_t sampler, mb_attender **shadows, int64_t *cells,
                   size_t *count, char *err, size_t err_cap)
{
    *count = 0;
    for (size_t i = 0; i < run->arm_count; i++) {
        mb_arm *arm = &run->arms[i];
        uint64_t caps = arm->spec->method->caps;
        int64_t cell = 0;
        if (arm->sampler != sampler || !arm->attender || (caps & (MB_CAP_LOSSLESS | MB_CAP_OPAQUE)))
            continue;
        int rc = mb_run_cell(run, arm, prepared->dataset_id, "recall", &cell, err, err_cap);
        if (rc != MB_OK)
            return rc;
        if (mb_store_has_sample(run->store, cell, prepared->sample->key))
            continue;
        shadows[*count] = arm->attender;
        cells[(*count)++] = cell;
    }
    return MB_OK;
}

static int recall_sampler(mb_run *run, mb_prepared *prepared, size_t sampler, char *err, size_t err_cap)
{
    mb_arm *reference = mb_run_reference(run, sampler);
    mb_attender **shadows = calloc(run->arm_count, sizeof *shadows);
    int64_t *cells = calloc(run->arm_count, sizeof *cells);
    mb_recall *recalls = calloc(run->arm_count, sizeof *recalls);
    mb_decode_result result = {0};
    mb_decode_request request;
    size_t count = 0;
    int rc = MB_OK;
    if (!shadows || !cells || !recalls) {
        rc = mb_fail(err, err_cap, MB_E_SYSTEM, "no memory for the recall pass");
        goto out;
    }
    if (!reference) {
        rc = mb_fail(err, err_cap, MB_E_INPUT,
                     "the recall pass needs a method that equals exact attention in config key methods");
        goto out;
    }
    rc = collect(run, prepared, sampler, shadows, cells, &count, err, err_cap);
    if (rc != MB_OK || count == 0)
        goto out;
    if ((rc = mb_run_prefill(run, prepared, err, err_cap)) != MB_OK)
        goto out;
    mb_run_request(run, prepared, sampler, &request);
    rc = mb_decode_shadow(run->session, reference->attender, shadows, count, &request, &result, recalls, err, err_cap);
    if (rc == MB_E_SAMPLE || rc == MB_E_INPUT) {
        char reason[512];
        snprintf(reason, sizeof reason, "%s", err);
        run->failed_samples++;
        rc = MB_OK;
        for (size_t i = 0; rc == MB_OK && i < count; i++) {
            mb_sample_row row;
            mb_run_row(prepared, cells[i], &row);
            row.status = "failed";
            row.error = reason;
            rc = mb_store_sample(run->store, &row, err, err_cap);
        }
    } else {
        for (size_t i = 0; rc == MB_OK && i < count; i++)
            rc = store_recall(run, prepared, cells[i], &recalls[i], err, err_cap);
    }
out:
    for (size_t i = 0; recalls && i < count; i++)
        mb_recall_free(&recalls[i]);
    mb_decode_result_free(&result);
    free(shadows);
    free(cells);
    free(recalls);
    return rc;
}

int mb_recall_sample(mb_run *run, mb_prepared *prepared, char *err, size_t err_cap)
{
    int rc = MB_OK;
    for (size_t s = 0; rc == MB_OK && s < run->config->sampler_count; s++)
        rc = recall_sampler(run, prepared, s, err, err_cap);
    mb_progress_step(&run->progress, true);
    return rc;
}
