/*
 * report_head.c - what a report says around its tables: the run, its machine and models, its gates, the baseline
 * of its speed-ups, what was reused and where the files are.
 */
#include "results/report.h"

#include <stdio.h>
#include <string.h>

const char *report_text(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return text ? text : "";
}

sqlite3_stmt *report_query(const paper *p, const char *sql, mb_error *err)
{
    sqlite3_stmt *s = store_statement(p->store, sql, err);
    if (s)
        store_bind(s, "i", p->run);
    return s;
}

int report_query_end(const paper *p, sqlite3_stmt *s, int code, mb_error *err)
{
    sqlite3_reset(s);
    return code == SQLITE_DONE ? MB_OK : store_error(p->store, code, "writing the report", err);
}

static void put_run(const paper *p, sqlite3_stmt *s)
{
    char starts[64] = "", wall[64] = "";
    if (sqlite3_column_int(s, 2) > 1)
        snprintf(starts, sizeof starts, " after %d starts", sqlite3_column_int(s, 2));
    if (sqlite3_column_type(s, 3) != SQLITE_NULL)
        snprintf(wall, sizeof wall, ", %.1f s", sqlite3_column_double(s, 3) / 1e6);
    paper_line(p, PAPER_PLAIN, "started %s, %s%s%s; %lld samples, %lld failed; seed %lld", report_text(s, 1),
               report_text(s, 0), starts, wall, (long long)sqlite3_column_int64(s, 10),
               (long long)sqlite3_column_int64(s, 11), (long long)sqlite3_column_int64(s, 5));
    paper_line(p, PAPER_PLAIN, "device %s (%s, %d threads), git %s", report_text(s, 6), report_text(s, 7),
               sqlite3_column_int(s, 8), report_text(s, 9));
}

int report_head(const paper *p, const char *label, mb_error *err)
{
    char title[256];
    snprintf(title, sizeof title, "run %s", label);
    paper_begin(p, title);
    sqlite3_stmt *s = report_query(p,
                                   "SELECT state, started_at, sessions, wall_us, peak_bytes, seed, device, "
                                   "coalesce(nullif(gpu, ''), cpu), threads, git, samples, failed FROM v_runs "
                                   "WHERE run_id = ?",
                                   err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        put_run(p, s);
    int rc = report_query_end(p, s, code, err);
    if (rc != MB_OK)
        return rc;
    s = report_query(p,
                     "SELECT DISTINCT o.name, o.family, o.type, o.layers, o.query_heads, o.kv_heads, o.head_dim, "
                     "o.block, o.synthetic FROM cell c JOIN model o ON o.id = c.model_id WHERE c.run_id = ? "
                     "ORDER BY o.id",
                     err);
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        paper_line(p, PAPER_PLAIN, "model %s (%s, %s): %d layers, %d query and %d KV heads of %d, blocks of %d%s",
                   report_text(s, 0), report_text(s, 1), report_text(s, 2), sqlite3_column_int(s, 3),
                   sqlite3_column_int(s, 4), sqlite3_column_int(s, 5), sqlite3_column_int(s, 6),
                   sqlite3_column_int(s, 7),
                   sqlite3_column_int(s, 8) ? "; SYNTHETIC weights: only its times mean something" : "");
    return report_query_end(p, s, code, err);
}

/* ---- gates ---- */

int report_gates(const paper *p, mb_error *err)
{
    sqlite3_stmt *s = report_query(p,
                                   "SELECT name, verdict, detail FROM v_gates WHERE run_id = ? ORDER BY "
                                   "CASE verdict WHEN 'fail' THEN 0 WHEN 'pass' THEN 1 ELSE 2 END, name",
                                   err);
    int code, count[3] = {0};
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        bool failed = strcmp(report_text(s, 1), "fail") == 0, passed = strcmp(report_text(s, 1), "pass") == 0;
        if (count[0] + count[1] + count[2]++ == 0 && p->full)
            paper_section(p, "gates");
        if (failed || passed)
            count[2]--;
        count[0] += failed;
        count[1] += passed;
        if (p->full || failed)
            paper_line(p,
                       failed   ? PAPER_BAD
                       : passed ? PAPER_GOOD
                                : PAPER_PLAIN,
                       "%-4s  %s: %s", failed ? "FAIL" : report_text(s, 1), report_text(s, 0), report_text(s, 2));
    }
    if (!p->full && count[0] + count[1] + count[2])
        paper_line(p, count[0] ? PAPER_BAD : PAPER_GOOD, "gates: %d failed, %d passed, %d skipped", count[0],
                   count[1], count[2]);
    return report_query_end(p, s, code, err);
}

/* ---- baseline ---- */

int report_baseline(const paper *p, mb_error *err)
{
    mb_text lines = {0};
    int rc = baseline_lines(p->store, p->run, &lines, err);
    for (char *line = lines.data, *end; rc == MB_OK && line && (end = strchr(line, '\n')); line = end + 1)
        paper_note(p, "%.*s", (int)(end - line), line);
    mb_text_free(&lines);
    return rc;
}

/* ---- what was reused, where the files are ---- */

int report_files(const paper *p, const char *label, mb_error *err)
{
    sqlite3_stmt *s = report_query(p,
                                   "SELECT count(*), sum(y.session_id < (SELECT max(id) FROM session WHERE run_id "
                                   "= ?1)) FROM sample y JOIN v_cell_all c ON c.cell_id = y.cell_id WHERE "
                                   "c.run_id = ?1 AND c.is_current",
                                   err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        if (sqlite3_column_int64(s, 1) > 0)
            paper_line(p, PAPER_PLAIN, "reused: %lld of %lld rows are of earlier starts of this run",
                       (long long)sqlite3_column_int64(s, 1), (long long)sqlite3_column_int64(s, 0));
    int rc = report_query_end(p, s, code, err);
    if (rc != MB_OK || p->full)
        return rc;
    paper_line(p, PAPER_PLAIN,
               "rows in %s; the rest of this report: --full; a page to send: --format html; run %s",
               p->store->path, label);
    return MB_OK;
}
