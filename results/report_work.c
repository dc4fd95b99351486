/*
 * report_work.c - the report's tables of equal work: what the curves of all methods say at the same measured work.
 */
#include "results/report.h"

#include <math.h>
#include <stdio.h>

enum { LEVELS = 16 };

/* Levels of work that at least two curves of a comparison reach, ascending; one curve alone compares nothing. */
static int common_levels(const paper *p, const comparison *c, double *levels, size_t *count, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(p->store,
                        "SELECT work FROM v_equal_work WHERE run_id = ? AND model_id = ? AND "
                        "sampler_id = ? AND task = '*' GROUP BY work HAVING count(*) > 1 ORDER BY work",
                        err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "iii", c->run_id, c->model_id, c->sampler_id);
    for (*count = 0; (code = sqlite3_step(s)) == SQLITE_ROW && *count < LEVELS;)
        levels[(*count)++] = sqlite3_column_double(s, 0);
    sqlite3_reset(s);
    return code == SQLITE_DONE || code == SQLITE_ROW ? MB_OK : store_error(p->store, code, "comparing", err);
}

/* One quantity of v_equal_work over the tasks: a row a curve, a column a level. */
static int equal_work_grid(const paper *p, const comparison *c, const char *value, const char *format,
                           const double *levels, size_t count, mb_error *err)
{
    char heads[LEVELS][32];
    const char *names[LEVELS + 1] = {"method"};
    mb_text sql = {0};
    table t = {.failed = true};
    sqlite3_stmt *s = NULL;
    int code, rc = MB_OK;
    mb_text_puts(&sql, "SELECT curve");
    for (size_t l = 0; l < count; l++) {
        snprintf(heads[l], sizeof heads[l], "%g", levels[l]);
        names[l + 1] = heads[l];
        mb_text_printf(&sql, ", max(CASE WHEN work = %.17g THEN %s END)", levels[l], value);
    }
    mb_text_printf(&sql,
                   " FROM v_equal_work WHERE run_id = ? AND model_id = ? AND sampler_id = ? AND task = '*' AND "
                   "%s IS NOT NULL GROUP BY curve ORDER BY is_reference DESC, min(config_id)",
                   value);
    if (sql.failed) {
        rc = mb_no_memory(err, "the report");
        goto out;
    }
    code = sqlite3_prepare_v2(p->store->db, sql.data, -1, &s, NULL);
    if (code != SQLITE_OK) {
        rc = store_error(p->store, code, "comparing", err);
        goto out;
    }
    table_init(&t, count + 1, names);
    store_bind(s, "iii", c->run_id, c->model_id, c->sampler_id);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        bool any = false;
        for (size_t l = 0; l < count; l++)
            any = any || sqlite3_column_type(s, (int)l + 1) != SQLITE_NULL;
        if (!any)
            continue;
        table_put(&t, report_text(s, 0), false);
        for (size_t l = 0; l < count; l++)
            report_real(
                &t, sqlite3_column_type(s, (int)l + 1) == SQLITE_NULL ? NAN : sqlite3_column_double(s, (int)l + 1),
                format);
    }
    if (code != SQLITE_DONE)
        rc = store_error(p->store, code, "comparing", err);
    else
        paper_table(p, &t, false);
out:
    sqlite3_finalize(s);
    table_free(&t);
    mb_text_free(&sql);
    return rc;
}

/* What the curves of all methods say where they read as much. */
int report_equal_work(const paper *p, const comparison *c, mb_error *err)
{
    static const struct {
        const char *value, *title, *format;
    } grids_of[] = {{"100 * score", "score in percent", "%.1f"},
                    {"index_recall", "index recall", "%.3f"},
                    {"mass_recall", "mass recall", "%.3f"}};
    double levels[LEVELS];
    size_t count = 0;
    bool recall = report_any_value(c, report_index_recall);
    int rc = common_levels(p, c, levels, &count, err);
    for (size_t i = 0; rc == MB_OK && count && i < (recall ? 3 : 1); i++) {
        char title[256];
        snprintf(title, sizeof title, "%s at equal work (columns: measured work), sampler %s, model %s",
                 grids_of[i].title, c->sampler, c->model);
        paper_section(p, title);
        rc = equal_work_grid(p, c, grids_of[i].value, grids_of[i].format, levels, count, err);
    }
    if (rc == MB_OK && count)
        paper_note(
            p, "at equal work: prefix tokens read to attend and to select, share of exact's. Linear between two "
               "measured configurations,\n- outside of what was measured; v_equal_work names the two and has the "
               "tasks one by one.");
    return rc;
}
