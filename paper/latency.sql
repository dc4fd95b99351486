-- A block over the reference at each context, then the largest ratio of one method to each other one at one budget.
SELECT 'end to end over exact, ' || config || ', ' || context, round(max(speedup), 3)
FROM v_speedup WHERE phase = 'block' AND is_reference = 0 GROUP BY config, context
UNION ALL
SELECT 'over ' || b.method || ', ' || a.config, round(max(b.median_us / a.median_us), 3)
FROM v_latency a JOIN v_latency b ON b.run_id = a.run_id AND b.session_id = a.session_id AND b.context = a.context
     AND b.batch = a.batch AND b.steps = a.steps AND b.phase = a.phase AND b.k = a.k AND b.method <> a.method
WHERE a.phase = 'block' GROUP BY b.method, a.config
