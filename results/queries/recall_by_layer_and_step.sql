-- Mass recall of every configuration by layer, first against last denoising step: how fast a kept selection ages.
SELECT run, sampler, config, layer,
       round(sum(CASE WHEN step = first THEN mass_recall * blocks END)
             / sum(CASE WHEN step = first THEN blocks END), 4) AS first_step,
       round(sum(CASE WHEN step = last THEN mass_recall * blocks END)
             / sum(CASE WHEN step = last THEN blocks END), 4) AS last_step
FROM (SELECT *, min(step) OVER (PARTITION BY run_id, config_id, sampler_id) AS first,
             max(step) OVER (PARTITION BY run_id, config_id, sampler_id) AS last
      FROM v_recall WHERE pass = 'recall')
GROUP BY run_id, sampler_id, config_id, layer
ORDER BY run, sampler, config, layer;
