-- Needle in a haystack as a table: a row per length, a column per depth (rounded to quarters), in percent.
SELECT run, sampler, config, length,
       round(100 * avg(CASE WHEN depth < 12.5 THEN score END)) AS depth_0,
       round(100 * avg(CASE WHEN depth >= 12.5 AND depth < 37.5 THEN score END)) AS depth_25,
       round(100 * avg(CASE WHEN depth >= 37.5 AND depth < 62.5 THEN score END)) AS depth_50,
       round(100 * avg(CASE WHEN depth >= 62.5 AND depth < 87.5 THEN score END)) AS depth_75,
       round(100 * avg(CASE WHEN depth >= 87.5 THEN score END)) AS depth_100,
       sum(n) AS n
FROM v_niah
GROUP BY run_id, model_id, dataset_id, sampler_id, config_id, length
ORDER BY run, sampler, config, length;
