-- Everything that gave no number, by reason.
SELECT run, status, what, pass, config, task, count(*) AS n, reason
FROM v_failures
GROUP BY run, status, what, pass, config, task, reason
ORDER BY n DESC, run, config, task;
