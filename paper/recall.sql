-- Index recall over layers and denoising steps, in percent: all, then by layer, then by step.
SELECT 'index recall, ' || config, round(100 * sum(index_recall * blocks) / sum(blocks), 2) FROM v_recall GROUP BY config
UNION ALL
SELECT 'index recall in layer ' || layer || ', ' || config, round(100 * sum(index_recall * blocks) / sum(blocks), 2)
FROM v_recall GROUP BY config, layer
UNION ALL
SELECT 'index recall at step ' || step || ', ' || config, round(100 * sum(index_recall * blocks) / sum(blocks), 2)
FROM v_recall GROUP BY config, step
