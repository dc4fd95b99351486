/*
 * report.c - the comparison of a run for people (terminal, Markdown) and programs (CSV, JSON lines).
 *
 * Rows are method configurations, columns are tasks, then what the answers cost. Scores are in percent,
 * differences to the reference are paired by item and carry a 95 % bootstrap interval.
 */
#include "results/comparison.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 140 /* where the terminal's width is unknown */

typedef struct paper { /* what a report is written with */
    mb_store *store;
    int64_t run;
    mb_table_format format;
    int width;
    bool colour; /* the reader is a terminal */
    mb_text *out;
} paper;

static bool for_programs(mb_table_format format)
{
    return format == MB_TABLE_CSV || format == MB_TABLE_JSONL;
}

static void put_real(table *t, double value, const char *format)
{
    char text[64];
    if (isnan(value)) {
        table_put(t, NULL, true);
        return;
    }
    snprintf(text, sizeof text, format, value);
    table_put(t, text, true);
}

static void section(const paper *p, const char *title)
{
    mb_text_printf(p->out, p->format == MB_TABLE_MARKDOWN ? "\n### %s\n\n" : "\n%s\n\n", title);
}

/* Mark of a difference whose interval excludes 0. */
static const char *mark(const interval *delta)
{
    return delta->low > 0 ? "+" : delta->high < 0 ? "-" : " ";
}

/* "-4.2 ±3.1": half of the interval's width; the interval itself is in the CSV. */
static void put_delta(table *t, const arm *a, const interval *d)
{
    if (a->is_reference || isnan(d->mean))
        table_put(t, NULL, true);
    else if (isnan(d->low))
        table_printf(t, true, "%+.1f", 100 * d->mean);
    else
        table_printf(t, true, "%+.1f \xc2\xb1%.1f", 100 * d->mean, 50 * (d->high - d->low));
}

/* ---- the tables of one comparison ---- */

typedef double (*arm_value)(const arm *a);
static double value_index(const arm *a)
{
    return a->all.index_recall;
}
static double value_mass(const arm *a)
{
    return a->all.mass_recall;
}
static double value_work(const arm *a)
{
    return a->all.work;
}
static double value_select(const arm *a)
{
    return a->all.work_select;
}
static double value_engaged(const arm *a)
{
    return a->all.engaged;
}
static double value_forwards(const arm *a)
{
    return a->all.forwards;
}
static double value_first(const arm *a)
{
    return a->first_us / 1e3;
}
static double value_later(const arm *a)
{
    return a->later_us / 1e3;
}

static const struct {
    const char *name, *format;
    arm_value value;
} cost_columns[] = {
    {"recall index", "%.3f", value_index},  {"recall mass", "%.3f", value_mass},
    {"work", "%.2f", value_work},           {"work select", "%.2f", value_select},
    {"engaged", "%.2f", value_engaged},     {"forwards /block", "%.2f", value_forwards},
    {"first step ms", "%.3f", value_first}, {"later step ms", "%.3f", value_later},
};
enum { COSTS = sizeof cost_columns / sizeof *cost_columns };

static bool any_value(const comparison *c, arm_value value)
{
    for (size_t i = 0; i < c->arm_count; i++)
        if (!isnan(value(&c->arms[i])))
            return true;
    return false;
}

static void put_label(table *t, const arm *a)
{
    if (a->is_lossless && !a->is_reference)
        table_printf(t, false, "%s (noise floor)", a->label);
    else
        table_put(t, a->label, false);
}

/* Scores of tasks[0..n), then with `costs` the mean and what it cost. deltas: differences instead. */
static void grid(const paper *p, const comparison *c, const size_t *tasks, size_t n, bool costs, bool deltas)
{
    size_t columns = 0, cap = n + COSTS + 8;
    const char **names = calloc(cap, sizeof *names);
    table t = {.failed = true};
    if (!names) {
        p->out->failed = true;
        return;
    }
    names[columns++] = "method";
    for (size_t i = 0; i < n; i++)
        names[columns++] = c->tasks[tasks[i]];
    if (costs) {
        if (!deltas)
            names[columns++] = "mean";
        names[columns++] = deltas ? "mean of tasks" : "paired \xce\x94";
        if (!deltas)
            names[columns++] = "n";
    }
    for (size_t i = 0; costs && !deltas && i < COSTS; i++)
        if (any_value(c, cost_columns[i].value))
            names[columns++] = cost_columns[i].name;
    table_init(&t, columns, names);
    for (size_t r = 0; r < c->arm_count; r++) {
        const arm *a = &c->arms[r];
        if (deltas && a->is_reference)
            continue;
        put_label(&t, a);
        for (size_t i = 0; i < n; i++) {
            const arm_score *s = &a->tasks[tasks[i]];
            if (deltas)
                put_delta(&t, a, &s->delta);
            else if (isnan(s->score))
                table_put(&t, NULL, true);
            else
                table_printf(&t, true, "%.1f%s", 100 * s->score, mark(&s->delta));
        }
        if (costs && !deltas)
            put_real(&t, 100 * a->all.score, "%.1f");
        if (costs)
            put_delta(&t, a, &a->all.delta);
        if (costs && !deltas)
            table_printf(&t, true, "%lld", (long long)a->all.n);
        for (size_t i = 0; costs && !deltas && i < COSTS; i++)
            if (any_value(c, cost_columns[i].value))
                put_real(&t, cost_columns[i].value(a), cost_columns[i].format);
    }
    table_render(&t, p->format, p->width, true, p->out);
    table_free(&t);
    free(names);
}

/* As many tasks a table as the width allows; the first one that has room carries the costs. A difference on a
 * single item says nothing that the scores do not: such tasks have no column among the differences. */
static void grids(const paper *p, const comparison *c, bool deltas)
{
    size_t label = 8, cell = deltas ? 13 : 9, costs = deltas ? 14 : 26, n = 0;
    size_t *tasks = calloc(c->task_count + 1, sizeof *tasks);
    if (!tasks) {
        p->out->failed = true;
        return;
    }
    for (size_t t = 0; t < c->task_count; t++)
        if (!deltas || c->arms[0].tasks[t].n > 1)
            tasks[n++] = t;
    for (size_t r = 0; r < c->arm_count; r++) {
        size_t w = text_columns(c->arms[r].label) + 2;
        label = w > label ? w : label;
    }
    for (size_t i = 0; !deltas && i < COSTS; i++)
        costs += any_value(c, cost_columns[i].value) ? 10 : 0;
    size_t width = (size_t)p->width;
    if (p->format != MB_TABLE_TERMINAL || label + costs + n * cell <= width) {
        grid(p, c, tasks, n, true, deltas);
    } else {
        size_t chunk = width > label + cell ? (width - label) / cell : 1;
        grid(p, c, tasks, 0, true, deltas);
        for (size_t from = 0; from < n; from += chunk) {
            mb_text_puts(p->out, "\n");
            grid(p, c, tasks + from, from + chunk < n ? chunk : n - from, false, deltas);
        }
    }
    free(tasks);
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
            put_real(t, s->score, "%.17g");
            table_printf(t, true, "%lld", (long long)s->n);
            put_real(t, s->delta.mean, "%.17g");
            put_real(t, s->delta.low, "%.17g");
            put_real(t, s->delta.high, "%.17g");
            put_real(t, s->work, "%.17g");
            put_real(t, s->engaged, "%.17g");
            put_real(t, s->forwards, "%.17g");
            put_real(t, s->index_recall, "%.17g");
            put_real(t, s->mass_recall, "%.17g");
        }
    }
}

static int report_for_programs(const paper *p, const char *label, const comparison *list, size_t count)
{
    static const char *const names[] = {"run",          "model",      "sampler", "task",    "method",
                                        "config",       "k",          "score",   "n",       "delta",
                                        "delta_low",    "delta_high", "work",    "engaged", "forwards_per_block",
                                        "index_recall", "mass_recall"};
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
        section(p, title);
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
            section(p, "gates");
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
            put_real(
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
    bool recall = any_value(c, value_index);
    int rc = common_levels(p, c, levels, &count, err);
    for (size_t i = 0; rc == MB_OK && count && i < (recall ? 3 : 1); i++) {
        char title[256];
        snprintf(title, sizeof title, "%s at equal work (columns: measured work), sampler %s, model %s",
                 grids_of[i].title, c->sampler, c->model);
        section(p, title);
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

/* One length of block, the longest: the others are in v_latency and in a figure. */
static const char latency_sql[] =
    "SELECT config AS method, context, batch, steps, "
    "max(CASE phase WHEN 'first_step' THEN median_us END) / 1e3 AS first_ms, "
    "max(CASE phase WHEN 'later_step' THEN median_us END) / 1e3 AS later_ms, "
    "max(CASE phase WHEN 'commit' THEN median_us END) / 1e3 AS commit_ms, "
    "max(CASE phase WHEN 'block' THEN median_us END) / 1e3 AS block_ms, "
    "CASE WHEN NOT is_oracle THEN max(CASE phase WHEN 'block' THEN speedup END) END AS speedup, max(n) AS n "
    "FROM (SELECT *, max(steps) OVER (PARTITION BY sampler_id) AS longest FROM v_speedup WHERE run_id = %lld) "
    "WHERE steps = longest GROUP BY model_id, sampler_id, config_id, context, batch, steps "
    "ORDER BY model_id, sampler_id, context, batch, is_reference DESC, config_id";

/* Ends and mean of each grid; the places themselves are in a figure. */
static const char grid_sql[] =
    "SELECT config AS method, name, unit, better, aggregate, min(value) AS lowest, "
    "CASE aggregate WHEN 'sum' THEN sum(value) WHEN 'max' THEN max(value) "
    "ELSE sum(value * weight) / sum(weight) END AS value, max(value) AS highest, count(DISTINCT layer) AS layers, "
    "count(DISTINCT step) AS steps, max(n) AS n FROM v_counter_grid WHERE run_id = %lld AND pass = 'quality' "
    "GROUP BY model_id, sampler_id, config_id, name ORDER BY model_id, sampler_id, config_id, name";

static int report_for_people(const paper *p, const char *label, const comparison *list, size_t count,
                             mb_error *err)
{
    int rc = head(p, label, err);
    for (size_t i = 0; rc == MB_OK && i < count; i++) {
        const comparison *c = &list[i];
        char title[256];
        snprintf(title, sizeof title, "scores in percent, sampler %s, model %s", c->sampler, c->model);
        section(p, title);
        grids(p, c, false);
        if (c->arm_count > 1 && c->arms[0].is_reference) {
            snprintf(title, sizeof title,
                     "paired difference to %s in points, \xc2\xb1 half of the 95 %% bootstrap interval, "
                     "sampler %s",
                     c->arms[0].label, c->sampler);
            section(p, title);
            grids(p, c, true);
        }
        rc = equal_work(p, c, err);
    }
    if (rc == MB_OK && count)
        mb_text_puts(p->out,
                     "\n+ and - after a score: the 95 % interval of its paired difference excludes 0.\n"
                     "recall: against the exact top k, layers and steps that ran dense left out.\n"
                     "work: prefix tokens read, share of exact's. engaged: share of sparse layer calls.\n");
    if (rc == MB_OK)
        rc = listing(p, "latency: medians", latency_sql, err);
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
    if (rc == MB_OK)
        rc = comparison_load(store, p.run, &list, &count, err);
    if (rc == MB_OK)
        rc = for_programs(format) ? report_for_programs(&p, label, list, count)
                                  : report_for_people(&p, label, list, count, err);
    if (rc == MB_OK && out->failed)
        rc = mb_no_memory(err, "the report");
    comparison_free(list, count);
    free(label);
    return rc;
}
