-- Score in percent, measured work, and a block over the reference.
SELECT 'score on ' || task || ', ' || config, round(100 * score, 2) FROM v_accuracy
UNION ALL
SELECT 'work on ' || task || ', ' || config, round(work, 4) FROM v_accuracy
UNION ALL
SELECT 'end to end over exact, ' || config || ', ' || context, round(max(speedup), 3)
FROM v_speedup WHERE phase = 'block' AND is_reference = 0 GROUP BY config, context
UNION ALL
SELECT 'block latency below exact in percent, ' || config || ', ' || context, round(100 * (1 - 1 / max(speedup)), 2)
FROM v_speedup WHERE phase = 'block' AND is_reference = 0 GROUP BY config, context
