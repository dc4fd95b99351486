-- LongBench averages as papers print them; compare only rows with the same numbers of tasks.
SELECT run, model, config, sampler, round(100 * category_mean, 2) AS six_categories, categories, tasks,
       round(100 * mean_16, 2) AS mean_16, tasks_16
FROM v_longbench
ORDER BY run, model, sampler, category_mean DESC;
