/*
 * report_scores.c - the report's tables of scores and paired differences: as many tasks a table as the width
 * allows, what the answers cost beside them, and which tasks are in no mean.
 */
#include "results/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void report_real(table *t, double value, const char *format)
{
    char text[64];
    if (isnan(value)) {
        table_put(t, NULL, true);
        return;
    }
    snprintf(text, sizeof text, format, value);
    table_put(t, text, true);
}

#define SIGNIFICANT 0.05

/* Mark of a difference that its test, corrected for the size of its table, calls real. */
static const char *mark(const arm_score *s)
{
    return !(s->p < SIGNIFICANT) ? " " : s->delta.mean > 0 ? "+" : "-";
}

static void put_interval(table *t, const arm *a, const interval *d, const char *sign)
{
    if (a->is_reference || isnan(d->mean))
        table_put(t, NULL, true);
    else if (isnan(d->low))
        table_printf(t, true, "%+.1f%s", 100 * d->mean, sign);
    else
        table_printf(t, true, "%+.1f \xc2\xb1%.1f%s", 100 * d->mean, 50 * (d->high - d->low), sign);
}

/* Half of the interval's width; the interval itself is in the CSV. */
static void put_delta(table *t, const arm *a, const interval *d)
{
    put_interval(t, a, d, "");
}

void report_put_delta(table *t, const arm *a, const arm_score *s)
{
    put_interval(t, a, &s->delta, mark(s));
}

/* ---- the tables of one comparison ---- */

double report_index_recall(const arm *a)
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
static double value_ratio(const arm *a)
{
    return a->is_reference ? NAN : a->all.forwards_ratio.mean;
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
    {"recall index", "%.3f", report_index_recall},
    {"recall mass", "%.3f", value_mass},
    {"work", "%.2f", value_work},
    {"of it select", "%.2f", value_select},
    {"engaged", "%.2f", value_engaged},
    {"forwards /block", "%.2f", value_forwards},
    {"forwards /exact", "%.2f", value_ratio},
    {"first step ms", "%.3f", value_first},
    {"later step ms", "%.3f", value_later},
};
enum { COSTS = sizeof cost_columns / sizeof *cost_columns };

bool report_any_value(const comparison *c, arm_value value)
{
    for (size_t i = 0; i < c->arm_count; i++)
        if (!isnan(value(&c->arms[i])))
            return true;
    return false;
}

void report_put_label(table *t, const arm *a)
{
    if (a->is_lossless && !a->is_reference)
        table_printf(t, false, "%s (noise floor)", a->label);
    else
        table_put(t, a->label, false);
}

/* What a table shows: tasks[0..n), then with `costs` the mean and what it cost. deltas: differences instead. */
typedef struct shown {
    const size_t *tasks;
    size_t n;
    bool costs, deltas;
} shown;

/* Names of the columns; names holds all tasks and costs. Returns how many there are. */
static size_t column_names(const comparison *c, const shown *w, const char **names)
{
    size_t columns = 0;
    names[columns++] = "method";
    for (size_t i = 0; i < w->n; i++)
        names[columns++] = c->tasks[w->tasks[i]];
    if (!w->costs)
        return columns;
    if (w->deltas) {
        names[columns++] = "mean of tasks";
        return columns;
    }
    names[columns++] = "mean";
    names[columns++] = "paired \xce\x94";
    names[columns++] = "n";
    for (size_t i = 0; i < COSTS; i++)
        if (report_any_value(c, cost_columns[i].value))
            names[columns++] = cost_columns[i].name;
    return columns;
}

static void put_costs(table *t, const comparison *c, const arm *a)
{
    report_real(t, 100 * a->all.score, "%.1f");
    put_delta(t, a, &a->all.delta);
    table_printf(t, true, "%lld", (long long)a->all.n);
    for (size_t i = 0; i < COSTS; i++)
        if (report_any_value(c, cost_columns[i].value))
            report_real(t, cost_columns[i].value(a), cost_columns[i].format);
}

static void put_row(table *t, const comparison *c, const arm *a, const shown *w)
{
    report_put_label(t, a);
    for (size_t i = 0; i < w->n; i++) {
        const arm_score *s = &a->tasks[w->tasks[i]];
        if (w->deltas)
            put_delta(t, a, &s->delta);
        else if (isnan(s->score))
            table_put(t, NULL, true);
        else
            table_printf(t, true, "%.1f%s", 100 * s->score, mark(s));
    }
    if (w->costs && w->deltas)
        put_delta(t, a, &a->all.delta);
    else if (w->costs)
        put_costs(t, c, a);
}

static void score_table(const paper *p, const comparison *c, const shown *w)
{
    const char **names = calloc(w->n + COSTS + 8, sizeof *names);
    table t;
    if (!names) {
        p->out->failed = true;
        return;
    }
    table_init(&t, column_names(c, w, names), names);
    for (size_t r = 0; r < c->arm_count; r++)
        if (!w->deltas || !c->arms[r].is_reference)
            put_row(&t, c, &c->arms[r], w);
    paper_table(p, &t, true);
    table_free(&t);
    free(names);
}

/* As many tasks a table as the width allows; the first one that has room carries the costs. A difference on a
 * single item says nothing that the scores do not: such tasks have no column among the differences. */
void report_scores(const paper *p, const comparison *c, bool deltas)
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
        costs += report_any_value(c, cost_columns[i].value) ? 10 : 0;
    size_t width = (size_t)p->width;
    if (p->format != MB_TABLE_TERMINAL || label + costs + n * cell <= width) {
        score_table(p, c, &(shown){tasks, n, true, deltas});
    } else {
        size_t chunk = width > label + cell ? (width - label) / cell : 1;
        score_table(p, c, &(shown){tasks, 0, true, deltas});
        for (size_t from = 0; from < n; from += chunk) {
            mb_text_puts(p->out, "\n");
            score_table(p, c, &(shown){tasks + from, from + chunk < n ? chunk : n - from, false, deltas});
        }
    }
    free(tasks);
}

void report_unused_tasks(const paper *p, const comparison *c)
{
    mb_text names = {0};
    for (size_t t = 0; t < c->task_count; t++)
        if (!c->used[t])
            mb_text_printf(&names, "%s%s", names.length ? ", " : "", c->tasks[t]);
    if (names.data)
        paper_note(p, "in no mean, because no method scores above 0: %s", names.data);
    mb_text_free(&names);
}
