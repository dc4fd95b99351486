/*
 * report_times.c - the report's tables of time: medians with intervals and as many digits as the interval allows,
 * fixed work apart from whole requests, and the two factors of what a user waits for.
 */
#include "results/report.h"
#include "results/times.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* "7.76 ±0.02" milliseconds; NULL: not measured. */
static void put_time(table *t, const timed_case *c)
{
    mb_text text = {0};
    if (!c) {
        table_put(t, NULL, true);
        return;
    }
    times_text(&text, &c->us, 1e-3);
    table_put(t, text.data, true);
    t->failed = t->failed || text.failed;
    mb_text_free(&text);
}

/* The speed-up that v_speedup has for a case: within one session, with the interval of p10 and p90. */
static int put_speedup(const paper *p, table *t, const timed_case *c, mb_error *err)
{
    sqlite3_stmt *s =
        report_query(p,
                     "SELECT speedup, low, high FROM v_speedup WHERE run_id = ?1 AND model = ?2 AND "
                     "sampler = ?3 AND config = ?4 AND context = ?5 AND batch = ?6 AND steps = ?7 AND "
                     "phase = ?8 AND NOT is_oracle LIMIT 1",
                     err);
    bool found = false;
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "itttiiit", p->run, c->model, c->sampler, c->config, c->context, c->batch, c->steps, c->phase);
    while ((code = sqlite3_step(s)) == SQLITE_ROW) {
        found = true;
        table_printf(t, true, "%.2f (%.2f to %.2f)", sqlite3_column_double(s, 0), sqlite3_column_double(s, 1),
                     sqlite3_column_double(s, 2));
    }
    if (!found)
        table_put(t, NULL, true);
    return report_query_end(p, s, code, err);
}

static const timed_case *of_phase(const times *all, const timed_case *like, const char *phase)
{
    for (size_t i = 0; i < all->count; i++) {
        const timed_case *c = &all->cases[i];
        if (c->context == like->context && c->batch == like->batch && c->steps == like->steps &&
            strcmp(c->phase, phase) == 0 && strcmp(c->model, like->model) == 0 &&
            strcmp(c->sampler, like->sampler) == 0 && strcmp(c->config, like->config) == 0)
            return c;
    }
    return NULL;
}

/* Steps of the longest block that was timed; others are in v_latency and in a figure. */
static int64_t longest_block(const times *all)
{
    int64_t longest = 0;
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->cases[i].phase, "later_step") == 0 && all->cases[i].steps > longest)
            longest = all->cases[i].steps;
    return longest;
}

static void put_case(table *t, const timed_case *c, bool models)
{
    if (models)
        table_put(t, c->model, false);
    table_put(t, c->config, false);
    table_put(t, c->sampler, false);
    table_printf(t, true, "%lld", (long long)c->context);
    table_printf(t, true, "%lld", (long long)c->batch);
}

static bool several_models(const times *all)
{
    for (size_t i = 1; i < all->count; i++)
        if (strcmp(all->cases[i].model, all->cases[0].model) != 0)
            return true;
    return false;
}

static int fixed_work(const paper *p, const times *all, mb_error *err)
{
    static const char *const names[] = {"model",    "method",    "sampler",  "context",  "batch", "first step ms",
                                        "later ms", "commit ms", "block ms", "speed-up", "n",     "measured"};
    bool models = several_models(all);
    int64_t longest = longest_block(all);
    size_t rows = 0;
    table t;
    int rc = MB_OK;
    table_init(&t, sizeof names / sizeof *names - !models, names + !models);
    for (size_t i = 0; rc == MB_OK && i < all->count; i++) {
        const timed_case *c = &all->cases[i], *block = of_phase(all, c, "block");
        if (c->steps != longest || strcmp(c->phase, "later_step") != 0)
            continue;
        put_case(&t, c, models);
        put_time(&t, of_phase(all, c, "first_step"));
        put_time(&t, c);
        put_time(&t, of_phase(all, c, "commit"));
        put_time(&t, block);
        rc = put_speedup(p, &t, block ? block : c, err);
        table_printf(&t, true, "%lld", (long long)c->n);
        table_put(&t, c->measured, false);
        rows++;
    }
    if (rc == MB_OK && rows) {
        paper_section(p, "latency: medians of fixed work, \xc2\xb1 half of the 95 % interval");
        paper_table(p, &t, true);
    }
    table_free(&t);
    return rc;
}

static int requests(const paper *p, const times *all, mb_error *err)
{
    static const char *const names[] = {"model",      "method",   "sampler", "context", "batch",
                                        "request ms", "speed-up", "n",       "measured"};
    bool models = several_models(all);
    size_t rows = 0;
    table t;
    int rc = MB_OK;
    table_init(&t, sizeof names / sizeof *names - !models, names + !models);
    for (size_t i = 0; rc == MB_OK && i < all->count; i++) {
        const timed_case *c = &all->cases[i];
        if (strcmp(c->phase, "request") != 0)
            continue;
        put_case(&t, c, models);
        put_time(&t, c);
        rc = put_speedup(p, &t, c, err);
        table_printf(&t, true, "%lld", (long long)c->n);
        table_put(&t, c->measured, false);
        rows++;
    }
    if (rc == MB_OK && rows) {
        paper_section(p, "latency: whole requests, decoded with the sampler");
        paper_table(p, &t, true);
    }
    table_free(&t);
    return rc;
}

int report_times(const paper *p, mb_error *err)
{
    times all;
    int rc = times_load(p->store, p->run, &all, err);
    if (rc == MB_OK)
        rc = fixed_work(p, &all, err);
    if (rc == MB_OK)
        rc = requests(p, &all, err);
    times_free(&all);
    return rc;
}
