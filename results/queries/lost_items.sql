-- What a method gets wrong that the reference gets right, side by side: the first thing to read after a bad score.
SELECT run, task, item, sampler, config, round(reference_score, 3) AS reference_score, round(score, 3) AS score,
       substr(reference_prediction, 1, 60) AS reference_answer, substr(prediction, 1, 60) AS answer,
       answers AS accepted
FROM v_paired_item
WHERE difference < 0
ORDER BY difference, config, task, item
LIMIT 50;
