/*
 * figures_speed.c - times, speed-ups, breakdowns, memory, and accuracy against speed. Oracles cost more than exact
 * by design and are in none of them.
 */
#include "results/figure.h"
#include "results/figures_sql.h"

#include <string.h>

#define LONGEST_BLOCK(view) LAST(view, "steps")

static const char step_time_sql[] = "SELECT " PREFIX(
    "run_latency") " || " CONTEXT " || ' context, batch ' || a.batch, "
                   "a.config || a.phase, a.method, " PLACE
                   ", a.median_us / 1e3, a.p10_us / 1e3, a.p90_us / 1e3, a.config, NULL, "
                   "CASE a.phase WHEN 'first_step' THEN 2 ELSE 1 END FROM run_latency a WHERE a.run_id = ?1 AND "
                   "a.is_oracle = 0 "
                   "AND a.phase IN ('first_step', 'later_step') AND " LAST("run_latency", "context") " AND " FIRST(
                       "run_latency", "batch") " AND " LONGEST_BLOCK("run_latency") " "
                                                                                    "ORDER BY a.model_id, "
                                                                                    "a.sampler_id, 4, a.phase";

static const char latency_context_sql[] = "SELECT " PREFIX(
    "run_latency") " || " BUDGET " || ', batch ' || a.batch, " SERIES ", a.method, a.context, "
                   "a.median_us / 1e3, a.p10_us / 1e3, a.p90_us / 1e3, " CONTEXT ", NULL, 1 "
                   "FROM run_latency a JOIN " BUDGETS(
                       "run_latency") " WHERE a.run_id = ?1 AND a.is_oracle = 0 AND a.phase = 'later_step' "
                                      "AND " LONGEST_BLOCK(
                                          "run_latency") " AND (SELECT count(DISTINCT context) FROM run_latency "
                                                         "WHERE run_id = ?1) > 1 "
                                                         "ORDER BY a.model_id, a.sampler_id, a.batch, "
                                                         "b.k, " BY_SERIES ", a.context";

static const char speedup_sql[] = "SELECT " PREFIX(
    "run_speedup") " || coalesce('k = ' || a.k || ', ', '') || 'batch ' || a.batch || ', T = ' || a.steps, " SERIES
                   ", a.method, dense_rank() OVER (ORDER BY a.context), a.speedup, a.low, a.high, " CONTEXT
                   ", NULL, 1 "
                   "FROM run_speedup a WHERE a.run_id = ?1 AND a.is_oracle = 0 AND a.is_reference = 0 AND a.phase "
                   "= 'block' AND " LONGEST_BLOCK(
                       "run_speedup") " ORDER BY a.model_id, a.sampler_id, a.batch, a.k, " BY_SERIES ", a.context";

/* low and high of a part are the ends of its box in the stack. */
static const char breakdown_sql[] = "SELECT " PREFIX(
    "run_breakdown") " || a.step_kind || ' step, ' || " CONTEXT " || ' context, batch ' || a.batch, "
                     "a.part, NULL, " PLACE ", a.relative, "
                     "sum(a.relative) OVER stack - a.relative, sum(a.relative) OVER stack, a.config, NULL, 1 "
                     "FROM run_breakdown a WHERE a.run_id = ?1 AND a.is_oracle = 0 AND " LAST(
                         "run_breakdown",
                         "context") " AND " FIRST("run_breakdown",
                                                  "batch") " WINDOW stack AS (PARTITION BY a.model_id, "
                                                           "a.sampler_id, a.config_id, a.step_kind "
                                                           "ORDER BY a.part_order) ORDER BY a.model_id, "
                                                           "a.sampler_id, a.step_kind <> 'later', a.step_kind, "
                                                           "a.part_order, 4";

static const char tpob_sql[] = "SELECT " PREFIX(
    "run_latency") " || " BUDGET " || ', ' || " CONTEXT " || ' context, batch ' || a.batch, " SERIES ", "
                   "a.method, a.steps, a.median_us / 1e3, a.p10_us / 1e3, a.p90_us / 1e3, a.steps, NULL, 1 "
                   "FROM run_latency a JOIN " BUDGETS(
                       "run_latency") " WHERE a.run_id = ?1 AND a.is_oracle = 0 AND a.phase = 'block' "
                                      "AND " LAST("run_latency", "context") " AND " FIRST(
                                          "run_latency", "batch") " AND "
                                                                  "(SELECT count(DISTINCT "
                                                                  "steps) FROM run_latency "
                                                                  "WHERE run_id = ?1 AND "
                                                                  "phase = 'block') > 1 "
                                                                  "ORDER BY a.model_id, "
                                                                  "a.sampler_id, "
                                                                  "b.k, " BY_SERIES ", a.steps";

static const char break_even_sql[] = "SELECT " PREFIX(
    "run_break_even") " || coalesce('k = ' || a.k || ', ', '') || 'batch ' || a.batch, " SERIES ", "
                      "a.method, a.context, a.break_even_steps, NULL, NULL, " CONTEXT
                      ", NULL, 1 FROM run_break_even a "
                      "WHERE a.run_id = ?1 AND a.is_oracle = 0 AND " LONGEST_BLOCK(
                          "run_break_even") " "
                                            "AND (SELECT count(DISTINCT context) FROM run_break_even WHERE run_id "
                                            "= ?1) > 1 "
                                            "ORDER BY a.model_id, a.sampler_id, a.batch, a.k, " BY_SERIES
                                            ", a.context";

/* Bars by configuration; where the shortest context already pays, the bar ends there. */
static const char crossover_sql[] =
    "SELECT " PREFIX("run_crossover") " || 'batch ' || a.batch || ', T = ' || a.steps, a.config, a.method, " PLACE
                                      ", "
                                      "a.crossover_context / 1024.0, NULL, NULL, a.config, NULL, "
                                      "CASE WHEN a.at_most THEN 2 ELSE 1 END FROM run_crossover a WHERE a.run_id "
                                      "= ?1 AND a.is_oracle = 0 AND " LONGEST_BLOCK(
                                          "run_crossover") " "
                                                           "AND (SELECT count(DISTINCT context) FROM run_speedup "
                                                           "WHERE run_id = ?1 AND phase = 'block') > 1 "
                                                           "ORDER BY a.model_id, a.sampler_id, a.batch, 4";

/* Each method at its largest budget: an index seldom depends on it. */
#define MEMORY(order, name, value)                                                                                \
    "SELECT " PREFIX("run_memory") " || '" name ", batch ' || a.batch AS panel, a.config AS series, a.method, "   \
                                   "a.context AS x, " value " AS y, NULL, NULL, " CONTEXT ", NULL, 1, " order     \
                                   " AS place, a.model_id, "                                                      \
                                   "a.sampler_id, a.batch, a.is_reference FROM run_memory a WHERE a.run_id = ?1 " \
                                   "AND a.is_oracle = 0 AND "                                                     \
                                   "(a.k IS NULL OR a.k = (SELECT max(m.k) FROM run_memory m WHERE m.run_id = "   \
                                   "?1 AND m.method = a.method)) "

static const char memory_sql[] = MEMORY("1", "peak (GiB)", "a.peak_bytes / 1073741824.0") "UNION ALL " MEMORY(
    "2", "of it the method''s index (MiB)",
    "nullif(a.index_bytes, 0) / 1048576.0") "ORDER BY model_id, sampler_id, batch, place, is_reference DESC, "
                                            "method, series, x";

/* Whole requests, decoded with the run's own rule. */
static const char request_sql[] = "SELECT CASE WHEN (SELECT count(DISTINCT model_id) FROM run_latency WHERE "
                                  "run_id = ?1) > 1 THEN a.model || ', ' ELSE "
                                  "'' END || a.sampler || ', ' || " CONTEXT
                                  " || ' context, batch ' || a.batch, a.config || a.phase, a.method, " PLACE
                                  ", a.median_us / 1e3, a.p10_us / 1e3, a.p90_us / 1e3, a.config, NULL, 1 FROM "
                                  "run_latency a WHERE a.run_id = ?1 AND "
                                  "a.is_oracle = 0 AND a.phase = 'request' AND a.context = (SELECT max(context) "
                                  "FROM run_latency WHERE run_id = ?1 AND "
                                  "phase = 'request') ORDER BY a.model_id, a.sampler_id, 4";

/* A panel a sampler: fixed schedules with blocks, the family's own rule with requests. */
static const char pareto_sql[] =
    "SELECT CASE WHEN (SELECT count(DISTINCT model_id) FROM run_pareto WHERE run_id = ?1) > 1 THEN a.model || ', "
    "' ELSE '' "
    "END || a.sampler || ', ' || " CONTEXT " || ' context, batch ' || a.batch || CASE a.phase WHEN 'request' THEN "
    "', whole requests' WHEN 'block' THEN ', blocks' ELSE ', later steps' END, a.curve, a.method, a.speedup, "
    "100 * a.delta, NULL, NULL, NULL, NULL, "
    "CASE WHEN (SELECT min(c.config_id) FROM run_pareto c WHERE c.run_id = ?1 AND c.curve = a.curve) > (SELECT "
    "min(m.config_id) FROM run_pareto m WHERE m.run_id = ?1 AND m.method = a.method) THEN 4 ELSE 1 END FROM "
    "run_pareto a "
    "WHERE a.run_id = ?1 AND a.is_oracle = 0 AND a.speedup IS NOT NULL AND a.context = (SELECT max(x.context) "
    "FROM "
    "run_pareto x WHERE x.run_id = ?1 AND x.sampler_id = a.sampler_id AND x.phase = a.phase) AND " FIRST(
        "run_pareto",
        "batch") " ORDER BY a.model_id, a.sampler_id, a.is_reference DESC, a.method, a.curve, a.work";

int figures_speed(figure *f, mb_error *err)
{
    static const char quantiles[] = "bars: from the 10th to the 90th percentile of the samples";
    static const char ratios[] = "bars: the 10th percentile of one side over the 90th of the other";
    static const struct {
        const char *script, *suffix, *title, *note, *sql;
        bool relative; /* to exact attention */
    } figures[] = {
        {"step_time", "", "Time per denoising forward", quantiles, step_time_sql, false},
        {"step_time", "request", "Time of a whole request", quantiles, request_sql, false},
        {"latency_context", "", "Time per denoising forward against context", quantiles, latency_context_sql,
         false},
        {"speedup", "", "End-to-end speed-up of a block over exact attention", ratios, speedup_sql, true},
        {"breakdown", "", "Where the time of a step goes, relative to exact attention", NULL, breakdown_sql, true},
        {"tpob_steps", "", "Time per output block against denoising steps", quantiles, tpob_sql, false},
        {"break_even", "", "Denoising steps per block that repay the first step", NULL, break_even_sql, true},
        {"crossover", "", "Context from which a block is faster than with exact attention", NULL, crossover_sql,
         true},
        {"memory", "", "Device memory against context", NULL, memory_sql, false},
        {"pareto", "", "Accuracy against speed", NULL, pareto_sql, true},
    };
    mb_text baseline = {0};
    int rc = baseline_lines(f->store, f->run_id, &baseline, err);
    for (char *end = baseline.data; end && (end = strchr(end, '\n'));)
        *end = end[1] ? ';' : '\0'; /* a merged run may have several machines */
    for (size_t i = 0; rc == MB_OK && i < sizeof figures / sizeof *figures; i++) {
        f->note = figures[i].note;
        f->footnote = figures[i].relative ? baseline.data : NULL;
        rc = figure_query(f, figures[i].script, figures[i].suffix, figures[i].title, figures[i].sql, err);
    }
    f->note = f->footnote = NULL;
    mb_text_free(&baseline);
    return rc;
}
