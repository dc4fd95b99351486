-- Score by context length, in percent, over depths.
SELECT 'score at ' || context || ', ' || config, round(100 * sum(score * n) / sum(n), 2) FROM v_niah GROUP BY context, config
