-- The cheapest configuration of each method whose mean score is within 2 points of the reference: by measured
-- attention work, not by the label.
SELECT run, model, sampler, method, config, round(100 * score, 2) AS score, round(100 * delta, 2) AS delta,
       round(work, 3) AS work
FROM (SELECT p.*, row_number() OVER (PARTITION BY run_id, model_id, sampler_id, method ORDER BY work) AS place
      FROM (SELECT DISTINCT run, model, sampler, method, config, score, delta, work, run_id, model_id, sampler_id
            FROM v_pareto WHERE is_oracle = 0 AND delta >= -0.02) p)
WHERE place = 1
ORDER BY run, model, sampler, work;
