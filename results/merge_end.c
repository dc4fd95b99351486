/*
 * merge_end.c - after the rows: sessions in the order in which they started, the state of every run, its gates,
 * and what is missing.
 */
#include "results/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sessions in order ---- */

/* "The newest" of anything is told by the numbers of sessions; files come in any order. */
static int order_sessions(mb_store *out, const merge_tables *tables, mb_error *err)
{
    int64_t bad = 0;
    bool found = false;
    const int sessions = merge_find_table(tables, "session");
    sqlite3_stmt *s =
        store_statement(out,
                        "SELECT count(*) FROM (SELECT started_at < lag(started_at) OVER (ORDER BY id) "
                        "AS early FROM session) WHERE early",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    int rc = store_step_integer(out, s, &bad, &found, "ordering the sessions", err);
    if (rc != MB_OK || bad == 0)
        return rc;
    mb_text sql = {0};
    mb_text_puts(&sql,
                 "CREATE TEMP TABLE session_order AS SELECT id AS old, row_number() OVER (ORDER BY started_at, "
                 "id) AS new FROM session;"
                 "CREATE UNIQUE INDEX temp.session_old ON session_order(old);"
                 "DELETE FROM session_order WHERE old = new;"
                 "UPDATE session SET id = -(SELECT new FROM session_order WHERE old = id) WHERE id IN (SELECT old "
                 "FROM session_order);UPDATE session SET id = -id WHERE id < 0;");
    for (size_t t = 0; t < tables->count; t++) {
        const merge_table *of = &tables->all[t];
        for (size_t c = 0; c < of->column_count; c++) {
            const char *name = of->declared->name, *column = of->columns[c].name;
            if (of->columns[c].references != sessions)
                continue;
            /* By way of negative numbers: a key must not meet another one half way. */
            mb_text_printf(
                &sql,
                "UPDATE \"%s\" SET \"%s\" = -(SELECT new FROM session_order WHERE old = \"%s\") WHERE \"%s\" "
                "IN (SELECT old FROM session_order);UPDATE \"%s\" SET \"%s\" = -\"%s\" WHERE \"%s\" < 0;",
                name, column, column, column, name, column, column, column);
        }
    }
    mb_text_puts(&sql, "DROP TABLE session_order;");
    rc = sql.failed ? mb_no_memory(err, "ordering the sessions")
                    : store_exec(out, sql.data, "ordering the sessions", err);
    mb_text_free(&sql);
    return rc;
}

/* ---- what is there of a run ---- */

/* Parts of a run: those of its newest split, with the state of the newest session of each; '' is not there. A run
 * that one session computed as a whole has none. */
static const char parts_sql[] =
    "WITH RECURSIVE newest AS (SELECT shard_first AS first, shard_last AS last FROM session WHERE run_id = ?1 AND "
    "shard "
    "IS NOT NULL ORDER BY id DESC LIMIT 1), "
    "part(number) AS (SELECT first FROM newest UNION ALL SELECT number + 1 FROM part, newest WHERE number < last) "
    "SELECT p.number, newest.last, coalesce((SELECT max(y.state = 'done') FROM session y WHERE y.run_id = ?1 AND "
    "y.shard = p.number AND y.shard_last = newest.last), 0), "
    "coalesce((SELECT y.state FROM session y WHERE y.run_id = ?1 AND y.shard = p.number AND y.shard_last = "
    "newest.last "
    "ORDER BY y.id DESC LIMIT 1), 'not there') "
    "FROM part p, newest WHERE NOT EXISTS (SELECT 1 FROM session y WHERE y.run_id = ?1 AND y.shard IS NULL AND "
    "y.state = "
    "'done') ORDER BY p.number";

/* "2, 5 to 7 (not there), 9 (running)": neighbours of one state together. */
typedef struct missing {
    mb_text text;
    int64_t from, to, last, count, all;
    char state[24];
} missing;

static void put_range(missing *list)
{
    if (!*list->state)
        return;
    mb_text_printf(&list->text, "%s%lld", list->text.length ? ", " : "", (long long)list->from);
    if (list->to > list->from)
        mb_text_printf(&list->text, " to %lld", (long long)list->to);
    mb_text_printf(&list->text, " (%s)", list->state);
}

static int find_missing(mb_store *out, int64_t run, missing *list, mb_error *err)
{
    sqlite3_stmt *s = store_statement(out, parts_sql, err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t number = sqlite3_column_int64(s, 0);
        const char *state = (const char *)sqlite3_column_text(s, 3);
        list->last = sqlite3_column_int64(s, 1);
        list->all++;
        if (sqlite3_column_int64(s, 2))
            continue;
        list->count++;
        if (strcmp(list->state, state) != 0 || number != list->to + 1) {
            put_range(list);
            list->from = number;
            snprintf(list->state, sizeof list->state, "%s", state);
        }
        list->to = number;
    }
    put_range(list);
    sqlite3_reset(s);
    return code == SQLITE_DONE ? MB_OK : store_error(out, code, "looking for shards", err);
}

/* A run is done when its parts are, or as its newest session ended. */
static int set_state(mb_store *out, int64_t run, const missing *list, mb_error *err)
{
    sqlite3_stmt *s = store_statement(out,
                                      "UPDATE run SET state = coalesce(?2, (SELECT state FROM session WHERE "
                                      "run_id = ?1 ORDER BY id DESC LIMIT 1), "
                                      "state) WHERE id = ?1",
                                      err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "it", run, list->all == 0 ? NULL : list->count ? "interrupted" : "done");
    return store_step(out, s, "storing a run's state", err);
}

static int count_superseded(mb_store *out, int64_t run, int64_t *rows, mb_error *err)
{
    bool found = false;
    sqlite3_stmt *s =
        store_statement(out,
                        "SELECT count(*) FROM v_cell_all c JOIN sample s ON s.cell_id = c.cell_id WHERE "
                        "c.run_id = ? AND NOT c.is_current",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    return store_step_integer(out, s, rows, &found, "counting superseded rows", err);
}

static int end_run(mb_store *out, int64_t run, const char *label, mb_text *notes, mb_error *err)
{
    missing list = {0};
    mb_text shown = {0};
    int64_t superseded = 0;
    int rc = find_missing(out, run, &list, err);
    if (rc == MB_OK)
        rc = set_state(out, run, &list, err);
    if (rc == MB_OK)
        rc = count_superseded(out, run, &superseded, err);
    if (rc == MB_OK)
        rc = mb_gates_run(out, run, err);
    mb_text_visible(&shown, label, "");
    label = shown.data ? shown.data : "";
    if (rc == MB_OK && list.count)
        mb_text_printf(notes, "run %s: %lld of its %lld shards are missing: %s of %lld\n", label,
                       (long long)list.count, (long long)list.all, list.text.data ? list.text.data : "",
                       (long long)list.last);
    else if (rc == MB_OK && list.all)
        mb_text_printf(notes, "run %s: all %lld shards\n", label, (long long)list.all);
    else if (rc == MB_OK)
        mb_text_printf(notes, "run %s: not split\n", label);
    if (rc == MB_OK && superseded)
        mb_text_printf(notes,
                       "run %s: %lld samples are superseded and stand in no table: other code, plug-ins or data "
                       "computed them than the newest (SELECT * FROM v_samples_all WHERE NOT is_current)\n",
                       label, (long long)superseded);
    mb_text_free(&shown);
    mb_text_free(&list.text);
    return rc;
}

/* The next run behind this one, by number; *run 0: there is none. */
static int next_run(mb_store *out, int64_t *run, char **label, mb_error *err)
{
    sqlite3_stmt *s = store_statement(out, "SELECT id, label FROM run WHERE id > ? ORDER BY id LIMIT 1", err);
    int rc = MB_OK;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", *run);
    int code = sqlite3_step(s);
    *run = code == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    *label = code == SQLITE_ROW ? mb_string_copy((const char *)sqlite3_column_text(s, 1)) : NULL;
    if (code == SQLITE_ROW && !*label)
        rc = mb_no_memory(err, "merging");
    else if (code != SQLITE_ROW && code != SQLITE_DONE)
        rc = store_error(out, code, "reading the runs", err);
    sqlite3_reset(s); /* gates change views, which an open question would forbid */
    return rc;
}

int merge_end(mb_store *out, const merge_tables *tables, mb_text *notes, mb_error *err)
{
    int rc = order_sessions(out, tables, err);
    for (int64_t run = 0; rc == MB_OK;) {
        char *label = NULL;
        rc = next_run(out, &run, &label, err);
        if (rc == MB_OK && run)
            rc = end_run(out, run, label, notes, err);
        free(label);
        if (!run)
            break;
    }
    return rc;
}
