/*
 * report_spread.c - the report's table of scores by context length.
 */
#include "results/report.h"

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
