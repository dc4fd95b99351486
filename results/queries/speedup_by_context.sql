-- End-to-end speed-up of a block over the reference by context; low and high are conservative (p10 against p90).
SELECT run, model, method, config, context, batch, steps, round(speedup, 3) AS speedup, round(low, 3) AS low,
       round(high, 3) AS high, round(reference_us / 1e3, 3) AS reference_ms, round(median_us / 1e3, 3) AS ms
FROM v_speedup
WHERE phase = 'block' AND is_oracle = 0 AND is_reference = 0
ORDER BY run, model, batch, steps, context, speedup DESC;
