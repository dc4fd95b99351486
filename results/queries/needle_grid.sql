-- Needle in a haystack: a row per requested length and depth as they were asked for, in percent.
SELECT run, sampler, config, context AS length, depth AS depth_percent, round(100 * score, 1) AS score, n
FROM v_niah
ORDER BY run, sampler, config, context, depth;
