-- Paired difference to the reference by task: mean in points, how many items each side wins. A mean without its
-- wins and losses hides whether one item or many moved.
SELECT run, sampler, task, config, round(100 * mean, 2) AS points, n, wins, losses, ties,
       round(100 * same_prediction, 1) AS same_answer_percent
FROM v_paired
WHERE is_reference = 0
ORDER BY run, sampler, task, points DESC;
