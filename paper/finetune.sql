-- The same checkpoint before and after: score in percent on average, then on how many tasks the trained one with sparse
-- attention is at least what the untrained one is with exact. The trained one is the second model of the list.
SELECT model || ', score on average, ' || config, round(avg(100 * score), 2) FROM v_accuracy GROUP BY run_id, config_id
UNION ALL
SELECT 'tasks at least as good as exact before, ' || f.config, sum(f.score >= b.score)
FROM v_accuracy f JOIN v_accuracy b ON b.run_id < f.run_id AND b.task = f.task AND b.sampler = f.sampler AND b.is_reference
WHERE f.is_reference = 0 GROUP BY f.config
