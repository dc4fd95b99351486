/*
 * sample.c - one sample of one cell: its row, its item and prompt, recall, forwards, counters and grids, in one
 * transaction. A sample is there with everything that belongs to it, or not at all.
 */
#include "results/store.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The item (the benchmark's row) and, when the prompt was made, its prompt under this tokenizer and limit. A
 * sample that failed early knows less about its item: what is there stays. */
static int store_item(mb_store *store, const mb_sample_row *row, int64_t *item, int64_t *prompt, mb_error *err)
{
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store,
        "INSERT INTO item(dataset_id, key, bucket, length, context, depth, answers_json, classes_json) "
        "SELECT dataset_id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM cell WHERE id = ?1 "
        "ON CONFLICT(coalesce(dataset_id, 0), key) DO UPDATE SET "
        "bucket = coalesce(excluded.bucket, bucket), length = coalesce(excluded.length, length), "
        "context = coalesce(excluded.context, context), depth = coalesce(excluded.depth, depth), "
        "answers_json = coalesce(excluded.answers_json, answers_json), "
        "classes_json = coalesce(excluded.classes_json, classes_json) RETURNING id",
        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ittkkdtt", row->cell, row->key, row->group, row->length > 0 ? row->length : -1,
               row->context > 0 ? (int64_t)row->context : -1, row->depth >= 0 ? row->depth : NAN,
               row->answers_json, row->classes_json);
    int rc = store_step_integer(store, s, item, &found, "storing an item", err);
    if (rc == MB_OK && !found)
        rc = mb_fail(err, MB_E_BUG, "%s: sample %s belongs to no cell", store->path, row->key);
    *prompt = -1;
    if (rc != MB_OK || !row->token_hash || !*row->token_hash)
        return rc;
    s = store_statement(store,
                        "INSERT INTO prompt(item_id, token_hash, tokens, truncated) VALUES (?,?,?,?) "
                        "ON CONFLICT(item_id, token_hash) DO UPDATE SET tokens = excluded.tokens RETURNING id",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "itjj", *item, row->token_hash, row->prompt_tokens, (int)row->truncated);
    return store_step_integer(store, s, prompt, &found, "storing a prompt", err);
}

/* Is a row of this cell and item there that is to stay? A failed one is removed to make room. */
static int make_room(mb_store *store, int64_t cell, int64_t item, bool *taken, mb_error *err)
{
    int64_t one = 0;
    sqlite3_stmt *s =
        store_statement(store, "DELETE FROM sample WHERE cell_id = ? AND item_id = ? AND status = 'failed'", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ii", cell, item);
    int rc = store_step(store, s, "storing a sample", err);
    if (rc != MB_OK)
        return rc;
    s = store_statement(store, "SELECT 1 FROM sample WHERE cell_id = ? AND item_id = ?", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "ii", cell, item);
    return store_step_integer(store, s, &one, taken, "storing a sample", err);
}

static int store_row(mb_store *store, const mb_sample_row *row, int64_t item, int64_t prompt, int64_t *id,
                     mb_error *err)
{
    bool found = false;
    sqlite3_stmt *s = store_statement(
        store,
        "INSERT INTO sample(cell_id, item_id, prompt_id, session_id, status, error, prediction, score, "
        "new_tokens, "
        "blocks, denoise_forwards, commit_forwards, stopped, engaged, work_attend, work_select, agree, compared, "
        "dense_calls, sparse_calls, prefill_us, decode_us) "
        "VALUES (?1,?2,?3,(SELECT max(x.id) FROM session x JOIN cell c ON c.run_id = x.run_id WHERE c.id = ?1),"
        "?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21) RETURNING id",
        err);
    if (!s)
        return MB_E_SYSTEM;
    /* A sample that did not run has no shares and times. */
    bool ran = row->denoise_forwards > 0 || strcmp(row->status, "ok") == 0;
    store_bind(s,
               "iikttt"
               "d"
               "jjjjj"
               "ddd"
               "jjii"
               "dd",
               row->cell, item, prompt, row->status, row->error, row->prediction, row->score, row->new_tokens,
               row->blocks, row->denoise_forwards, row->commit_forwards, (int)row->stopped,
               ran ? row->engaged : NAN, ran ? row->work_attend : NAN, ran ? row->work_select : NAN, row->agree,
               row->compared, row->dense_calls, row->sparse_calls, ran ? row->prefill_us : NAN,
               ran ? row->decode_us : NAN);
    int rc = store_step_integer(store, s, id, &found, "storing a sample", err);
    if (rc == MB_OK && !found)
        rc = mb_fail(err, MB_E_BUG, "%s: sample %s was not stored", store->path, row->key);
    return rc;
}

/* "[0.5,null]": nine digits give every float back; null is a head that read everything and so has no recall. */
static void head_array(mb_text *text, const float *values, int32_t heads)
{
    mb_text_clear(text);
    mb_text_puts(text, "[");
    for (int32_t h = 0; h < heads; h++) {
        if (isfinite(values[h]) && values[h] >= 0)
            mb_text_printf(text, "%s%.9g", h ? "," : "", (double)values[h]);
        else
            mb_text_printf(text, "%snull", h ? "," : "");
    }
    mb_text_puts(text, "]");
}

static int store_recall(mb_store *store, int64_t id, const mb_sample_row *row, mb_error *err)
{
    mb_text index = {0}, mass = {0};
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < row->recall_count; i++) {
        const mb_recall_row *r = &row->recalls[i];
        bool heads = r->heads > 0 && r->index_head && r->mass_head;
        if (r->blocks < 1)
            continue; /* ran dense in every block: no row */
        sqlite3_stmt *s = store_statement(
            store,
            "INSERT INTO recall(sample_id, layer, step, blocks, index_recall, mass_recall, captured_mass, "
            "index_heads, mass_heads) VALUES (?,?,?,?,?,?,?,?,?)",
            err);
        if (!s) {
            rc = MB_E_SYSTEM;
            break;
        }
        if (heads) {
            head_array(&index, r->index_head, r->heads);
            head_array(&mass, r->mass_head, r->heads);
        }
        if (index.failed || mass.failed) {
            rc = mb_no_memory(err, "storing the recall of sample %s", row->key);
            break;
        }
        store_bind(s, "ijjjdddtt", id, r->layer, r->step, r->blocks, r->index_recall, r->mass_recall,
                   r->captured_mass, heads ? index.data : NULL, heads ? mass.data : NULL);
        rc = store_step(store, s, "storing recall", err);
    }
    mb_text_free(&index);
    mb_text_free(&mass);
    return rc;
}

static int store_forwards(mb_store *store, int64_t id, const mb_sample_row *row, mb_error *err)
{
    for (int32_t i = 0; row->forwards_histogram && i < row->histogram_size; i++) {
        if (row->forwards_histogram[i] == 0)
            continue;
        sqlite3_stmt *s =
            store_statement(store, "INSERT INTO forwards(sample_id, forwards, blocks) VALUES (?,?,?)", err);
        if (!s)
            return MB_E_SYSTEM;
        store_bind(s, "ijj", id, i, row->forwards_histogram[i]);
        int rc = store_step(store, s, "storing the forwards per block", err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

/* Counters and grids belong to the method of the cell. */
#define DECLARE(table)                                                                                            \
    "INSERT INTO " table "(method_id, name, unit, better, aggregate) "                                            \
    "SELECT f.method_id, ?2, ?3, ?4, ?5 FROM cell c JOIN config f ON f.id = c.config_id WHERE c.id = ?1 "         \
    "ON CONFLICT(method_id, name) DO UPDATE SET unit = excluded.unit, better = excluded.better, "                 \
    "aggregate = excluded.aggregate RETURNING id"

typedef struct declaration {
    const char *name, *unit, *better, *aggregate;
} declaration;

/* The row of a declaration, new or found; sql: its INSERT ... RETURNING id. */
static int declare(mb_store *store, const char *sql, int64_t cell, const declaration *d, int64_t *id,
                   mb_error *err)
{
    bool found = false;
    sqlite3_stmt *s = store_statement(store, sql, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "itttt", cell, d->name, d->unit, d->better, d->aggregate ? d->aggregate : "mean");
    int rc = store_step_integer(store, s, id, &found, "storing a counter", err);
    if (rc == MB_OK && !found)
        rc = mb_fail(err, MB_E_BUG, "%s: counter %s was not stored", store->path, d->name);
    return rc;
}

static int store_counters(mb_store *store, int64_t id, const mb_sample_row *row, mb_error *err)
{
    static const char sql[] = DECLARE("counter");
    for (size_t i = 0; i < row->counter_count; i++) {
        const mb_counter_row *c = &row->counters[i];
        int64_t counter = 0;
        int rc = declare(store, sql, row->cell, &(declaration){c->name, c->unit, c->better, c->aggregate},
                         &counter, err);
        if (rc != MB_OK)
            return rc;
        sqlite3_stmt *s =
            store_statement(store, "INSERT INTO counter_value(sample_id, counter_id, value) VALUES (?,?,?)", err);
        if (!s)
            return MB_E_SYSTEM;
        store_bind(s, "iid", id, counter, c->value);
        rc = store_step(store, s, "storing a counter", err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

/* A grid has hundreds of places: its declaration is looked up once. */
static int store_grids(mb_store *store, int64_t id, const mb_sample_row *row, mb_error *err)
{
    static const char sql[] = DECLARE("grid");
    int64_t grid = 0;
    for (size_t i = 0; i < row->grid_count; i++) {
        const mb_grid_row *g = &row->grids[i];
        int rc = MB_OK;
        if (i == 0 || strcmp(g->name, g[-1].name) != 0)
            rc = declare(store, sql, row->cell, &(declaration){g->name, g->unit, g->better, g->aggregate}, &grid,
                         err);
        if (rc != MB_OK)
            return rc;
        sqlite3_stmt *s = store_statement(store,
                                          "INSERT INTO grid_value(sample_id, grid_id, layer, step, total, weight) "
                                          "VALUES (?,?,?,?,?,?)",
                                          err);
        if (!s)
            return MB_E_SYSTEM;
        store_bind(s, "iijjdd", id, grid, g->layer, g->step, g->total, g->weight);
        rc = store_step(store, s, "storing a counter by layer and step", err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

int mb_store_sample(mb_store *store, const mb_sample_row *row, mb_error *err)
{
    int64_t item = 0, prompt = -1, id = 0;
    bool taken = false;
    if (!row->key || !row->status)
        return mb_fail(err, MB_E_BUG, "%s: a sample without key or status", store->path);
    int rc = store_begin(store, err);
    if (rc != MB_OK)
        return rc;
    rc = store_item(store, row, &item, &prompt, err);
    if (rc == MB_OK)
        rc = make_room(store, row->cell, item, &taken, err);
    if (rc == MB_OK && !taken) {
        rc = store_row(store, row, item, prompt, &id, err);
        if (rc == MB_OK)
            rc = store_forwards(store, id, row, err);
        if (rc == MB_OK)
            rc = store_recall(store, id, row, err);
        if (rc == MB_OK)
            rc = store_counters(store, id, row, err);
        if (rc == MB_OK)
            rc = store_grids(store, id, row, err);
        if (rc == MB_OK && row->record)
            rc = store_record(store, id, prompt, row->record, err);
        if (rc == MB_OK && strcmp(row->status, "ok") == 0) { /* it runs now, whatever an earlier start said */
            sqlite3_stmt *s = store_statement(store,
                                              "UPDATE cell SET state = 'open', reason = NULL WHERE id = ? "
                                              "AND state IN ('skipped', 'failed')",
                                              err);
            if (s) {
                store_bind(s, "i", row->cell);
                rc = store_step(store, s, "storing a sample", err);
            } else {
                rc = MB_E_SYSTEM;
            }
        }
    }
    return store_end(store, rc, err);
}
