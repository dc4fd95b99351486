-- Score in percent and measured work, means over the tasks: the curve of each method.
SELECT model || ', score, ' || config, round(avg(100 * score), 2) FROM v_accuracy GROUP BY model, config
UNION ALL
SELECT model || ', work, ' || config, round(avg(work), 4) FROM v_accuracy GROUP BY model, config
