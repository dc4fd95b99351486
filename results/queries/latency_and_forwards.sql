-- Where the time of a block goes under each sampler: denoising forwards a block needs (quality pass, paired by item)
-- and the time of one later step (latency pass, longest context). later_steps_ms is their product, without the first
-- step, the commit and the host; block_ms is a whole measured block of `block_steps` fixed steps.
WITH longest AS (
    SELECT l.*, max(context) OVER (PARTITION BY run_id) AS longest FROM v_latency l
), times AS (
    SELECT run_id, config_id, context, batch,
           min(CASE WHEN phase = 'later_step' THEN median_us END) / 1e3 AS later_ms,
           max(CASE WHEN phase = 'block' THEN median_us END) / 1e3 AS block_ms,
           max(CASE WHEN phase = 'block' THEN steps END) AS block_steps
    FROM longest WHERE context = longest
    GROUP BY run_id, config_id, context, batch
)
SELECT r.run, r.config, r.sampler, t.context, t.batch, round(r.forwards_per_block, 2) AS forwards_per_block,
       round(r.ratio, 3) AS forwards_ratio, round(t.later_ms, 3) AS later_step_ms,
       round(r.forwards_per_block * t.later_ms, 2) AS later_steps_ms, round(t.block_ms, 2) AS block_ms, t.block_steps
FROM v_forwards_ratio r
JOIN times t ON t.run_id = r.run_id AND t.config_id = r.config_id
WHERE r.task = '*'
ORDER BY r.run, r.sampler, t.context, t.batch, later_steps_ms;
