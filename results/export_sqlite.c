/*
 * export_sqlite.c - a database without what old versions of SQLite cannot read: the same tables, not STRICT, and
 * the same views. SQLite 3.26 (RHEL 8) is the oldest that was tried.
 *
 * Rows are carried from one connection to the other: a connection for reading cannot attach a file for writing.
 */
#include "results/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct copy {
    mb_store *from;
    sqlite3 *to;
    const char *path;
} copy;

static int failed(const copy *c, const char *doing, mb_error *err)
{
    return mb_fail(err, MB_E_SYSTEM, "%s: %s: %s", c->path, doing, sqlite3_errmsg(c->to));
}

static int execute(const copy *c, const char *sql, const char *doing, mb_error *err)
{
    return sqlite3_exec(c->to, sql, NULL, NULL, NULL) == SQLITE_OK ? MB_OK : failed(c, doing, err);
}

/* The statements of schema.sql without the word STRICT behind a table. */
static int create_tables(const copy *c, mb_error *err)
{
    static const char word[] = ") STRICT";
    const char *schema = mb_embedded_find("results/schema.sql", NULL);
    mb_text sql = {0};
    if (!schema)
        return mb_fail(err, MB_E_BUG, "results/schema.sql is not compiled in");
    for (const char *at = strstr(schema, word); at; at = strstr(schema, word)) {
        mb_text_append(&sql, schema, (size_t)(at - schema) + 1);
        schema = at + strlen(word);
        schema += *schema == ','; /* STRICT, WITHOUT ROWID */
    }
    mb_text_puts(&sql, schema);
    int rc = sql.failed ? mb_no_memory(err, "%s", c->path) : execute(c, sql.data, "creating the tables", err);
    mb_text_free(&sql);
    return rc;
}

/* Columns by name: those of a file that was brought to this version stand in another order. */
static sqlite3_stmt *prepare_insert(const copy *c, const char *name, sqlite3_stmt *rows, mb_error *err)
{
    mb_text sql = {0};
    sqlite3_stmt *insert = NULL;
    mb_text_printf(&sql, "INSERT INTO \"%s\" (", name);
    for (int i = 0; i < sqlite3_column_count(rows); i++)
        mb_text_printf(&sql, "%s\"%s\"", i ? ", " : "", sqlite3_column_name(rows, i));
    mb_text_puts(&sql, ") VALUES (");
    for (int i = 0; i < sqlite3_column_count(rows); i++)
        mb_text_puts(&sql, i ? ", ?" : "?");
    mb_text_puts(&sql, ")");
    if (sql.failed)
        mb_no_memory(err, "%s", c->path);
    else if (sqlite3_prepare_v2(c->to, sql.data, -1, &insert, NULL) != SQLITE_OK)
        failed(c, name, err);
    mb_text_free(&sql);
    return insert;
}

static int copy_table(const copy *c, const char *name, mb_error *err)
{
    sqlite3_stmt *rows = NULL, *insert = NULL;
    int code, rc = MB_OK;
    char *sql = sqlite3_mprintf("SELECT * FROM main.\"%w\"", name);
    code = sql ? sqlite3_prepare_v2(c->from->db, sql, -1, &rows, NULL) : SQLITE_NOMEM;
    sqlite3_free(sql);
    if (code != SQLITE_OK)
        return store_error(c->from, code, "reading", err);
    insert = prepare_insert(c, name, rows, err);
    while (insert && rc == MB_OK && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(rows); i++)
            sqlite3_bind_value(insert, i + 1, sqlite3_column_value(rows, i));
        if (sqlite3_step(insert) != SQLITE_DONE)
            rc = failed(c, name, err);
        sqlite3_reset(insert);
    }
    if (!insert)
        rc = MB_E_SYSTEM;
    else if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(c->from, code, "reading", err);
    sqlite3_finalize(insert);
    sqlite3_finalize(rows);
    return rc;
}

static int copy_tables(const copy *c, mb_error *err)
{
    int code, rc = MB_OK;
    sqlite3_stmt *s = store_statement(c->from,
                                      "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE "
                                      "'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
                                      err);
    if (!s)
        return MB_E_SYSTEM;
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW)
        rc = copy_table(c, (const char *)sqlite3_column_text(s, 0), err);
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(c->from, code, "reading", err);
    sqlite3_reset(s);
    return rc;
}

static int fill(const copy *c, mb_error *err)
{
    const char *views = mb_embedded_find("results/views.sql", NULL);
    char marks[96];
    snprintf(marks, sizeof marks, "PRAGMA application_id = %d; PRAGMA user_version = %d", STORE_APPLICATION_ID,
             STORE_VERSION);
    int rc = views ? execute(c, "BEGIN", "writing", err) : mb_fail(err, MB_E_BUG, "views.sql is not compiled in");
    if (rc == MB_OK)
        rc = create_tables(c, err);
    if (rc == MB_OK)
        rc = copy_tables(c, err);
    if (rc == MB_OK)
        rc = execute(c, views, "creating the views", err);
    if (rc == MB_OK)
        rc = execute(c, marks, "writing", err);
    return rc == MB_OK ? execute(c, "COMMIT", "writing", err) : rc;
}

int mb_export_sqlite(mb_store *store, const char *path, mb_error *err)
{
    copy c = {.from = store, .path = path};
    if (access(path, F_OK) == 0)
        return mb_fail(err, MB_E_INPUT, "%s is there already and is not overwritten: choose another name", path);
    char *part = mb_string_format("%s.part", path);
    int rc = part ? mb_folder_make_parent(path, err) : mb_no_memory(err, "%s", path);
    if (rc == MB_OK) {
        store_remove_files(part);
        if (sqlite3_open_v2(part, &c.to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
            rc = failed(&c, "cannot write it", err);
    }
    if (rc == MB_OK)
        rc = fill(&c, err);
    sqlite3_close(c.to);
    if (rc == MB_OK && rename(part, path) != 0)
        rc = mb_fail(err, MB_E_SYSTEM, "cannot write %s: %s", path, strerror(errno));
    if (rc != MB_OK && part)
        store_remove_files(part);
    free(part);
    return rc;
}
