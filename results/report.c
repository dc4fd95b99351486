/*
 * report.c - the comparison of a run for people (terminal, Markdown) and programs (CSV, JSON lines).
 *
 * Rows are method configurations, columns are tasks, then what the answers cost. Scores are in percent,
 * differences to the reference are paired by item and carry a 95 % bootstrap interval.
 */
#include "results/identity.h"
#include "results/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 140 /* where the terminal's width is unknown */

static bool for_programs(mb_table_format format)
{
    return format == MB_TABLE_CSV || format == MB_TABLE_JSONL;
}

/* The long form for programs: a row per configuration and task, and one for the mean ("*"). */
static void long_form(table *t, const char *run, const comparison *c)
{
    for (size_t r = 0; r < c->arm_count; r++) {
        const arm *a = &c->arms[r];
        for (size_t i = 0; i <= c->task_count; i++) {
            const arm_score *s = i < c->task_count ? &a->tasks[i] : &a->all;
            table_put(t, run, false);
            table_put(t, c->model, false);
            table_put(t, c->sampler, false);
            table_put(t, i < c->task_count ? c->tasks[i] : "*", false);
            table_put(t, a->method, false);
            table_put(t, a->label, false);
            if (a->k >= 0)
                table_printf(t, true, "%lld", (long long)a->k);
            else
                table_put(t, NULL, true);
            report_real(t, s->score, "%.17g");
            table_printf(t, true, "%lld", (long long)s->n);
            report_real(t, s->delta.mean, "%.17g");
            report_real(t, s->delta.low, "%.17g");
            report_real(t, s->delta.high, "%.17g");
            report_real(t, s->p, "%.17g");
            report_real(t, s->work, "%.17g");
            report_real(t, s->work_select, "%.17g");
            report_real(t, s->engaged, "%.17g");
            report_real(t, s->forwards, "%.17g");
            report_real(t, s->forwards_ratio.mean, "%.17g");
            report_real(t, s->forwards_ratio.low, "%.17g");
            report_real(t, s->forwards_ratio.high, "%.17g");
            report_real(t, s->index_recall, "%.17g");
            report_real(t, s->mass_recall, "%.17g");
        }
    }
}

static int report_for_programs(const paper *p, const char *label, const comparison *list, size_t count)
{
    static const char *const names[] = {"run",
                                        "model",
                                        "sampler",
                                        "task",
                                        "method",
                                        "config",
                                        "k",
                                        "score",
                                        "n",
                                        "delta",
                                        "delta_low",
                                        "delta_high",
                                        "p_adjusted",
                                        "work",
                                        "work_select",
                                        "engaged",
                                        "forwards_per_block",
                                        "forwards_ratio",
                                        "forwards_ratio_low",
                                        "forwards_ratio_high",
                                        "index_recall",
                                        "mass_recall"};
    table t;
    table_init(&t, sizeof names / sizeof *names, names);
    for (size_t i = 0; i < count; i++)
        long_form(&t, label, &list[i]);
    table_render(&t, p->format, 0, false, p->out);
    table_free(&t);
    return MB_OK;
}

/* ---- the other sections ---- */

/* A titled table of a query, nothing when it has no rows. sql holds one %lld for the run. */
static int listing(const paper *p, const char *title, const char *sql, mb_error *err)
{
    mb_text body = {0};
    char *text = sqlite3_mprintf(sql, (sqlite3_int64)p->run);
    if (!text)
        return mb_no_memory(err, "the report");
    int rc = mb_table_query(p->store, text, p->format, p->width, &body, err);
    sqlite3_free(text);
    if (rc == MB_OK && body.data && strcmp(body.data, "(no rows)\n") != 0) {
        report_section(p, title);
        mb_text_append(p->out, body.data, body.length);
    }
    mb_text_free(&body);
    return rc;
}

static const char *text_at(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return text ? text : "";
}

/* Run, machine and models in a few lines. */
static int head(const paper *p, const char *label, mb_error *err)
{
    const char *item = p->format == MB_TABLE_MARKDOWN ? "- " : "",
               *title = p->format == MB_TABLE_MARKDOWN ? "## " : "";
    sqlite3_stmt *s = store_statement(p->store,
                                      "SELECT state, started_at, sessions, wall_us, peak_bytes, seed, device, "
                                      "coalesce(nullif(gpu, ''), cpu), threads, "
                                      "git, samples, failed FROM v_runs WHERE run_id = ?",
                                      err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", p->run);
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW) {
        mb_text_printf(p->out, "%srun %s\n%s", title, label, p->format == MB_TABLE_MARKDOWN ? "\n" : "");
        mb_text_printf(p->out, "%sstarted %s, %s", item, text_at(s, 1), text_at(s, 0));
        if (sqlite3_column_int(s, 2) > 1)
            mb_text_printf(p->out, " after %d starts", sqlite3_column_int(s, 2));
        if (sqlite3_column_type(s, 3) != SQLITE_NULL)
            mb_text_printf(p->out, ", %.1f s", sqlite3_column_double(s, 3) / 1e6);
        mb_text_printf(p->out, "; %lld samples, %lld failed; seed %lld\n", (long long)sqlite3_column_int64(s, 10),
                       (long long)sqlite3_column_int64(s, 11), (long long)sqlite3_column_int64(s, 5));
        mb_text_printf(p->out, "%sdevice %s (%s, %d threads), git %s\n", item, text_at(s, 6), text_at(s, 7),
                       sqlite3_column_int(s, 8), text_at(s, 9));
        code = SQLITE_DONE;
    }
    sqlite3_reset(s);
    if (code != SQLITE_DONE)
        return store_error(p->store, code, "reading the run", err);
    s = store_statement(p->store,
                        "SELECT DISTINCT o.name, o.family, o.type, o.layers, o.query_heads, o.kv_heads, "
                        "o.head_dim, o.block, o.synthetic "
                        "FROM cell c JOIN model o ON o.id = c.model_id WHERE c.run_id = ? ORDER BY o.id",
                        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", p->run);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        mb_text_printf(p->out, "%smodel %s (%s, %s): %d layers, %d query and %d KV heads of %d, blocks of %d%s\n",
                       item, text_at(s, 0), text_at(s, 1), text_at(s, 2), sqlite3_column_int(s, 3),
                       sqlite3_column_int(s, 4), sqlite3_column_int(s, 5), sqlite3_column_int(s, 6),
                       sqlite3_column_int(s, 7),
                       sqlite3_column_int(s, 8) ? "; SYNTHETIC weights: only its times mean something" : "");
    sqlite3_reset(s);
    return code == SQLITE_DONE ? MB_OK : store_error(p->store, code, "reading the models", err);
}

static int gates(const paper *p, mb_error *err)
{
    sqlite3_stmt *s = store_statement(p->store,
                                      "SELECT name, verdict, detail FROM v_gates WHERE run_id = ? "
                                      "ORDER BY verdict = 'skip', name",
                                      err);
    int code;
    bool first = true;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", p->run);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        bool failed = strcmp(text_at(s, 1), "fail") == 0, markdown = p->format == MB_TABLE_MARKDOWN;
        if (first)
            report_section(p, "gates");
        first = false;
        const char *on = failed && p->colour ? "\033[1;31m" : failed && markdown ? "**" : "";
        const char *off = failed && p->colour ? "\033[0m" : failed && markdown ? "**" : "";
        mb_text_printf(p->out, "%s%s%-4s  %s%s: %s\n", markdown ? "- " : "", on, failed ? "FAIL" : text_at(s, 1),
                       text_at(s, 0), off, text_at(s, 2));
    }
    sqlite3_reset(s);
    return code == SQLITE_DONE ? MB_OK : store_error(p->store, code, "reading the gates", err);
}

/* ---- equal work ---- */

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
        table_put(&t, text_at(s, 0), false);
        for (size_t l = 0; l < count; l++)
            report_real(
                &t, sqlite3_column_type(s, (int)l + 1) == SQLITE_NULL ? NAN : sqlite3_column_double(s, (int)l + 1),
                format);
    }
    if (code != SQLITE_DONE)
        rc = store_error(p->store, code, "comparing", err);
    else
        table_render(&t, p->format, p->width, false, p->out);
out:
    sqlite3_finalize(s);
    table_free(&t);
    mb_text_free(&sql);
    return rc;
}

/* What the curves of all methods say where they read as much. */
static int equal_work(const paper *p, const comparison *c, mb_error *err)
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
        report_section(p, title);
        rc = equal_work_grid(p, c, grids_of[i].value, grids_of[i].format, levels, count, err);
    }
    if (rc == MB_OK && count)
        mb_text_puts(
            p->out,
            "\nat equal work: prefix tokens read to attend and to select, share of exact's. Linear between two "
            "measured configurations,\n- outside of what was measured; v_equal_work names the two and has the "
            "tasks one by one.\n");
    return rc;
}

/* One length of block, the longest: the others are in v_latency and in a figure. Requests stand apart: their
 * sampler is the run's own. */
static const char latency_sql[] =
    "SELECT config AS method, sampler, context, batch, "
    "max(CASE phase WHEN 'first_step' THEN median_us END) / 1e3 AS first_ms, "
    "max(CASE phase WHEN 'later_step' THEN median_us END) / 1e3 AS later_ms, "
    "max(CASE phase WHEN 'commit' THEN median_us END) / 1e3 AS commit_ms, "
    "max(CASE phase WHEN 'block' THEN median_us END) / 1e3 AS block_ms, "
    "CASE WHEN NOT is_oracle THEN max(CASE phase WHEN 'block' THEN speedup END) END AS speedup, "
    "CASE WHEN NOT is_oracle THEN max(CASE phase WHEN 'block' THEN low END) END AS low, "
    "CASE WHEN NOT is_oracle THEN max(CASE phase WHEN 'block' THEN high END) END AS high, max(n) AS n, "
    "min(substr(measured_at, 1, 10)) AS measured "
    "FROM (SELECT *, max(steps) OVER (PARTITION BY sampler_id) AS longest FROM v_speedup WHERE run_id = %lld "
    "AND phase IN ('first_step', 'later_step', 'commit', 'block')) "
    "WHERE steps = longest GROUP BY model_id, sampler, config_id, context, batch "
    "ORDER BY model_id, sampler, context, batch, is_reference DESC, config_id";

static const char request_sql[] =
    "SELECT config AS method, sampler, context, batch, median_us / 1e3 AS request_ms, "
    "CASE WHEN NOT is_oracle THEN speedup END AS speedup, CASE WHEN NOT is_oracle THEN low END AS low, "
    "CASE WHEN NOT is_oracle THEN high END AS high, n, substr(measured_at, 1, 10) AS measured FROM v_speedup "
    "WHERE run_id = %lld AND phase = 'request' ORDER BY model_id, sampler, context, batch, is_reference DESC, "
    "config_id";

/* The two factors of what a user waits for, at the longest measured context and block. */
static const char end_to_end_sql[] =
    "SELECT config AS method, sampler, context, batch, forwards_factor, cost_factor, speedup AS product, "
    "request_speedup AS request, n FROM (SELECT *, max(context) OVER (PARTITION BY run_id) AS longest, "
    "max(steps) OVER (PARTITION BY run_id) AS most FROM v_end_to_end WHERE run_id = %lld) "
    "WHERE context = longest AND steps = most AND is_reference = 0 AND is_oracle = 0 "
    "ORDER BY model_id, sampler_id, batch, config_id";

/* Ends and mean of each grid; the places themselves are in a figure. */
static const char grid_sql[] =
    "SELECT config AS method, name, unit, better, aggregate, min(value) AS lowest, "
    "CASE aggregate WHEN 'sum' THEN sum(value) WHEN 'max' THEN max(value) "
    "ELSE sum(value * weight) / sum(weight) END AS value, max(value) AS highest, count(DISTINCT layer) AS layers, "
    "count(DISTINCT step) AS steps, max(n) AS n FROM v_counter_grid WHERE run_id = %lld AND pass = 'quality' "
    "GROUP BY model_id, sampler_id, config_id, name ORDER BY model_id, sampler_id, config_id, name";

/* A line of results/baselines.txt. */
typedef struct measured_baseline {
    char gpu[128], ratio[128], peer[128], where[128];
} measured_baseline;

static bool find_baseline(const char *gpu, measured_baseline *m)
{
    const char *line = mb_embedded_find("results/baselines.txt", NULL);
    for (; line && *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n'))
        if (*line != '#' &&
            sscanf(line, "%127[^\t\n]\t%127[^\t\n]\t%127[^\t\n]\t%127[^\n]", m->gpu, m->ratio, m->peer,
                   m->where) == 4 &&
            strcmp(m->gpu, gpu) == 0)
            return true;
    return false;
}

/* What the exact attention of this run's device is against public kernels: a speed-up is over it. */
static int baseline(const paper *p, mb_error *err)
{
    measured_baseline m;
    sqlite3_stmt *s = store_statement(
        p->store,
        "SELECT coalesce(gpu, ''), device FROM v_runs WHERE run_id = ?1 AND EXISTS (SELECT 1 FROM v_speedup WHERE "
        "run_id = ?1)",
        err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", p->run);
    int code = sqlite3_step(s);
    if (code == SQLITE_ROW) {
        const char *gpu = text_at(s, 0);
        mb_text_puts(p->out, "\nbaseline of every speed-up: this program's exact attention; ");
        if (find_baseline(gpu, &m))
            mb_text_printf(p->out, "its time is %s of %s's on %s (%s)\n", m.ratio, m.peer, m.gpu, m.where);
        else
            mb_text_printf(p->out, "it was not measured against a public kernel on %s\n",
                           *gpu ? gpu : text_at(s, 1));
        code = SQLITE_DONE;
    }
    sqlite3_reset(s);
    return code == SQLITE_DONE ? MB_OK : store_error(p->store, code, "reading the run", err);
}

static int report_for_people(const paper *p, const char *label, const comparison *list, size_t count,
                             mb_error *err)
{
    int rc = head(p, label, err);
    for (size_t i = 0; rc == MB_OK && i < count; i++) {
        const comparison *c = &list[i];
        char title[256];
        snprintf(title, sizeof title, "scores in percent, sampler %s, model %s", c->sampler, c->model);
        report_section(p, title);
        report_scores(p, c, false);
        report_unused_tasks(p, c);
        if (c->arm_count > 1 && c->arms[0].is_reference) {
            snprintf(title, sizeof title,
                     "paired difference to %s in points, \xc2\xb1 half of the 95 %% bootstrap interval, "
                     "sampler %s",
                     c->arms[0].label, c->sampler);
            report_section(p, title);
            report_scores(p, c, true);
        }
        rc = equal_work(p, c, err);
    }
    if (rc == MB_OK && count)
        mb_text_puts(
            p->out,
            "\n+ and - after a score: better or worse than the reference at 5 %, two-sided, paired by item; "
            "below 20 items that differ\nthe exact sign test decides, else the sign-flip test; Holm's correction "
            "over all scores of the table.\n"
            "recall: against the exact top k, layers and steps that ran dense left out.\n"
            "work: prefix tokens read to attend and to select, share of exact's. engaged: share of sparse "
            "layer calls.\nforwards /exact: denoising forwards of a block over the reference's, paired by "
            "item; its interval is in the CSV.\n");
    if (rc == MB_OK)
        rc = listing(p, "latency: medians of fixed work", latency_sql, err);
    if (rc == MB_OK)
        rc = listing(p, "latency: whole requests, decoded with the sampler", request_sql, err);
    if (rc == MB_OK)
        rc = listing(p,
                     "end to end: fewer or more forwards x cheaper forwards = speed-up (request: measured as one)",
                     end_to_end_sql, err);
    if (rc == MB_OK)
        rc = baseline(p, err);
    if (rc == MB_OK)
        rc = listing(
            p, "counters of methods",
            "SELECT config AS method, name, unit, better, aggregate, avg(value) AS "
            "value, sum(n) AS n FROM v_counters WHERE run_id = %lld AND pass = 'quality' GROUP BY config_id, "
            "name ORDER BY config_id, name",
            err);
    if (rc == MB_OK)
        rc = listing(p, "counters by layer and step: places in v_counter_grid", grid_sql, err);
    if (rc == MB_OK)
        rc = listing(p, "failed and skipped",
                     "SELECT status, what, pass, config AS method, task, count(*) AS n, reason "
                     "FROM v_failures WHERE run_id = %lld GROUP BY status, what, pass, config, task, reason "
                     "ORDER BY status, n DESC, config, task LIMIT 40",
                     err);
    if (rc == MB_OK)
        rc = gates(p, err);
    return rc;
}

int mb_report(mb_store *store, const char *run, mb_table_format format, int max_width, mb_text *out, mb_error *err)
{
    comparison *list = NULL;
    size_t count = 0;
    char *label = NULL;
    paper p = {.store = store,
               .format = format,
               .width = max_width > 0 ? max_width : WIDTH,
               .out = out,
               .colour = format == MB_TABLE_TERMINAL && max_width > 0 && isatty(STDOUT_FILENO) == 1};
    int rc = store_find_run(store, run, &p.run, &label, err);
    if (rc != MB_OK)
        return rc;
    rc = store_freeze(store, p.run, err);
    if (rc == MB_OK)
        rc = comparison_load(store, p.run, &list, &count, err);
    if (rc == MB_OK)
        rc = for_programs(format) ? report_for_programs(&p, label, list, count)
                                  : report_for_people(&p, label, list, count, err);
    if (rc == MB_OK && out->failed)
        rc = mb_no_memory(err, "the report");
    rc = store_thaw(store, rc, err);
    comparison_free(list, count);
    free(label);
    return rc;
}
