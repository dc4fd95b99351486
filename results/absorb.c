/*
 * absorb.c - rows from process to process: a worker stores into a database in memory as any run does, packs it,
 * and the one process that writes the file merges it. There is no other form of a row than a row.
 */
#include "results/merge.h"

#include <stdlib.h>
#include <string.h>

int mb_store_open_memory(mb_store **store, mb_error *err)
{
    mb_store *s = calloc(1, sizeof *s);
    *store = NULL;
    if (!s || !(s->path = mb_string_copy("a database in memory")) || !(s->file = mb_string_copy(""))) {
        free(s ? s->path : NULL);
        free(s);
        return mb_no_memory(err, "a database in memory");
    }
    s->mode = MB_STORE_SCRATCH;
    s->lock_fd = -1;
    int code = sqlite3_open_v2(":memory:", &s->db, SQLITE_OPEN_READWRITE, NULL);
    int rc = code == SQLITE_OK ? store_exec(s, "PRAGMA foreign_keys = ON; BEGIN", "opening", err)
                               : store_error(s, code, "opening", err);
    if (rc == MB_OK)
        rc = store_end(s, store_create_tables(s, err), err);
    if (rc == MB_OK)
        *store = s;
    else
        mb_store_close(s, NULL);
    return rc;
}

int mb_store_pack(mb_store *store, mb_text *bytes, mb_error *err)
{
    sqlite3_int64 size = 0;
    unsigned char *copy = sqlite3_serialize(store->db, "main", &size, 0);
    if (!copy)
        return mb_no_memory(err, "the rows of a sample");
    mb_text_append(bytes, (const char *)copy, (size_t)size);
    sqlite3_free(copy);
    if (bytes->failed)
        return mb_no_memory(err, "the rows of a sample");
    return store_exec(store, "DELETE FROM sample; DELETE FROM prompt; DELETE FROM item; DELETE FROM event",
                      "forgetting", err);
}

void store_absorb_end(mb_store *store)
{
    if (!store->absorbing)
        return;
    merge_tables_close(&store->absorbing->tables);
    free(store->absorbing);
    store->absorbing = NULL;
}

/* The session that takes the rows, and the statements, which last as long as the store. */
static int prepare(mb_store *store, int64_t run, mb_error *err)
{
    bool found = false;
    if (!store->absorbing) {
        store->absorbing = calloc(1, sizeof *store->absorbing);
        if (!store->absorbing)
            return mb_no_memory(err, "the rows of a worker");
        store->absorbing->out = store;
        int rc = merge_tables_open(&store->absorbing->tables, store, err);
        if (rc != MB_OK) {
            store_absorb_end(store);
            return rc;
        }
    }
    sqlite3_stmt *s = store_statement(store, "SELECT max(id) FROM session WHERE run_id = ?", err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    return store_step_integer(store, s, &store->absorbing->session, &found, "looking for the session", err);
}

static int open_bytes(mb_store *source, const char *bytes, size_t size, mb_error *err)
{
    unsigned char *copy = sqlite3_malloc64(size);
    if (!copy)
        return mb_no_memory(err, "the rows of a worker");
    memcpy(copy, bytes, size);
    int code = sqlite3_open_v2(":memory:", &source->db, SQLITE_OPEN_READWRITE, NULL);
    if (code != SQLITE_OK) {
        sqlite3_free(copy);
        return store_error(source, code, "opening", err);
    }
    code = sqlite3_deserialize(source->db, "main", copy, (sqlite3_int64)size, (sqlite3_int64)size,
                               SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_READONLY);
    return code == SQLITE_OK ? MB_OK : store_error(source, code, "reading", err);
}

/* Every run in the bytes was known before. */
static bool is_same_run(const merging *m)
{
    int place = merge_find_table(&m->tables, "run");
    const merge_table *runs = &m->tables.all[place];
    for (size_t i = 0; i < runs->entry_count; i++)
        if (runs->entries[i].fate != MERGE_SAME)
            return false;
    return runs->entry_count > 0;
}

int absorb_rows(mb_store *store, int64_t run, const char *bytes, size_t size, mb_error *err)
{
    char name[] = "the rows of a worker";
    mb_store source = {.path = name, .file = name, .mode = MB_STORE_READ, .lock_fd = -1};
    int rc = prepare(store, run, err);
    if (rc == MB_OK)
        rc = open_bytes(&source, bytes, size, err);
    if (rc == MB_OK) {
        store->absorbing->source = &source;
        rc = merge_rows(store->absorbing, err);
        if (rc == MB_OK && !is_same_run(store->absorbing))
            rc = mb_fail(err, MB_E_BUG, "%s: a worker computed another run than this one", store->path);
        store->absorbing->source = NULL;
    }
    sqlite3_close(source.db);
    return rc;
}

int mb_store_absorb(mb_store *store, int64_t run, const char *bytes, size_t size, mb_error *err)
{
    int rc = store_begin(store, err);
    return rc == MB_OK ? store_end(store, absorb_rows(store, run, bytes, size, err), err) : rc;
}
