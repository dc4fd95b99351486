/*
 * frozen.c - the views of one run over tables that were filled once. A report asks dozens of questions, and every
 * answer would rank all cells and join all samples anew; a temporary table of a view's name, in front of the
 * file's own, answers them all.
 *
 * The temporary objects live in this connection alone. Nothing of the run may be written while they are there:
 * the frozen rows would not show it.
 */
#include "results/store.h"

#include <stdlib.h>
#include <string.h>

/* Views that others are built on, in the order of views.sql, each with what its readers join and filter by. */
static const struct {
    const char *view, *index;
} frozen[] = {
    {"v_cell_all", "cell_id"}, {"v_cell", "cell_id"},   {"v_samples", "cell_id, item_id, token_hash"},
    {"v_accuracy", NULL},      {"v_task_used", NULL},   {"v_paired_item", "config_id, sampler_id"},
    {"v_recall", NULL},        {"v_latency_all", NULL}, {"v_speedup", NULL},
    {"v_curve", NULL},         {"v_work", NULL},
};
enum { FROZEN = sizeof frozen / sizeof *frozen };

#define CREATE "CREATE VIEW "

/* Length of the view's name at text. */
static size_t name_length(const char *text)
{
    return strcspn(text, " \n(");
}

static const char *index_of(const char *name, size_t length, bool *is_frozen)
{
    *is_frozen = false;
    for (size_t i = 0; i < FROZEN; i++) {
        if (strlen(frozen[i].view) != length || strncmp(frozen[i].view, name, length) != 0)
            continue;
        *is_frozen = true;
        return frozen[i].index;
    }
    return NULL;
}

/* One statement of views.sql, "CREATE VIEW name AS SELECT ...;" and the comments behind it, as a temporary one. */
static void put_view(mb_text *out, const char *statement, size_t length, bool freeze, int64_t run)
{
    bool is_frozen = false;
    size_t head = strlen(CREATE), n = name_length(statement + head);
    const char *name = statement + head, *index = index_of(name, n, &is_frozen);
    if (!freeze || !is_frozen) {
        mb_text_puts(out, "CREATE TEMP VIEW ");
        mb_text_append(out, name, length - head);
        return;
    }
    /* Through a view of another name, so that the run can be asked for behind whatever the statement ends with. */
    mb_text_printf(out, "CREATE TEMP VIEW live_%.*s", (int)n, name);
    mb_text_append(out, name + n, length - head - n);
    mb_text_printf(out, "\nCREATE TEMP TABLE %.*s AS SELECT * FROM live_%.*s", (int)n, name, (int)n, name);
    if (run >= 0)
        mb_text_printf(out, " WHERE run_id = %lld", (long long)run);
    mb_text_printf(out, ";\nDROP VIEW temp.live_%.*s;\n", (int)n, name);
    if (index)
        mb_text_printf(out, "CREATE INDEX temp.frozen_%.*s ON %.*s(%s);\n", (int)n, name, (int)n, name, index);
}

/* Every view, temporary; with freeze the building blocks among them are tables, of one run or (-1) of all.
 * malloc'ed; NULL: no memory. */
static char *temporary_views(const char *views, bool freeze, int64_t run)
{
    mb_text text = {0};
    const char *at = strstr(views, CREATE);
    while (at) {
        const char *next = strstr(at + 1, CREATE);
        put_view(&text, at, next ? (size_t)(next - at) : strlen(at), freeze, run);
        at = next;
    }
    return mb_text_take(&text);
}

static int make_views(mb_store *store, bool freeze, int64_t run, mb_error *err)
{
    const char *views = mb_embedded_find("results/views.sql", NULL);
    if (!views)
        return mb_fail(err, MB_E_BUG, "results/views.sql is not compiled in");
    char *text = temporary_views(views, freeze, run);
    int rc =
        text ? store_exec(store, text, "making the views", err) : mb_no_memory(err, "opening %s", store->path);
    free(text);
    return rc;
}

/* Drops every temporary table or view, so that the file's own are seen again. */
static int drop_temporary(mb_store *store, mb_error *err)
{
    mb_text drops = {0};
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(store->db, "SELECT type, name FROM sqlite_temp_master WHERE type <> 'index'", -1,
                                  &s, NULL);
    while (code == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
        mb_text_printf(&drops, "DROP %s temp.%s;\n", (const char *)sqlite3_column_text(s, 0),
                       (const char *)sqlite3_column_text(s, 1));
    sqlite3_finalize(s);
    int rc = code != SQLITE_OK ? store_error(store, code, "reading its views", err)
             : drops.failed    ? mb_no_memory(err, "the views of %s", store->path)
                               : MB_OK;
    if (rc == MB_OK && drops.data)
        rc = store_exec(store, drops.data, "renewing its views", err);
    mb_text_free(&drops);
    return rc;
}

int store_use_own_views(mb_store *store, mb_error *err)
{
    store->own_views = true;
    return make_views(store, false, -1, err);
}

int store_freeze(mb_store *store, int64_t run, mb_error *err)
{
    int rc = drop_temporary(store, err);
    return rc == MB_OK ? make_views(store, true, run, err) : rc;
}

int store_thaw(mb_store *store, int rc, mb_error *err)
{
    mb_error own = {0};
    int thawed = drop_temporary(store, &own);
    if (thawed == MB_OK && store->own_views)
        thawed = make_views(store, false, -1, &own);
    return rc == MB_OK && thawed != MB_OK ? mb_fail(err, thawed, "%s", own.text) : rc;
}
