-- Counters that methods keep by layer and step: every layer, the mean over its steps beside the first and the last.
SELECT run, sampler, config, name, layer,
       round(CASE aggregate WHEN 'sum' THEN sum(value) WHEN 'max' THEN max(value)
                            ELSE sum(value * weight) / sum(weight) END, 4) AS all_steps,
       round(CASE WHEN aggregate = 'mean' THEN sum(CASE WHEN step = first THEN value * weight END)
                                               / sum(CASE WHEN step = first THEN weight END)
                  WHEN aggregate = 'sum' THEN sum(CASE WHEN step = first THEN value END)
                  ELSE max(CASE WHEN step = first THEN value END) END, 4) AS first_step,
       round(CASE WHEN aggregate = 'mean' THEN sum(CASE WHEN step = last THEN value * weight END)
                                               / sum(CASE WHEN step = last THEN weight END)
                  WHEN aggregate = 'sum' THEN sum(CASE WHEN step = last THEN value END)
                  ELSE max(CASE WHEN step = last THEN value END) END, 4) AS last_step
FROM (SELECT *, min(step) OVER counter AS first, max(step) OVER counter AS last
      FROM v_counter_grid WHERE pass = 'quality' AND coalesce(step, 1) > 0
      WINDOW counter AS (PARTITION BY run_id, config_id, sampler_id, name))
GROUP BY run_id, sampler_id, config_id, name, layer
ORDER BY run, sampler, config, name, layer;
