/*
 * record.c - what a run keeps of a chosen sample to look at: the prompt's text, the steps, the keys that each
 * layer selected. Numbers of a blob are LEB128: seven bits a byte, the lowest first, the top bit says that more
 * follow.
 */
#include "results/store.h"

static int store_prompt(mb_store *store, int64_t prompt, const mb_record_row *record, mb_error *err)
{
    sqlite3_stmt *s = store_statement(
        store, "INSERT OR IGNORE INTO prompt_text(prompt_id, text, token_bytes) VALUES (?,?,?)", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "itb", prompt, record->prompt, record->token_bytes, record->token_bytes_size);
    return store_step(store, s, "storing a prompt's text", err);
}

static int store_steps(mb_store *store, int64_t sample, const mb_record_row *record, mb_error *err)
{
    for (size_t i = 0; i < record->step_count; i++) {
        const mb_step_row *row = &record->steps[i];
        sqlite3_stmt *s = store_statement(
            store, "INSERT INTO trace(sample_id, i, block, step, masked, prefix, written) VALUES (?,?,?,?,?,?,?)",
            err);
        if (!s)
            return MB_E_SYSTEM;
        store_bind(s, "iijjjjt", sample, (int64_t)i, row->block, row->step, row->masked, row->prefix,
                   row->written);
        int rc = store_step(store, s, "storing the steps of a sample", err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

static int store_selections(mb_store *store, int64_t sample, const mb_record_row *record, mb_error *err)
{
    for (size_t i = 0; i < record->selection_count; i++) {
        const mb_selection_row *row = &record->selections[i];
        sqlite3_stmt *s =
            store_statement(store,
                            "INSERT INTO selection(sample_id, block, layer, step, granularity, prefix, "
                            "kv_heads, pages) VALUES (?,?,?,?,?,?,?,?)",
                            err);
        if (!s)
            return MB_E_SYSTEM;
        store_bind(s, "ijjjjjjb", sample, row->block, row->layer, row->step, row->granularity, row->prefix,
                   row->kv_heads, row->pages, row->size);
        int rc = store_step(store, s, "storing the selections of a sample", err);
        if (rc != MB_OK)
            return rc;
    }
    return MB_OK;
}

int store_record(mb_store *store, int64_t sample, int64_t prompt, const mb_record_row *record, mb_error *err)
{
    int rc = record->prompt && prompt >= 0 ? store_prompt(store, prompt, record, err) : MB_OK;
    if (rc == MB_OK)
        rc = store_steps(store, sample, record, err);
    return rc == MB_OK ? store_selections(store, sample, record, err) : rc;
}
