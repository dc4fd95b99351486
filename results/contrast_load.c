/*
 * contrast_load.c - one side of a comparison of two runs: its samples with what the quality and the recall pass
 * measured of each, in an order in which two sides can be walked together.
 */
#include "results/contrast.h"
#include "results/identity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char quality_sql[] =
    "SELECT model, sampler, config, task, item, token_hash, config_id, sample_id, score, work, "
    "1.0 * denoise_forwards / nullif(blocks, 0), NULL, NULL FROM v_samples_all WHERE run_id = ?1 AND "
    "pass = 'quality' AND score IS NOT NULL AND CASE WHEN ?2 IS NULL THEN is_current ELSE "
    "substr(build, 1, length(?2)) = ?2 END";

static const char recall_sql[] =
    "SELECT model, sampler, config, task, item, token_hash, config_id, sample_id, NULL, NULL, NULL, index_recall, "
    "mass_recall FROM v_recall_sample WHERE run_id = ?1 AND pass = 'recall' AND CASE WHEN ?2 IS NULL THEN "
    "is_current ELSE substr(build, 1, length(?2)) = ?2 END";

static char *copy_column(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return mb_string_copy(text ? text : "");
}

static void sample_free(contrast_sample *s)
{
    free(s->model);
    free(s->sampler);
    free(s->config);
    free(s->task);
    free(s->item);
    free(s->hash);
}

static void side_free(contrast_side *side)
{
    for (size_t i = 0; i < side->count; i++)
        sample_free(&side->samples[i]);
    free(side->samples);
    free(side->used);
    free(side->label);
    times_free(&side->times);
    *side = (contrast_side){0};
}

void contrast_free(contrast *c)
{
    side_free(&c->a);
    side_free(&c->b);
    free(c->rows);
    free(c->other_model);
    *c = (contrast){0};
}

static int add_sample(contrast_side *side, sqlite3_stmt *s, size_t *capacity, mb_error *err)
{
    if (side->count == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 256;
        contrast_sample *grown = realloc(side->samples, more * sizeof *grown);
        if (!grown)
            return mb_no_memory(err, "the samples of a run");
        side->samples = grown;
        *capacity = more;
    }
    contrast_sample *row = &side->samples[side->count++];
    *row = (contrast_sample){.model = copy_column(s, 0),
                             .sampler = copy_column(s, 1),
                             .config = copy_column(s, 2),
                             .task = copy_column(s, 3),
                             .item = copy_column(s, 4),
                             .hash = copy_column(s, 5),
                             .config_id = sqlite3_column_int64(s, 6),
                             .sample_id = sqlite3_column_int64(s, 7)};
    for (int v = 0; v < VALUES; v++)
        row->values[v] = sqlite3_column_type(s, 8 + v) == SQLITE_NULL ? NAN : sqlite3_column_double(s, 8 + v);
    return row->model && row->sampler && row->config && row->task && row->item && row->hash
               ? MB_OK
               : mb_no_memory(err, "the samples of a run");
}

static int load_pass(mb_store *store, const char *sql, const char *build, contrast_side *side, size_t *capacity,
                     mb_error *err)
{
    sqlite3_stmt *s = store_statement(store, sql, err);
    int code = SQLITE_DONE, rc = MB_OK;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "it", side->run_id, build);
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW)
        rc = add_sample(side, s, capacity, err);
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(store, code, "reading the samples", err);
    sqlite3_reset(s);
    return rc;
}

static int compare_samples(const void *x, const void *y)
{
    const contrast_sample *a = x, *b = y;
    const char *const keys[][2] = {{a->model, b->model}, {a->sampler, b->sampler}, {a->config, b->config},
                                   {a->task, b->task},   {a->item, b->item},       {a->hash, b->hash}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int order = strcmp(keys[i][0], keys[i][1]);
        if (order)
            return order;
    }
    return (a->sample_id > b->sample_id) - (a->sample_id < b->sample_id);
}

static bool same_sample(const contrast_sample *a, const contrast_sample *b)
{
    return strcmp(a->model, b->model) == 0 && strcmp(a->sampler, b->sampler) == 0 &&
           strcmp(a->config, b->config) == 0 && strcmp(a->task, b->task) == 0 && strcmp(a->item, b->item) == 0 &&
           strcmp(a->hash, b->hash) == 0;
}

/* One row a sample: what two passes measured of it, or two builds that begin alike, of which the newer one counts.
 */
static void fold(contrast_side *side)
{
    size_t kept = 0;
    if (side->count)
        qsort(side->samples, side->count, sizeof *side->samples, compare_samples);
    for (size_t i = 0; i < side->count; i++) {
        contrast_sample *row = &side->samples[i];
        if (kept == 0 || !same_sample(&side->samples[kept - 1], row)) {
            side->samples[kept++] = *row;
            continue;
        }
        for (int v = 0; v < VALUES; v++)
            if (!isnan(row->values[v]))
                side->samples[kept - 1].values[v] = row->values[v];
        sample_free(row);
    }
    side->count = kept;
}

int contrast_load(mb_store *store, const char *run, const char *build, contrast_side *side, mb_error *err)
{
    size_t capacity = 0;
    *side = (contrast_side){0};
    int rc = store_find_run(store, run, &side->run_id, &side->label, err);
    if (rc != MB_OK)
        return rc;
    rc = store_freeze(store, side->run_id, err);
    if (rc == MB_OK)
        rc = load_pass(store, quality_sql, build, side, &capacity, err);
    if (rc == MB_OK)
        rc = load_pass(store, recall_sql, build, side, &capacity, err);
    if (rc == MB_OK && !build) /* times of superseded code are in no view of speed */
        rc = times_load(store, side->run_id, &side->times, err);
    rc = store_thaw(store, rc, err);
    fold(side);
    if (rc == MB_OK && build && side->count == 0)
        rc = mb_fail(err, MB_E_INPUT,
                     "run %s has no rows of a build that begins with \"%s\"; v_cell_all has the builds",
                     side->label, build);
    return rc;
}
