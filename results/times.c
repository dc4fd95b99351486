/*
 * times.c - medians of measured times with intervals that need no assumption: the k-th smallest and the k-th
 * largest of n times hold the median with a probability that the binomial distribution gives.
 */
#include "results/times.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void times_free(times *t)
{
    for (size_t i = 0; i < t->count; i++) {
        timed_case *c = &t->cases[i];
        free(c->model);
        free(c->sampler);
        free(c->config);
        free(c->phase);
        free(c->measured);
    }
    free(t->cases);
    *t = (times){0};
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Rank from 0 of the lower end: the largest r with P(fewer than r+1 of n fair coins) <= 2.5 %; -1: n is too small
 * for an interval of 95 %. */
static int64_t lower_rank(int64_t n)
{
    double below = 0;
    int64_t rank = -1;
    for (int64_t k = 0; k < n; k++) {
        below += exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) -
                     (double)n * log(2.0));
        if (below > 0.025)
            break;
        rank = k;
    }
    return rank;
}

interval median_interval(double *values, size_t n)
{
    interval v = {NAN, NAN, NAN};
    if (n == 0)
        return v;
    qsort(values, n, sizeof *values, compare_doubles);
    v.mean = n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
    int64_t rank = lower_rank((int64_t)n);
    if (rank >= 0) {
        v.low = values[rank];
        v.high = values[(int64_t)n - 1 - rank];
    }
    return v;
}

/* The raw times that v_latency's median is of. */
static const char raw_sql[] =
    "SELECT v.model, v.sampler, v.config, v.phase, substr(v.measured_at, 1, 10), v.context, v.batch, v.steps, "
    "v.is_reference, v.is_oracle, l.time_us, v.cell_id FROM v_latency v JOIN latency l ON l.cell_id = v.cell_id "
    "AND l.session_id = v.session_id AND l.context = v.context AND l.batch = v.batch AND l.steps = v.steps AND "
    "l.graph = v.graph AND l.phase = v.phase AND l.kept = 1 WHERE v.run_id = ? ORDER BY v.model_id, v.sampler, "
    "v.context, v.batch, v.steps, v.phase, v.is_reference DESC, v.config_id, v.cell_id";

static char *copy_column(sqlite3_stmt *s, int column)
{
    const char *text = (const char *)sqlite3_column_text(s, column);
    return mb_string_copy(text ? text : "");
}

static int add_case(times *t, sqlite3_stmt *s, mb_error *err)
{
    timed_case *grown = realloc(t->cases, (t->count + 1) * sizeof *grown);
    if (!grown)
        return mb_no_memory(err, "the measured times");
    t->cases = grown;
    timed_case *c = &grown[t->count++];
    *c = (timed_case){.model = copy_column(s, 0),
                      .sampler = copy_column(s, 1),
                      .config = copy_column(s, 2),
                      .phase = copy_column(s, 3),
                      .measured = copy_column(s, 4),
                      .context = sqlite3_column_int64(s, 5),
                      .batch = sqlite3_column_int64(s, 6),
                      .steps = sqlite3_column_int64(s, 7),
                      .is_reference = sqlite3_column_int(s, 8),
                      .is_oracle = sqlite3_column_int(s, 9)};
    return c->model && c->sampler && c->config && c->phase && c->measured
               ? MB_OK
               : mb_no_memory(err, "the measured times");
}

typedef struct pending { /* times of the case that is being read */
    double *values;
    size_t n, capacity;
    int64_t cell;
} pending;

static bool same_case(const timed_case *c, sqlite3_stmt *s)
{
    return c->context == sqlite3_column_int64(s, 5) && c->batch == sqlite3_column_int64(s, 6) &&
           c->steps == sqlite3_column_int64(s, 7) &&
           strcmp(c->phase, (const char *)sqlite3_column_text(s, 3)) == 0;
}

static void finish_case(times *t, pending *p)
{
    if (t->count == 0 || p->n == 0)
        return;
    timed_case *c = &t->cases[t->count - 1];
    c->n = (int64_t)p->n;
    c->us = median_interval(p->values, p->n);
    p->n = 0;
}

static int add_time(times *t, pending *p, sqlite3_stmt *s, mb_error *err)
{
    int64_t cell = sqlite3_column_int64(s, 11);
    if (p->n == 0 || cell != p->cell || !same_case(&t->cases[t->count - 1], s)) {
        finish_case(t, p);
        int rc = add_case(t, s, err);
        if (rc != MB_OK)
            return rc;
        p->cell = cell;
    }
    if (p->n == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 256;
        double *grown = realloc(p->values, capacity * sizeof *grown);
        if (!grown)
            return mb_no_memory(err, "the measured times");
        p->values = grown;
        p->capacity = capacity;
    }
    p->values[p->n++] = sqlite3_column_double(s, 10);
    return MB_OK;
}

int times_load(mb_store *store, int64_t run_id, times *out, mb_error *err)
{
    pending p = {0};
    int code = SQLITE_DONE, rc = MB_OK;
    *out = (times){0};
    sqlite3_stmt *s = store_statement(store, raw_sql, err);
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run_id);
    while (rc == MB_OK && (code = sqlite3_step(s)) == SQLITE_ROW)
        rc = add_time(out, &p, s, err);
    finish_case(out, &p);
    if (rc == MB_OK && code != SQLITE_DONE)
        rc = store_error(store, code, "reading the measured times", err);
    sqlite3_reset(s);
    free(p.values);
    if (rc != MB_OK)
        times_free(out);
    return rc;
}

const timed_case *times_reference(const times *t, const timed_case *c)
{
    for (size_t i = 0; i < t->count; i++) {
        const timed_case *r = &t->cases[i];
        if (r->is_reference && r->context == c->context && r->batch == c->batch && r->steps == c->steps &&
            strcmp(r->phase, c->phase) == 0 && strcmp(r->model, c->model) == 0 &&
            strcmp(r->sampler, c->sampler) == 0)
            return r;
    }
    return NULL;
}

interval times_ratio(const interval *a, const interval *b)
{
    return (interval){a->mean / b->mean, a->low / b->high, a->high / b->low};
}

void times_text(mb_text *out, const interval *v, double scale)
{
    double value = v->mean * scale, half = 0.5 * (v->high - v->low) * fabs(scale);
    if (isnan(value)) {
        mb_text_puts(out, "-");
        return;
    }
    if (isnan(half)) {
        mb_text_printf(out, "%.4g", value);
        return;
    }
    /* Two digits of the half width, but no digit that the value's own precision of 1e-6 does not have. */
    double least = fabs(value) * 1e-6;
    int places = half > least ? 1 - (int)floor(log10(half)) : 1 - (int)floor(log10(least > 0 ? least : 1));
    places = places < 0 ? 0 : places > 6 ? 6 : places;
    mb_text_printf(out, "%.*f \xc2\xb1%.*f", places, value, places, half);
}
