/*
 * plot.c - every figure that a run has data for, as PNG and SVG. What stands under each title (model, device,
 * commit, run) and the stamp of a failed gate is the same on all of them.
 */
#include "results/identity.h"
#include "results/figure.h"

#include <stdlib.h>
#include <string.h>

static const char *column_text(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return text ? text : "";
}

/* "tiny | cpu: AMD EPYC | git 0123 | run quick, 2026-11-22 | 960 samples | seed 1" */
static int make_caption(mb_store *store, int64_t run, mb_text *caption, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(store,
                        "SELECT (SELECT group_concat(DISTINCT name || CASE WHEN synthetic THEN ' (SYNTHETIC "
                        "weights)' ELSE '' END) FROM "
                        "model WHERE id IN (SELECT model_id FROM cell WHERE run_id = ?1)), device, "
                        "coalesce(nullif(gpu, ''), cpu), git, "
                        "run, substr(started_at, 1, 10), samples, seed FROM v_runs WHERE run_id = ?1",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW)
        mb_text_printf(caption, "model %s   device %s (%s)   git %s   run %s, %s, %lld samples, seed %lld",
                       column_text(s, 0), column_text(s, 1), column_text(s, 2), column_text(s, 3),
                       column_text(s, 4), column_text(s, 5), (long long)sqlite3_column_int64(s, 6),
                       (long long)sqlite3_column_int64(s, 7));
    int rc = code == SQLITE_ROW || code == SQLITE_DONE ? MB_OK : store_error(store, code, "reading the run", err);
    sqlite3_reset(s);
    return rc;
}

/* "gates: 3 passed, 1 skipped" into the caption; the names of failed ones into the stamp. */
static int add_gates(mb_store *store, int64_t run, mb_text *caption, mb_text *stamp, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(store,
                        "SELECT count(*), sum(verdict = 'pass'), sum(verdict = 'skip'), "
                        "group_concat(CASE verdict WHEN 'fail' THEN name END, '; ') FROM v_gates WHERE run_id = ?",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW && sqlite3_column_int(s, 0)) {
        mb_text_printf(caption, "   gates: %d passed, %d skipped", sqlite3_column_int(s, 1),
                       sqlite3_column_int(s, 2));
        if (*column_text(s, 3))
            mb_text_printf(stamp, "GATE FAILED: %s", column_text(s, 3));
    }
    int rc =
        code == SQLITE_ROW || code == SQLITE_DONE ? MB_OK : store_error(store, code, "reading the gates", err);
    sqlite3_reset(s);
    return rc;
}

/* The shared style, once. */
static int write_style(const char *folder, mb_error *err)
{
    size_t size = 0;
    const char *style = mb_embedded_find("plots/style.gp", &size);
    char *path = mb_string_format("%s/data/style.gp", folder);
    int rc = MB_OK;
    if (!style)
        rc = mb_fail(err, MB_E_BUG, "plots/style.gp is not compiled in");
    else if (!path)
        rc = mb_no_memory(err, "drawing figures");
    else
        rc = mb_file_write(path, style, size, err);
    free(path);
    return rc;
}

/* Views that figures read, as temporary tables run_X: a view of quantiles is computed once, not once a figure. */
static int read_views(mb_store *store, int64_t run, mb_error *err)
{
    static const char *const views[] = {"recall",    "recall_config", "niah",       "forwards",
                                        "latency",   "speedup",       "break_even", "crossover",
                                        "breakdown", "memory",        "pareto",     "counter_grid"};
    int rc = MB_OK;
    for (size_t i = 0; rc == MB_OK && i < sizeof views / sizeof *views; i++) {
        char *sql =
            sqlite3_mprintf("DROP TABLE IF EXISTS temp.run_%s; CREATE TEMP TABLE run_%s AS SELECT * FROM v_%s "
                            "WHERE run_id = %lld",
                            views[i], views[i], views[i], (sqlite3_int64)run);
        rc = sql ? store_exec(store, sql, "reading the views", err) : mb_no_memory(err, "drawing figures");
        sqlite3_free(sql);
    }
    return rc;
}

int mb_plot_all(mb_store *store, const char *run, const char *folder, int *drawn, mb_error *err)
{
    figure f = {.store = store, .folder = folder};
    mb_text caption = {0}, stamp = {0};
    char *data = mb_string_format("%s/data", folder);
    *drawn = 0;
    int rc = data ? store_find_run(store, run, &f.run_id, NULL, err) : mb_no_memory(err, "drawing figures");
    if (rc == MB_OK)
        rc = mb_folder_make(data, err);
    if (rc == MB_OK)
        rc = write_style(folder, err);
    if (rc == MB_OK)
        rc = make_caption(store, f.run_id, &caption, err);
    if (rc == MB_OK)
        rc = add_gates(store, f.run_id, &caption, &stamp, err);
    if (rc == MB_OK && (caption.failed || stamp.failed))
        rc = mb_no_memory(err, "drawing figures");
    f.caption = caption.data ? caption.data : "";
    f.stamp = stamp.data ? stamp.data : "";
    if (rc == MB_OK)
        rc = read_views(store, f.run_id, err);
    if (rc == MB_OK)
        rc = figures_quality(&f, err);
    if (rc == MB_OK)
        rc = figures_speed(&f, err);
    figure_free(&f);
    *drawn = f.drawn;
    mb_text_free(&caption);
    mb_text_free(&stamp);
    free(data);
    return rc;
}
