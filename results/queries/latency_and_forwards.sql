-- Time per block taken apart: forwards per block (from the quality pass) times the cost of a step (from the
-- latency pass, longest context). Sparsity can make a forward cheaper and still need more of them.
SELECT a.run, a.config, l.context, round(a.forwards_per_block, 2) AS forwards_per_block,
       round(l.later_ms, 3) AS later_step_ms, round(a.forwards_per_block * l.later_ms, 2) AS block_ms
FROM (SELECT run, run_id, config, config_id, sum(forwards_per_block * n) / sum(n) AS forwards_per_block
      FROM v_accuracy WHERE n > 0 GROUP BY run_id, config_id) a
JOIN (SELECT run_id, config_id, context, min(median_us) / 1e3 AS later_ms
      FROM (SELECT *, max(context) OVER (PARTITION BY run_id) AS longest FROM v_latency WHERE phase = 'later_step')
      WHERE context = longest
      GROUP BY run_id, config_id) l
  ON l.run_id = a.run_id AND l.config_id = a.config_id
ORDER BY a.run, block_ms;
