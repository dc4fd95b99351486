/*
 * figures_sql.h - pieces of the figures' queries. Each query reads one view (run_X holds the run's rows of v_X,
 * read once) under the name a and yields the columns of figure_query(): panel, series, method, x, y, low, high, x
 * tic, y tic, dash.
 */
#ifndef MB_RESULTS_FIGURES_SQL_H
#define MB_RESULTS_FIGURES_SQL_H

/* Model and sampler in front of a panel's title, where the run has several. */
#define PREFIX(view)                                                                                              \
    "CASE WHEN (SELECT count(DISTINCT model_id) FROM " view                                                       \
    " WHERE run_id = ?1) > 1 THEN a.model || ', ' ELSE '' "                                                       \
    "END || CASE WHEN (SELECT count(DISTINCT sampler_id) FROM " view " WHERE run_id = ?1) > 1 THEN a.sampler || " \
    "', ' ELSE '' END"
/* A configuration without its budget: the points of one line differ in nothing else. */
#define SERIES "replace(a.config, ' k=' || coalesce(a.k, ''), '')"
#define BUDGET "CASE WHEN b.k >= 0 THEN 'k = ' || b.k ELSE 'no budget' END"
#define DASH "CASE WHEN a.is_oracle THEN 2 ELSE 1 END"
/* The budgets of a view; what has none (the reference) stands in the panel of each. */
#define BUDGETS(view)                                                                                             \
    "(SELECT DISTINCT k FROM " view " WHERE run_id = ?1 AND k IS NOT NULL UNION SELECT -1 WHERE NOT EXISTS "      \
    "(SELECT 1 FROM " view " WHERE run_id = ?1 AND k IS NOT NULL)) b ON (a.k = b.k OR a.k IS NULL)"
#define CONTEXT "CASE WHEN a.context % 1024 = 0 THEN (a.context / 1024) || 'K' ELSE a.context END"
#define LAST(view, column) "a." column " = (SELECT max(" column ") FROM " view " WHERE run_id = ?1)"
#define FIRST(view, column) "a." column " = (SELECT min(" column ") FROM " view " WHERE run_id = ?1)"
/* Place of a configuration on an axis of configurations. */
#define PLACE "dense_rank() OVER (ORDER BY a.is_reference DESC, a.method, a.k, a.config_id)"
#define BY_SERIES "a.is_reference DESC, a.is_oracle, a.method, " SERIES

#endif
