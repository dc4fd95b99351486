/*
 * compare.c - two runs side by side, printed: what differs between them, a verdict a line, rows that appeared or
 * vanished, times by case, tasks in full. CSV and JSON lines: a row a configuration and task, unrounded.
 */
#include "results/contrast.h"
#include "results/paper.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIGNIFICANT 0.05

static bool is_mean(const contrast_row *r)
{
    return strcmp(r->task, "*") == 0;
}

/* ---- the two runs ---- */

typedef struct facts { /* what v_runs says of one side; owned */
    char *values[9];
} facts;
static const char *const fact_names[] = {"started", "commit",  "build", "device", "CPU",
                                         "GPU",     "threads", "seed",  "rows"};
enum { FACTS = sizeof fact_names / sizeof *fact_names };

static int read_facts(mb_store *store, int64_t run, facts *f, mb_error *err)
{
    sqlite3_stmt *s =
        store_statement(store,
                        "SELECT started_at, git, substr(build, 1, 12), device, cpu, gpu, threads, seed, "
                        "samples FROM v_runs WHERE run_id = ?",
                        err);
    int code;
    if (!s)
        return MB_E_SYSTEM;
    store_bind(s, "i", run);
    while ((code = sqlite3_step(s)) == SQLITE_ROW)
        for (int i = 0; i < FACTS && !f->values[i]; i++)
            f->values[i] = mb_string_copy((const char *)sqlite3_column_text(s, i));
    sqlite3_reset(s);
    return code == SQLITE_DONE ? MB_OK : store_error(store, code, "reading the run", err);
}

static const char *fact(const facts *f, int i)
{
    return f->values[i] ? f->values[i] : "";
}

/* The two files and runs, and in what they differ. */
static int put_sides(const paper *p, const contrast *c, const mb_compare_side *a, const mb_compare_side *b,
                     mb_error *err)
{
    facts x = {{0}}, y = {{0}};
    mb_text same = {0};
    int rc = read_facts(a->store, c->a.run_id, &x, err);
    if (rc == MB_OK)
        rc = read_facts(b->store, c->b.run_id, &y, err);
    if (rc == MB_OK) {
        paper_begin(p, "B against A: differences are B - A, faster is A's time over B's");
        paper_line(p, PAPER_PLAIN, "A  %s, run %s%s%s", a->name, c->a.label, a->build ? ", build " : "",
                   a->build ? a->build : "");
        paper_line(p, PAPER_PLAIN, "B  %s, run %s%s%s", b->name, c->b.label, b->build ? ", build " : "",
                   b->build ? b->build : "");
        if (c->other_model)
            paper_line(p, PAPER_PLAIN, "model: B has %s; its rows are compared with A's model", c->other_model);
    }
    for (int i = 1; rc == MB_OK && i < FACTS; i++) {
        if (strcmp(fact(&x, i), fact(&y, i)) == 0)
            mb_text_printf(&same, "%s%s", same.length ? ", " : "", fact_names[i]);
        else
            paper_line(p, PAPER_PLAIN, "%s: %s, then %s", fact_names[i], fact(&x, i), fact(&y, i));
    }
    if (rc == MB_OK && same.data)
        paper_line(p, PAPER_PLAIN, "the same: %s", same.data);
    for (int i = 0; i < FACTS; i++) {
        free(x.values[i]);
        free(y.values[i]);
    }
    mb_text_free(&same);
    return rc;
}

/* ---- verdicts ---- */

/* " ±0.5" or nothing. */
static void put_half(mb_text *out, const interval *v, double scale, int places)
{
    if (!isnan(v->low))
        mb_text_printf(out, " \xc2\xb1%.*f", places, 0.5 * scale * (v->high - v->low));
}

static void put_ratio(mb_text *out, const interval *v, const char *what)
{
    if (isnan(v->mean))
        return;
    mb_text_printf(out, ", %.3g x", v->mean);
    if (!isnan(v->low))
        mb_text_printf(out, " (%.3g to %.3g)", v->low, v->high);
    mb_text_printf(out, " %s", what);
}

/* A difference that is worth a word: more than its last printed digit. */
static void put_difference(mb_text *out, const interval *v, const char *what)
{
    if (isnan(v->mean) || fabs(v->mean) < 0.0005)
        return;
    mb_text_printf(out, ", %s %+.3f", what, v->mean);
    put_half(out, v, 1, 3);
}

/* "mage k=512: -0.3 ±0.5 points, 1.08 x faster, 2 items lost, 3 won". */
static void put_verdict(const paper *p, const contrast_row *r)
{
    mb_text text = {0};
    bool known = r->p < SIGNIFICANT;
    if (isnan(r->score.mean)) {
        mb_text_puts(&text, "no scores");
    } else {
        mb_text_printf(&text, "%+.1f", 100 * r->score.mean);
        put_half(&text, &r->score, 100, 1);
        mb_text_puts(&text, " points");
    }
    if (!isnan(r->faster.mean))
        put_ratio(&text, &r->faster, r->faster.mean < 1 ? "as fast" : "faster");
    if (r->paired)
        mb_text_printf(&text, ", %lld item%s lost, %lld won of %lld", (long long)r->lost, r->lost == 1 ? "" : "s",
                       (long long)r->won, (long long)r->n);
    else if (!isnan(r->score.mean))
        mb_text_puts(&text, ", no item in both: two means");
    put_difference(&text, &r->mass, "mass recall");
    put_difference(&text, &r->work, "work");
    if (!isnan(r->forwards.mean) && fabs(r->forwards.mean - 1) >= 0.0005)
        put_ratio(&text, &r->forwards, "the forwards");
    if (known)
        mb_text_printf(&text, "; %s, p = %.2g", r->score.mean < 0 ? "WORSE" : "better", r->p);
    paper_line(p, known ? (r->score.mean < 0 ? PAPER_BAD : PAPER_GOOD) : PAPER_PLAIN, "%s: %s", r->config,
               text.data ? text.data : "");
    p->out->failed = p->out->failed || text.failed;
    mb_text_free(&text);
}

static void put_verdicts(const paper *p, const contrast *c)
{
    const contrast_row *before = NULL;
    for (size_t i = 0; i < c->count; i++) {
        const contrast_row *r = &c->rows[i];
        char title[256];
        if (!is_mean(r) || !r->in_a || !r->in_b)
            continue;
        if (!before || strcmp(before->model, r->model) != 0 || strcmp(before->sampler, r->sampler) != 0) {
            snprintf(title, sizeof title, "sampler %s, model %s", r->sampler, r->model);
            paper_section(p, title);
        }
        before = r;
        put_verdict(p, r);
    }
}

/* Configurations of one side, and tasks and items of configurations that both have. */
static void put_missing(const paper *p, const contrast *c)
{
    const contrast_row *arm = NULL;
    bool first = true;
    for (size_t i = 0; i < c->count; i++) {
        const contrast_row *r = &c->rows[i];
        arm = is_mean(r) ? r : arm;
        bool one = r->in_a != r->in_b, arm_one = arm && arm->in_a != arm->in_b;
        if ((!is_mean(r) && arm_one) || (is_mean(r) && !one) || (!one && r->only_a + r->only_b == 0))
            continue;
        if (first)
            paper_section(p, "rows that one run lacks");
        first = false;
        if (is_mean(r))
            paper_line(p, PAPER_PLAIN, "%s: %s (%s)", r->in_a ? "vanished" : "appeared", r->config, r->sampler);
        else if (one)
            paper_line(p, PAPER_PLAIN, "%s: %s on %s (%s)", r->in_a ? "vanished" : "appeared", r->config, r->task,
                       r->sampler);
        else
            paper_line(p, PAPER_PLAIN, "%s on %s (%s): %lld items in A alone, %lld in B alone", r->config, r->task,
                       r->sampler, (long long)r->only_a, (long long)r->only_b);
    }
}

/* ---- tables ---- */

static void put_real(table *t, double value, const char *format)
{
    char text[64];
    snprintf(text, sizeof text, format, value);
    table_put(t, isnan(value) ? NULL : text, true);
}

static void put_points(table *t, const interval *v)
{
    if (isnan(v->mean))
        table_put(t, NULL, true);
    else if (isnan(v->low))
        table_printf(t, true, "%+.1f", 100 * v->mean);
    else
        table_printf(t, true, "%+.1f \xc2\xb1%.1f", 100 * v->mean, 50 * (v->high - v->low));
}

static void put_tasks(const paper *p, const contrast *c)
{
    static const char *const names[] = {"model", "sampler",    "method", "task", "A",
                                        "B",     "difference", "lost",   "won",  "n"};
    table t;
    table_init(&t, sizeof names / sizeof *names, names);
    for (size_t i = 0; i < c->count; i++) {
        const contrast_row *r = &c->rows[i];
        if (is_mean(r) || !r->in_a || !r->in_b)
            continue;
        table_put(&t, r->model, false);
        table_put(&t, r->sampler, false);
        table_put(&t, r->config, false);
        table_put(&t, r->task, false);
        put_real(&t, 100 * r->score_a, "%.1f");
        put_real(&t, 100 * r->score_b, "%.1f");
        put_points(&t, &r->score);
        table_printf(&t, true, "%lld", (long long)r->lost);
        table_printf(&t, true, "%lld", (long long)r->won);
        table_printf(&t, true, "%lld", (long long)r->n);
    }
    if (t.cell_count) {
        paper_section(p, "tasks: scores in percent, paired difference in points");
        paper_table(p, &t, true);
    }
    table_free(&t);
}

static void put_interval(table *t, const interval *v, double scale)
{
    mb_text text = {0};
    times_text(&text, v, scale);
    table_put(t, text.data, true);
    t->failed = t->failed || text.failed;
    mb_text_free(&text);
}

static void put_times(const paper *p, const contrast *c)
{
    static const char *const names[] = {"method", "phase", "sampler", "context", "batch",
                                        "A ms",   "B ms",  "faster",  "low",     "high"};
    table t;
    table_init(&t, sizeof names / sizeof *names, names);
    for (size_t i = 0; i < c->a.times.count; i++) {
        const timed_case *a = &c->a.times.cases[i], *b = contrast_find_case(&c->b.times, a);
        bool shown = p->full || strcmp(a->phase, "block") == 0 || strcmp(a->phase, "request") == 0;
        if (!b || !shown)
            continue;
        interval ratio = contrast_faster(a, b);
        table_put(&t, a->config, false);
        table_put(&t, a->phase, false);
        table_put(&t, a->sampler, false);
        table_printf(&t, true, "%lld", (long long)a->context);
        table_printf(&t, true, "%lld", (long long)a->batch);
        put_interval(&t, &a->us, 1e-3);
        put_interval(&t, &b->us, 1e-3);
        put_real(&t, ratio.mean, "%.3f");
        put_real(&t, ratio.low, "%.3f");
        put_real(&t, ratio.high, "%.3f");
    }
    if (t.cell_count) {
        paper_section(p, "times: medians, \xc2\xb1 half of the 95 % interval");
        paper_table(p, &t, true);
    }
    table_free(&t);
}

/* ---- for programs ---- */

static void put_exact(table *t, double value)
{
    put_real(t, value, "%.17g");
}

static void put_exact_interval(table *t, const interval *v)
{
    put_exact(t, v->mean);
    put_exact(t, v->low);
    put_exact(t, v->high);
}

static void for_programs(const paper *p, const contrast *c)
{
    static const char *const names[] = {"model",      "sampler",     "task",       "config",       "in_a",
                                        "in_b",       "paired",      "n",          "only_a",       "only_b",
                                        "lost",       "won",         "score_a",    "score_b",      "score",
                                        "score_low",  "score_high",  "p_adjusted", "index_recall", "index_low",
                                        "index_high", "mass_recall", "mass_low",   "mass_high",    "work",
                                        "work_low",   "work_high",   "forwards",   "forwards_low", "forwards_high",
                                        "faster",     "faster_low",  "faster_high"};
    table t;
    table_init(&t, sizeof names / sizeof *names, names);
    for (size_t i = 0; i < c->count; i++) {
        const contrast_row *r = &c->rows[i];
        const int64_t numbers[] = {r->in_a, r->in_b, r->paired, r->n, r->only_a, r->only_b, r->lost, r->won};
        table_put(&t, r->model, false);
        table_put(&t, r->sampler, false);
        table_put(&t, r->task, false);
        table_put(&t, r->config, false);
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            table_printf(&t, true, "%lld", (long long)numbers[k]);
        put_exact(&t, r->score_a);
        put_exact(&t, r->score_b);
        put_exact_interval(&t, &r->score);
        put_exact(&t, r->p);
        put_exact_interval(&t, &r->index);
        put_exact_interval(&t, &r->mass);
        put_exact_interval(&t, &r->work);
        put_exact_interval(&t, &r->forwards);
        put_exact_interval(&t, &r->faster);
    }
    paper_table(p, &t, false);
    table_free(&t);
}

/* ---- all of it ---- */

static mb_compare_result summarise(const contrast *c)
{
    mb_compare_result result = {.worst = NAN};
    for (size_t i = 0; i < c->count; i++) {
        const contrast_row *r = &c->rows[i];
        if (r->in_a && !r->in_b)
            result.vanished++;
        if (!is_mean(r) || !r->in_a || !r->in_b)
            continue;
        result.compared++;
        if (!(result.worst <= r->score.mean) && !isnan(r->score.mean)) {
            result.worst = r->score.mean;
            snprintf(result.worst_config, sizeof result.worst_config, "%s", r->config);
        }
    }
    return result;
}

static int print(const paper *p, const contrast *c, const mb_compare_side *a, const mb_compare_side *b,
                 mb_error *err)
{
    if (paper_for_programs(p->format)) {
        for_programs(p, c);
        return MB_OK;
    }
    int rc = put_sides(p, c, a, b, err);
    if (rc != MB_OK)
        return rc;
    put_verdicts(p, c);
    put_missing(p, c);
    if (p->full)
        put_tasks(p, c);
    put_times(p, c);
    paper_note(
        p,
        "points: mean over the tasks on which either run scores, paired by item and prompt, \xc2\xb1 half of the "
        "95 %% bootstrap interval.\nWORSE and better: at 5 %%, Holm's correction over all verdicts. "
        "faster: geometric mean over the timed cases of both.");
    paper_end(p);
    return MB_OK;
}

int mb_compare(const mb_compare_side *a, const mb_compare_side *b, const mb_report_options *options, mb_text *out,
               mb_compare_result *result, mb_error *err)
{
    contrast c = {0};
    paper p = paper_make(options->format, options->max_width, out);
    p.full = options->full;
    int rc = contrast_load(a->store, a->run, a->build, &c.a, err);
    if (rc == MB_OK)
        rc = contrast_load(b->store, b->run, b->build, &c.b, err);
    if (rc == MB_OK)
        rc = contrast_compute(&c, err);
    if (rc == MB_OK)
        rc = print(&p, &c, a, b, err);
    if (rc == MB_OK && out->failed)
        rc = mb_no_memory(err, "the comparison of two runs");
    *result = summarise(&c);
    contrast_free(&c);
    return rc;
}
