/*
 * merge_tables.c - the tables of a store as merging sees them: what tells rows apart, what may differ, what names
 * a row in a sentence. The rest is read from the schema itself.
 */
#include "results/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A table stands behind those that it points to. tests/results/test_merge.c holds the list to schema.sql. */
const merge_declaration merge_declarations[] = {
    {.name = "env", .key = "hash", .words = "host"},
    {.name = "build", .key = "hash", .loose = "git", .words = "hash"},
    {.name = "model", .key = "hash", .words = "name"},
    {.name = "dataset", .key = "hash", .words = "task"},
    {.name = "method", .key = "hash", .loose = "summary reference", .words = "name"},
    {.name = "config", .key = "hash", .loose = "label", .words = "label"},
    {.name = "sampler", .key = "hash", .words = "schedule steps threshold"},
    {.name = "run", .key = "hash", .loose = "label config_json state", .words = "name seed"},
    {.name = "session",
     .key = "run_id env_id command started_at shard shard_first shard_last",
     .loose = "state ended_at wall_us peak_bytes",
     .words = "run_id started_at shard",
     .rule = MERGE_ENDED},
    {.name = "cell",
     .key = "run_id model_id dataset_id? config_id sampler_id pass build_id?",
     .loose = "state reason session_id",
     .words = "run_id model_id dataset_id config_id sampler_id pass",
     .rule = MERGE_NEWEST},
    {.name = "item",
     .key = "dataset_id? key",
     .fill = "bucket length context depth answers_json classes_json",
     .words = "key"},
    {.name = "prompt", .key = "item_id token_hash", .words = "item_id token_hash"},
    {.name = "sample",
     .key = "cell_id item_id",
     .loose = "session_id prefill_us decode_us",
     .words = "cell_id item_id",
     .rule = MERGE_SUCCESS},
    {.name = "forwards", .key = "sample_id forwards", .words = "sample_id forwards", .owner = "sample_id"},
    {.name = "recall", .key = "sample_id layer step", .words = "sample_id layer step", .owner = "sample_id"},
    {.name = "counter", .key = "method_id name", .words = "method_id name"},
    {.name = "counter_value",
     .key = "sample_id counter_id",
     .words = "sample_id counter_id",
     .owner = "sample_id"},
    {.name = "grid", .key = "method_id name", .words = "method_id name"},
    {.name = "grid_value",
     .key = "sample_id grid_id layer step",
     .words = "sample_id grid_id layer step",
     .owner = "sample_id"},
    {.name = "prompt_text", .key = "prompt_id", .words = "prompt_id"},
    {.name = "trace", .key = "sample_id i", .words = "sample_id i", .owner = "sample_id"},
    {.name = "selection",
     .key = "sample_id block layer step",
     .words = "sample_id block layer step",
     .owner = "sample_id"},
    /* Measurements of two sessions are two rows, whatever they measured: nothing is pooled. */
    {.name = "latency",
     .key = "cell_id session_id context batch steps graph phase i",
     .words = "cell_id session_id context batch steps phase i",
     .owner = "session_id"},
    {.name = "memory",
     .key = "cell_id session_id context batch",
     .words = "cell_id session_id context batch",
     .owner = "session_id"},
    {.name = "breakdown",
     .key = "cell_id session_id context batch step_kind part",
     .words = "cell_id session_id context batch step_kind part",
     .owner = "session_id"},
    {.name = "event",
     .key = "run_id session_id stored_at level text",
     .words = "run_id stored_at",
     .owner = "session_id"},
    {.name = "gate", .key = "run_id name", .words = "run_id name", .rule = MERGE_NONE}, /* computed anew */
    {.name = "meta", .key = "key", .words = "key", .rule = MERGE_NONE},
    {.name = NULL},
};

/* Is the word in the list "a b? c"? *marked: it has a "?". */
static bool in_list(const char *list, const char *word, bool *marked)
{
    size_t length = strlen(word);
    for (const char *p = list; p && *p; p += strcspn(p, " "), p += *p == ' ') {
        size_t n = strcspn(p, " ?");
        if (n != length || strncmp(p, word, n) != 0)
            continue;
        if (marked)
            *marked = p[n] == '?';
        return true;
    }
    return false;
}

const char *merge_text(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return text ? text : "";
}

int merge_find_table(const merge_tables *tables, const char *name)
{
    for (size_t i = 0; i < tables->count; i++)
        if (strcmp(tables->all[i].declared->name, name) == 0)
            return (int)i;
    return -1;
}

int merge_find_column(const merge_table *of, const char *name)
{
    for (size_t i = 0; i < of->column_count; i++)
        if (strcmp(of->columns[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* ---- reading the schema ---- */

static void add_column(merge_table *of, const char *name)
{
    const merge_declaration *d = of->declared;
    merge_column *c = &of->columns[of->column_count];
    *c = (merge_column){.references = -1};
    snprintf(c->name, sizeof c->name, "%s", name);
    if (strcmp(name, "id") == 0) {
        c->role = MERGE_ID;
        of->id = (int)of->column_count;
    } else if (in_list(d->key, name, &c->indexed_null)) {
        c->role = MERGE_KEY;
    } else if (in_list(d->loose, name, NULL)) {
        c->role = MERGE_LOOSE;
    } else if (in_list(d->fill, name, NULL)) {
        c->role = MERGE_FILL;
    }
    if (d->owner && strcmp(d->owner, name) == 0)
        of->owner = (int)of->column_count;
    of->column_count++;
}

static int read_columns(merge_table *of, mb_store *out, mb_error *err)
{
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(out->db, "SELECT name FROM pragma_table_info(?)", -1, &s, NULL);
    if (code == SQLITE_OK)
        store_bind(s, "t", of->declared->name);
    of->id = of->owner = -1;
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW && of->column_count < MERGE_COLUMNS) {
        add_column(of, (const char *)sqlite3_column_text(s, 0));
        code = SQLITE_OK;
    }
    sqlite3_finalize(s);
    if (code != SQLITE_DONE)
        return code == SQLITE_ROW ? mb_fail(err, MB_E_BUG, "table %s has too many columns", of->declared->name)
                                  : store_error(out, code, "reading its tables", err);
    return of->column_count ? MB_OK
                            : mb_fail(err, MB_E_BUG, "merging declares the table %s, which the schema has not",
                                      of->declared->name);
}

static int read_references(merge_tables *tables, merge_table *of, mb_store *out, mb_error *err)
{
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(out->db, "SELECT \"from\", \"table\", on_delete FROM pragma_foreign_key_list(?)",
                                  -1, &s, NULL);
    if (code == SQLITE_OK)
        store_bind(s, "t", of->declared->name);
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        int column = merge_find_column(of, (const char *)sqlite3_column_text(s, 0));
        int target = merge_find_table(tables, (const char *)sqlite3_column_text(s, 1));
        if (column >= 0)
            of->columns[column].references = target;
        if (column >= 0 && column == of->owner)
            of->child = strcmp((const char *)sqlite3_column_text(s, 2), "CASCADE") == 0;
        code = SQLITE_OK;
    }
    sqlite3_finalize(s);
    return code == SQLITE_DONE ? MB_OK : store_error(out, code, "reading its tables", err);
}

/* ---- statements ---- */

/* "a" = ?1 AND ...: in the form that the table's unique index has. Numbers of parameters are places of columns. */
static void put_key(const merge_table *of, mb_text *sql)
{
    const char *joint = "";
    for (size_t i = 0; i < of->column_count; i++) {
        const merge_column *c = &of->columns[i];
        if (c->role != MERGE_KEY)
            continue;
        mb_text_printf(sql, c->indexed_null ? "%scoalesce(\"%s\", 0) = coalesce(?%zu, 0)" : "%s\"%s\" IS ?%zu",
                       joint, c->name, i + 1);
        joint = " AND ";
    }
}

static void put_columns(const merge_table *of, const char *format, bool with_id, mb_text *sql)
{
    const char *joint = "";
    for (size_t i = 0; i < of->column_count; i++) {
        if (!with_id && (int)i == of->id)
            continue;
        mb_text_puts(sql, joint);
        if (strcmp(format, "?") == 0)
            mb_text_printf(sql, "?%zu", i + 1);
        else
            mb_text_printf(sql, "\"%s\"", of->columns[i].name);
        joint = ", ";
    }
}

static void put_update(const merge_table *of, mb_text *sql)
{
    const char *joint = "";
    mb_text_printf(sql, "UPDATE \"%s\" SET ", of->declared->name);
    for (size_t i = 0; i < of->column_count; i++) {
        const merge_column *c = &of->columns[i];
        if (c->role != MERGE_LOOSE && c->role != MERGE_FILL)
            continue;
        mb_text_printf(sql, "%s\"%s\" = ", joint, c->name);
        if (c->role == MERGE_FILL)
            mb_text_printf(sql, "coalesce(\"%s\", ?%zu)", c->name, i + 1);
        else
            mb_text_printf(sql, "?%zu", i + 1);
        joint = ", ";
    }
    mb_text_printf(sql, " WHERE id = ?%zu", of->column_count + 1);
}

static int write_statements(merge_table *of, mb_error *err)
{
    const char *name = of->declared->name;
    mb_text read = {0}, find = {0}, insert = {0}, update = {0};
    mb_text_puts(&read, "SELECT ");
    put_columns(of, "", true, &read);
    mb_text_printf(&read, " FROM \"%s\"%s", name, of->id >= 0 ? " ORDER BY id" : "");
    mb_text_puts(&find, "SELECT ");
    put_columns(of, "", true, &find);
    mb_text_printf(&find, " FROM \"%s\" WHERE ", name);
    put_key(of, &find);
    mb_text_printf(&insert, "INSERT INTO \"%s\"(", name);
    put_columns(of, "", false, &insert);
    mb_text_puts(&insert, ") VALUES (");
    put_columns(of, "?", false, &insert);
    mb_text_puts(&insert, ")");
    if (of->id >= 0 && (of->declared->loose || of->declared->fill))
        put_update(of, &update);
    of->read = mb_text_take(&read);
    of->find = mb_text_take(&find);
    of->insert = mb_text_take(&insert);
    of->update = mb_text_take(&update);
    if (of->child) {
        const char *owner = of->columns[of->owner].name;
        of->count = mb_string_format("SELECT count(*) FROM \"%s\" WHERE \"%s\" = ?1", name, owner);
        of->forget = mb_string_format("DELETE FROM \"%s\" WHERE \"%s\" = ?1", name, owner);
    }
    bool whole = of->read && of->find && of->insert && of->update && (!of->child || (of->count && of->forget));
    return whole ? MB_OK : mb_no_memory(err, "merging");
}

static int prepare(mb_store *out, const char *sql, sqlite3_stmt **statement, mb_error *err)
{
    if (!sql || !*sql)
        return MB_OK;
    int code = sqlite3_prepare_v3(out->db, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);
    return code == SQLITE_OK ? MB_OK : store_error(out, code, "preparing to merge", err);
}

int merge_tables_open(merge_tables *tables, mb_store *out, mb_error *err)
{
    size_t count = 0;
    while (merge_declarations[count].name)
        count++;
    *tables = (merge_tables){.all = calloc(count, sizeof *tables->all), .count = count};
    int rc = tables->all ? MB_OK : mb_no_memory(err, "merging");
    for (size_t i = 0; rc == MB_OK && i < count; i++) {
        tables->all[i].declared = &merge_declarations[i];
        rc = read_columns(&tables->all[i], out, err);
    }
    for (size_t i = 0; rc == MB_OK && i < count; i++) {
        merge_table *t = &tables->all[i];
        rc = read_references(tables, t, out, err);
        if (rc == MB_OK)
            rc = write_statements(t, err);
        if (rc == MB_OK)
            rc = prepare(out, t->find, &t->finding, err);
        if (rc == MB_OK)
            rc = prepare(out, t->insert, &t->inserting, err);
        if (rc == MB_OK)
            rc = prepare(out, t->update, &t->updating, err);
        if (rc == MB_OK)
            rc = prepare(out, t->count, &t->counting, err);
        if (rc == MB_OK)
            rc = prepare(out, t->forget, &t->forgetting, err);
    }
    return rc == MB_OK ? merge_tables_check(tables, out, err) : rc;
}

void merge_tables_close(merge_tables *tables)
{
    for (size_t i = 0; tables->all && i < tables->count; i++) {
        merge_table *t = &tables->all[i];
        sqlite3_finalize(t->finding);
        sqlite3_finalize(t->inserting);
        sqlite3_finalize(t->updating);
        sqlite3_finalize(t->counting);
        sqlite3_finalize(t->forgetting);
        free(t->read);
        free(t->find);
        free(t->insert);
        free(t->update);
        free(t->count);
        free(t->forget);
        free(t->entries);
    }
    free(tables->all);
    *tables = (merge_tables){0};
}

/* ---- a file's tables against ours ---- */

static int check_columns(const merge_table *of, mb_store *source, mb_error *err)
{
    sqlite3_stmt *s = NULL;
    size_t known = 0, all = 0;
    /* A view of the name is none of ours: it may compute anything. */
    int code = sqlite3_prepare_v2(source->db,
                                  "SELECT x.name FROM sqlite_master l, pragma_table_xinfo(l.name) x "
                                  "WHERE l.type = 'table' AND l.name = ? AND l.sql LIKE 'CREATE TABLE%'",
                                  -1, &s, NULL);
    if (code == SQLITE_OK)
        store_bind(s, "t", of->declared->name);
    while (code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        known += merge_find_column(of, (const char *)sqlite3_column_text(s, 0)) >= 0;
        all++;
        code = SQLITE_OK;
    }
    sqlite3_finalize(s);
    if (code != SQLITE_DONE)
        return store_error(source, code, "reading its tables", err);
    if (known == of->column_count && all == known)
        return MB_OK;
    return mb_fail(err, MB_E_INPUT, "%s: its table %s has other columns than version %d has: it cannot be merged",
                   source->path, of->declared->name, STORE_VERSION);
}

int merge_tables_check(const merge_tables *tables, mb_store *source, mb_error *err)
{
    sqlite3_stmt *s = NULL;
    int rc = MB_OK;
    int code =
        sqlite3_prepare_v2(source->db,
                           "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' "
                           "ESCAPE '~'",
                           -1, &s, NULL);
    while (rc == MB_OK && code == SQLITE_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(s, 0);
        if (merge_find_table(tables, name) < 0)
            rc = mb_fail(err, MB_E_INPUT, "%s: its table %s is unknown, and merging would lose it", source->path,
                         name);
        code = SQLITE_OK;
    }
    sqlite3_finalize(s);
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(source, code, "reading its tables", err);
    for (size_t i = 0; rc == MB_OK && i < tables->count; i++)
        rc = check_columns(&tables->all[i], source, err);
    return rc;
}

/* ---- naming a row ---- */

#define DEEPEST 4

void merge_describe(mb_store *out, const merge_tables *tables, int of, int64_t id, int depth, mb_text *text)
{
    const merge_table *t = &tables->all[of];
    sqlite3_stmt *s = NULL;
    mb_text sql = {0};
    const char *joint = " (";
    mb_text_puts(text, t->declared->name);
    if (depth > DEEPEST || t->id < 0)
        return;
    mb_text_puts(&sql, "SELECT ");
    put_columns(t, "", true, &sql);
    mb_text_printf(&sql, " FROM \"%s\" WHERE id = ?", t->declared->name);
    if (!sql.failed && sqlite3_prepare_v2(out->db, sql.data, -1, &s, NULL) == SQLITE_OK) {
        store_bind(s, "i", id);
        bool found = sqlite3_step(s) == SQLITE_ROW;
        for (size_t i = 0; found && i < t->column_count; i++) {
            if (!in_list(t->declared->words, t->columns[i].name, NULL) ||
                sqlite3_column_type(s, (int)i) == SQLITE_NULL)
                continue;
            mb_text_puts(text, joint);
            joint = ", ";
            if (t->columns[i].references >= 0)
                merge_describe(out, tables, t->columns[i].references, sqlite3_column_int64(s, (int)i), depth + 1,
                               text);
            else
                mb_text_printf(text, "%s %.60s", t->columns[i].name, merge_text(s, (int)i));
        }
        mb_text_puts(text, *joint == ',' ? ")" : "");
    }
    sqlite3_finalize(s);
    mb_text_free(&sql);
}
