-- Every method at equal measured work, over the tasks, at levels of your own: edit the list. The two configurations
-- that a number lies between stand beside it. v_equal_work has the same at fixed levels.
WITH level(at) AS (VALUES (0.05), (0.1), (0.25), (0.5), (0.65)),
read_off AS (
    SELECT w.*, at, CASE WHEN next_work > work THEN (at - work) / (next_work - work) ELSE 0 END AS share
    FROM v_work w JOIN level ON at = work OR (at > work AND at < next_work)
    WHERE task = '*' AND is_oracle = 0
)
SELECT run, sampler, at AS work, curve,
       round(100 * iif(share > 0, score + share * (next_score - score), score), 1) AS score,
       round(iif(share > 0, index_recall + share * (next_index_recall - index_recall), index_recall), 3) AS index_recall,
       round(iif(share > 0, mass_recall + share * (next_mass_recall - mass_recall), mass_recall), 3) AS mass_recall,
       config AS between_this, iif(share > 0, next_config, config) AS and_this
FROM read_off
ORDER BY run, sampler, at, score DESC, curve;
