-- Score of each task, in percent, and its mean over the tasks.
SELECT model || ', score on ' || task || ', ' || config, round(100 * score, 2) FROM v_accuracy
UNION ALL
SELECT model || ', score on average, ' || config, round(avg(100 * score), 2) FROM v_accuracy GROUP BY model, config
