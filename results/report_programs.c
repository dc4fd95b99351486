/*
 * report_programs.c - the report as rows for programs (CSV, JSON lines): one a configuration and task, nothing
 * rounded.
 */
#include "results/report.h"

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

int report_for_programs(const paper *p, const char *label, const comparison *list, size_t count)
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
