/*
 * figures_quality.c - accuracy, recall, needles, counters and forwards. Oracles are drawn here, dashed, as the
 * upper bound.
 */
#include "results/comparison.h"
#include "results/figure.h"
#include "results/figures_sql.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- accuracy ---- */

/* "mage k=256 rule=votes" without " k=256"; against work, without whatever number the run sweeps. */
static void series_label(const arm *a, bool by_work, char *label, size_t cap)
{
    char budget[32];
    if (by_work && a->curve) {
        snprintf(label, cap, "%s", a->curve);
        return;
    }
    snprintf(budget, sizeof budget, " k=%lld", (long long)a->k);
    snprintf(label, cap, "%s", a->label);
    char *at = a->k >= 0 ? strstr(label, budget) : NULL;
    size_t n = strlen(budget);
    if (at && (at[n] == '\0' || at[n] == ' '))
        memmove(at, at + n, strlen(at + n) + 1);
}

static const arm_score *score_of(const arm *a, size_t task, size_t task_count)
{
    return task < task_count ? &a->tasks[task] : &a->all;
}

/* One arm's point: the interval is that of the paired difference, set around the score. */
static void put_score(figure *f, double x, const arm_score *s)
{
    double score = 100 * s->score, low = 100 * (s->delta.low - s->delta.mean),
           high = 100 * (s->delta.high - s->delta.mean);
    if (!isnan(x) && !isnan(score))
        figure_point(f, x, score, score + low, score + high);
}

/* Order of the legend, as in the other figures: the reference, methods by name, oracles. */
static int compare_arms(const void *a, const void *b)
{
    const arm *x = *(const arm *const *)a, *y = *(const arm *const *)b;
    if (x->is_reference != y->is_reference)
        return x->is_reference ? -1 : 1;
    if (x->is_oracle != y->is_oracle)
        return x->is_oracle ? 1 : -1;
    int order = strcmp(x->method, y->method);
    return order ? order : (x->config_id > y->config_id) - (x->config_id < y->config_id);
}

typedef struct line_point {
    double x;
    const arm *a;
} line_point;

static int compare_points(const void *a, const void *b)
{
    const line_point *x = a, *y = b;
    int order = (x->x > y->x) - (x->x < y->x);
    return order ? order : (x->a->config_id > y->a->config_id) - (x->a->config_id < y->a->config_id);
}

/* What the series of a panel are made of. */
typedef struct accuracy_lines {
    const comparison *c;
    size_t task;
    bool by_work;
    int64_t least, most; /* budgets */
    const arm **arms;    /* in the order of the legend */
    bool *done;          /* [arm] in a series already */
    line_point *line;    /* room for one series */
} accuracy_lines;

/* The arms that share a series with the i-th, in ascending order of x. Returns how many. */
static size_t collect_line(accuracy_lines *l, size_t i, const char *label)
{
    char other[256];
    size_t n = 0;
    for (size_t j = i; j < l->c->arm_count; j++) {
        series_label(l->arms[j], l->by_work, other, sizeof other);
        if (strcmp(other, label) != 0 || strcmp(l->arms[j]->method, l->arms[i]->method) != 0)
            continue;
        const arm_score *s = score_of(l->arms[j], l->task, l->c->task_count);
        l->done[j] = true;
        l->line[n++] = (line_point){l->by_work ? s->work : (double)l->arms[j]->k, l->arms[j]};
    }
    qsort(l->line, n, sizeof *l->line, compare_points);
    return n;
}

static void put_line_point(figure *f, const accuracy_lines *l, const line_point *point)
{
    const arm_score *s = score_of(point->a, l->task, l->c->task_count);
    if (!l->by_work && point->a->k < 0) {
        put_score(f, (double)l->least, s);
        put_score(f, (double)l->most, s);
        return;
    }
    put_score(f, point->x, s);
    if (!l->by_work) {
        char tic[32];
        snprintf(tic, sizeof tic, "%lld", (long long)point->a->k);
        figure_x_tic(f, point->x, tic);
    }
}

static void put_lines(figure *f, accuracy_lines *l)
{
    const char *before = NULL;
    for (size_t i = 0; i < l->c->arm_count; i++) {
        const arm *a = l->arms[i];
        char label[256];
        if (l->done[i] || isnan(score_of(a, l->task, l->c->task_count)->score))
            continue;
        series_label(a, l->by_work, label, sizeof label);
        bool another = before && strcmp(before, a->method) == 0; /* a colour is a method's, not a curve's */
        before = a->method;
        figure_series_begin(f, label, figure_style(f->store, a->method),
                            a->is_oracle      ? 2
                            : a->is_reference ? 3
                            : another         ? 4
                                              : 1,
                            true);
        size_t n = collect_line(l, i, label);
        for (size_t j = 0; j < n; j++)
            put_line_point(f, l, &l->line[j]);
    }
}

/* All arms as series of one panel, each in ascending order of x. by_work: x is measured work and a series is a
 * curve of v_curve; else x is the budget, a series differs in nothing else, and an arm without budget is a line
 * across. */
static void accuracy_panel(figure *f, const comparison *c, size_t task, bool by_work)
{
    accuracy_lines l = {.c = c,
                        .task = task,
                        .by_work = by_work,
                        .least = INT64_MAX,
                        .arms = calloc(c->arm_count + 1, sizeof *l.arms),
                        .done = calloc(c->arm_count + 1, sizeof *l.done),
                        .line = calloc(c->arm_count + 1, sizeof *l.line)};
    bool ready = l.arms && l.done && l.line;
    f->failed = f->failed || !ready;
    for (size_t i = 0; ready && i < c->arm_count; i++) {
        int64_t k = c->arms[i].k;
        l.arms[i] = &c->arms[i];
        l.least = k >= 0 && k < l.least ? k : l.least;
        l.most = k > l.most ? k : l.most;
    }
    if (ready) {
        qsort(l.arms, c->arm_count, sizeof *l.arms, compare_arms);
        put_lines(f, &l);
    }
    free(l.line);
    free(l.arms);
    free(l.done);
}

/* "mean over 7 of 13 tasks": the others are zero for all. */
static const char *mean_title(const comparison *c, char *text, size_t cap)
{
    size_t used = 0;
    for (size_t t = 0; t < c->task_count; t++)
        used += c->used[t];
    if (used == c->task_count)
        snprintf(text, cap, "mean over %zu tasks", used);
    else
        snprintf(text, cap, "mean over %zu of %zu tasks, the others are 0 for all", used, c->task_count);
    return text;
}

static int accuracy(figure *f, mb_error *err)
{
    comparison *list = NULL;
    size_t count = 0;
    int rc = comparison_load(f->store, f->run_id, &list, &count, err);
    f->note = "bars: 95 % bootstrap interval of the paired difference to the reference, set around the score";
    for (size_t i = 0; rc == MB_OK && i < count; i++) {
        const comparison *c = &list[i];
        char title[256], suffix[200] = "", mean[96];
        bool budgets = false;
        for (size_t a = 0; a < c->arm_count; a++)
            budgets = budgets || c->arms[a].k >= 0;
        if (i > 0) /* the first keeps the plain name */
            snprintf(suffix, sizeof suffix, "%s-%s", c->model, c->sampler);
        snprintf(title, sizeof title, "Accuracy against attention work, sampler %s", c->sampler);
        figure_begin(f, "accuracy_work", suffix, title);
        figure_panel(f, c->task_count > 1 ? mean_title(c, mean, sizeof mean) : c->task_count ? c->tasks[0] : "");
        accuracy_panel(f, c, c->task_count > 1 ? c->task_count : 0, true);
        rc = figure_end(f, err);
        if (rc != MB_OK || !budgets)
            continue;
        snprintf(title, sizeof title, "Accuracy against token budget, sampler %s", c->sampler);
        figure_begin(f, "accuracy_budget", suffix, title);
        if (c->task_count > 1) {
            figure_panel(f, mean_title(c, mean, sizeof mean));
            accuracy_panel(f, c, c->task_count, false);
        }
        for (size_t t = 0; t < c->task_count; t++) {
            if (!c->used[t]) /* zero for all: the report names it */
                continue;
            figure_panel(f, c->tasks[t]);
            accuracy_panel(f, c, t, false);
        }
        rc = figure_end(f, err);
    }
    comparison_free(list, count);
    f->note = NULL;
    return rc;
}

/* ---- recall ---- */

#define RECALL(x)                                                                                                 \
    "SELECT " PREFIX("run_recall") " || " BUDGET ", " SERIES ", a.method, " x ", "                                \
                                   "sum(a.mass_recall * a.blocks) / sum(a.blocks), NULL, NULL, NULL, NULL, " DASH \
                                   " "                                                                            \
                                   "FROM run_recall a JOIN " BUDGETS(                                             \
                                       "run_recall") " WHERE a.run_id = ?1 AND a.pass = 'recall' "                \
                                                     "GROUP BY a.model_id, a.sampler_id, b.k, a.config_id, " x    \
                                                     " "                                                          \
                                                     "ORDER BY a.model_id, a.sampler_id, b.k, " BY_SERIES ", " x

static const char recall_layer_sql[] = RECALL("a.layer");
static const char recall_step_sql[] = RECALL("a.step");

#define RECALL_BUDGET(order, name, column)                                                                        \
    "SELECT " PREFIX("run_recall_config") " || '" name "' AS panel, " SERIES " AS series, a.method, a.k AS x, "   \
                                          "sum(a." column                                                         \
                                          " * a.blocks) / sum(a.blocks) AS y, NULL, NULL, a.k, NULL, " DASH       \
                                          ", " order " AS place, "                                                \
                                          "a.model_id, a.sampler_id, a.is_oracle FROM run_recall_config a WHERE " \
                                          "a.run_id = ?1 AND a.pass = 'recall' "                                  \
                                          "AND a.k IS NOT NULL GROUP BY a.model_id, a.sampler_id, a.config_id "

static const char recall_budget_sql[] =
    RECALL_BUDGET("1", "attention mass", "mass_recall") "UNION ALL " RECALL_BUDGET(
        "2", "index", "index_recall") "ORDER BY model_id, sampler_id, place, is_oracle, method, series, x";

/* ---- needles ---- */

/* A figure per method, the reference's panel first. Scores are the colour (column low). */
static int needles(figure *f, mb_error *err)
{
    static const char sql[] =
        "SELECT %s || a.config || CASE WHEN (SELECT count(DISTINCT task) FROM run_niah WHERE run_id = ?1) > 1 "
        "THEN ', ' || a.task ELSE '' END AS panel, '', a.method, dense_rank() OVER (ORDER BY a.context), "
        "dense_rank() OVER (ORDER BY a.depth), a.score, a.n, CASE WHEN a.context %% 1024 = 0 THEN (a.context / "
        "1024) || "
        "'K' ELSE a.context END, printf('%%g %%%%', a.depth) FROM run_niah a WHERE a.run_id = ?1 AND a.score IS "
        "NOT NULL "
        "AND (a.method = %Q OR a.is_reference) ORDER BY a.model_id, a.sampler_id, a.is_reference DESC, "
        "a.config_id, "
        "a.task, a.context, a.depth";
    sqlite3_stmt *s = NULL;
    int rc = MB_OK, code = sqlite3_prepare_v2(f->store->db,
                                              "SELECT DISTINCT method FROM run_niah WHERE run_id = ?1 AND "
                                              "(is_reference = 0 OR NOT EXISTS (SELECT 1 FROM run_niah x WHERE "
                                              "x.run_id = ?1 AND x.is_reference = 0))",
                                              -1, &s, NULL);
    if (code != SQLITE_OK)
        return store_error(f->store, code, "reading the needle figures", err);
    sqlite3_bind_int64(s, 1, f->run_id);
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        const char *method = (const char *)sqlite3_column_text(s, 0);
        char title[200];
        snprintf(title, sizeof title, "Needle in a haystack: %s", method);
        char *query = sqlite3_mprintf(sql, PREFIX("run_niah"), method);
        rc = query ? figure_query(f, "niah", method, title, query, err) : mb_no_memory(err, "the needle figures");
        sqlite3_free(query);
    }
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(f->store, code, "reading the needle figures", err);
    sqlite3_finalize(s);
    return rc;
}

/* ---- counters by layer and step ---- */

/* A figure per method and counter, over all tasks; x is the step, y the layer, the colour (column low) the value.
 * A counter that is not by one of them has a single row or column, numbered 0. */
static int counter_grids(figure *f, mb_error *err)
{
    static const char sql[] =
        "SELECT %s || a.config, '', a.method, coalesce(a.step, 0), coalesce(a.layer, 0), "
        "CASE a.aggregate WHEN 'sum' THEN sum(a.value) WHEN 'max' THEN max(a.value) "
        "ELSE sum(a.value * a.weight) / sum(a.weight) END, sum(a.n), NULL, NULL FROM run_counter_grid a "
        "WHERE a.run_id = ?1 AND a.pass = 'quality' AND a.method = %Q AND a.name = %Q "
        "GROUP BY a.model_id, a.sampler_id, a.config_id, a.layer, a.step "
        "ORDER BY a.model_id, a.sampler_id, a.config_id, a.layer, a.step";
    sqlite3_stmt *s = NULL;
    int rc = MB_OK, code = sqlite3_prepare_v2(f->store->db,
                                              "SELECT DISTINCT method, name, unit FROM run_counter_grid "
                                              "WHERE run_id = ?1 AND pass = 'quality' ORDER BY method, name",
                                              -1, &s, NULL);
    if (code != SQLITE_OK)
        return store_error(f->store, code, "reading the counter figures", err);
    sqlite3_bind_int64(s, 1, f->run_id);
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW) {
        const char *method = (const char *)sqlite3_column_text(s, 0);
        const char *name = (const char *)sqlite3_column_text(s, 1);
        const char *unit = (const char *)sqlite3_column_text(s, 2);
        char title[200], suffix[160];
        snprintf(title, sizeof title, "Counter %.64s of %.64s by layer and step%s%.32s", name, method,
                 unit && *unit ? ", " : "", unit ? unit : "");
        snprintf(suffix, sizeof suffix, "%.64s-%.64s", method, name);
        char *query = sqlite3_mprintf(sql, PREFIX("run_counter_grid"), method, name);
        rc = query ? figure_query(f, "counter_grid", suffix, title, query, err)
                   : mb_no_memory(err, "the counter figures");
        sqlite3_free(query);
    }
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(f->store, code, "reading the counter figures", err);
    sqlite3_finalize(s);
    return rc;
}

/* ---- forwards per block ---- */

/* Share of blocks that were done after x forwards; a fixed schedule has nothing to show. */
static const char forwards_sql[] =
    "WITH f AS (SELECT *, sum(blocks) AS total FROM run_forwards WHERE run_id = ?1 AND schedule <> 'fixed' "
    "GROUP BY model_id, sampler_id, config_id, forwards), "
    "c AS (SELECT *, 1.0 * sum(total) OVER (PARTITION BY model_id, sampler_id, config_id ORDER BY forwards) / "
    "sum(total) OVER (PARTITION BY model_id, sampler_id, config_id) AS done FROM f) "
    "SELECT " PREFIX("f") " || " BUDGET ", " SERIES ", a.method, a.forwards, a.done, NULL, NULL, NULL, NULL, " DASH
                          " "
                          "FROM c a JOIN " BUDGETS("f") " ORDER BY a.model_id, a.sampler_id, b.k, " BY_SERIES
                                                        ", a.forwards";

int figures_quality(figure *f, mb_error *err)
{
    int rc = accuracy(f, err);
    if (rc == MB_OK)
        rc = figure_query(f, "recall_layer", "", "Recall by layer", recall_layer_sql, err);
    if (rc == MB_OK)
        rc = figure_query(f, "recall_step", "", "Recall by denoising step", recall_step_sql, err);
    if (rc == MB_OK)
        rc = figure_query(f, "recall_budget", "", "Recall against token budget", recall_budget_sql, err);
    if (rc == MB_OK)
        rc = needles(f, err);
    if (rc == MB_OK)
        rc = counter_grids(f, err);
    if (rc == MB_OK)
        rc = figure_query(f, "forwards", "", "Denoising forwards per block, adaptive sampler", forwards_sql, err);
    return rc;
}
