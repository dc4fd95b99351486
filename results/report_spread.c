/*
 * report_spread.c - the report's tables of what scores depend on: the context length within a run, the seed
 * between runs of one config.
 */
#include "results/report.h"

#include <math.h>
#include <stdio.h>

enum { LENGTHS = 16 };

/* "4K" for 4096. */
static void put_length(char *text, size_t size, int64_t tokens)
{
    if (tokens % 1024 == 0)
        snprintf(text, size, "to %lldK", (long long)tokens / 1024);
    else
        snprintf(text, size, "to %lld", (long long)tokens);
}

static sqlite3_stmt *of_comparison(const paper *p, const comparison *c, const char *sql, mb_error *err)
{
    sqlite3_stmt *s = store_statement(p->store, sql, err);
    if (s)
        store_bind(s, "iii", c->run_id, c->model_id, c->sampler_id);
    return s;
}

static int read_lengths(const paper *p, const comparison *c, int64_t *lengths, size_t *count, mb_error *err)
{
    sqlite3_stmt *s =
        of_comparison(p, c,
                      "SELECT DISTINCT up_to FROM v_accuracy_context WHERE run_id = ? AND model_id = ? "
                      "AND sampler_id = ? ORDER BY 1",
                      err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    for (*count = 0; (code = sqlite3_step(s)) == SQLITE_ROW;)
        if (*count < LENGTHS)
            lengths[(*count)++] = sqlite3_column_int64(s, 0);
    return report_query_end(p, s, code, err);
}

int report_contexts(const paper *p, const comparison *c, mb_error *err)
{
    int64_t lengths[LENGTHS];
    char heads[LENGTHS][32], title[256];
    const char *names[LENGTHS + 1] = {"method"};
    size_t count = 0, at = 0;
    int64_t config = -1;
    table t;
    int code, rc = read_lengths(p, c, lengths, &count, err);
    if (rc != MB_OK || count < 2) /* one length is the score itself */
        return rc;
    for (size_t l = 0; l < count; l++) {
        put_length(heads[l], sizeof heads[l], lengths[l]);
        names[l + 1] = heads[l];
    }
    sqlite3_stmt *s =
        of_comparison(p, c,
                      "SELECT config_id, config, up_to, score, n FROM v_accuracy_context WHERE run_id "
                      "= ? AND model_id = ? AND sampler_id = ? ORDER BY is_reference DESC, config_id, "
                      "up_to",
                      err);
    if (!s)
        return MB_E_SYSTEM;
    table_init(&t, count + 1, names);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        if (sqlite3_column_int64(s, 0) != config) {
            for (; config >= 0 && at < count; at++)
                table_put(&t, NULL, true);
            config = sqlite3_column_int64(s, 0);
            table_put(&t, report_text(s, 1), false);
            at = 0;
        }
        for (; at < count && lengths[at] != sqlite3_column_int64(s, 2); at++)
            table_put(&t, NULL, true);
        if (at++ < count)
            table_printf(&t, true, "%.1f", 100 * sqlite3_column_double(s, 3));
    }
    for (; config >= 0 && at < count; at++)
        table_put(&t, NULL, true);
    rc = report_query_end(p, s, code, err);
    if (rc == MB_OK) {
        snprintf(title, sizeof title, "scores in percent by prompt tokens, sampler %s, model %s", c->sampler,
                 c->model);
        paper_section(p, title);
        paper_table(p, &t, true);
    }
    table_free(&t);
    return rc;
}

/* Other runs of the run's name: only then is it worth asking all of them. */
static bool has_siblings(const paper *p, mb_error *err)
{
    sqlite3_stmt *s = report_query(
        p, "SELECT count(*) FROM run a JOIN run b ON b.name = a.name AND b.seed <> a.seed WHERE a.id = ?1", err);
    bool any = s && sqlite3_step(s) == SQLITE_ROW && sqlite3_column_int64(s, 0) > 0;
    if (s)
        sqlite3_reset(s);
    return any;
}

static int put_seeds(const paper *p, mb_error *err)
{
    static const char *const names[] = {"model", "method",      "sampler", "seeds",
                                        "mean",  "\xc2\xb1 sd", "lowest",  "highest"};
    table t;
    size_t rows = 0;
    int code;
    sqlite3_stmt *s = report_query(
        p,
        "SELECT q.model, q.config, q.sampler, q.seeds, q.score, q.variance, q.lowest, q.highest FROM v_seeds q, "
        "(SELECT name, json_remove(config_json, '$.seed', '$.results', '$.plots', '$.threads') AS text FROM run "
        "WHERE id = ?1) r WHERE q.name = r.name AND q.config_text IS r.text AND q.seeds > 1 ORDER BY q.model, "
        "q.sampler, q.first_run_id, q.k, "
        "q.config",
        err);
    if (!s)
        return MB_E_SYSTEM;
    table_init(&t, sizeof names / sizeof *names, names);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        for (int c = 0; c < 3; c++)
            table_put(&t, report_text(s, c), false);
        table_printf(&t, true, "%lld", (long long)sqlite3_column_int64(s, 3));
        report_real(&t, 100 * sqlite3_column_double(s, 4), "%.1f");
        report_real(&t, 100 * sqrt(sqlite3_column_double(s, 5)), "%.1f");
        report_real(&t, 100 * sqlite3_column_double(s, 6), "%.1f");
        report_real(&t, 100 * sqlite3_column_double(s, 7), "%.1f");
        rows++;
    }
    int rc = report_query_end(p, s, code, err);
    if (rc == MB_OK && rows) {
        paper_section(p,
                      "scores in percent over the seeds of this config, with the standard deviation between them");
        paper_table(p, &t, false);
    }
    table_free(&t);
    return rc;
}

int report_seeds(const paper *p, mb_error *err)
{
    if (!has_siblings(p, err))
        return MB_OK;
    int rc = store_freeze(p->store, -1, err);
    return store_thaw(p->store, rc == MB_OK ? put_seeds(p, err) : rc, err);
}
