-- views.sql - what readers may rely on: reports, exports, plots and users query these and nothing else.
--
-- Common columns: run (label of the run), model, task, method, config (label of a method with its options), k
-- (token budget, NULL: none), sampler, is_reference (1: the configuration others are compared with: the run's
-- first lossless one), is_oracle (1: costs more than exact by design, left out of speed figures). Scores are
-- 0..1, times microseconds, nothing is rounded.
--
-- work is all that was read of the prefix, share of exact's: work_attend (by attention, dense calls included) plus
-- work_select (to choose). One rule of averaging everywhere: over the samples of a task, then over tasks with equal
-- weight. A mean over tasks leaves out tasks on which no configuration scores at all (v_task_used).
--
-- DuckDB computes what it can of these views by its own rules: count(1), CROSS JOIN of json_each, no IS between columns,
-- no CAST AS INTEGER of what is not whole (it rounds there), no NULL for printf(). For SQLite 3.26 a window is not built
-- on another one.
--
-- A label stands for one thing: where code, plug-in, options' defaults or data behind a label changed, the views
-- show the newest and v_samples_all and v_cell_all have the rest.

-- ---- building blocks ----

CREATE VIEW v_cell_all AS
WITH newest AS (    -- build and configuration that a label of a run stands for
    SELECT c.id,
           first_value(c.config_id) OVER label AS config_id, first_value(c.build_id) OVER label AS build_id,
           first_value(c.model_id) OVER label AS model_id,
           max(c.session_id) OVER (PARTITION BY c.run_id, o.name, f.label, c.sampler_id, c.pass, d.benchmark, d.task)
               AS task_session
    FROM cell c
    JOIN config f ON f.id = c.config_id
    JOIN model o ON o.id = c.model_id
    LEFT JOIN dataset d ON d.id = c.dataset_id
    WINDOW label AS (PARTITION BY c.run_id, o.name, f.label, c.sampler_id, c.pass
                     ORDER BY c.session_id DESC, c.id DESC)
)
SELECT c.id AS cell_id, c.run_id, c.model_id, c.dataset_id, c.config_id, c.sampler_id, c.build_id, c.session_id,
       r.label AS run, o.name AS model, o.synthetic, o.block,
       d.task, d.benchmark, d.category, d.language, d.metric,
       m.name AS method, f.label AS config, f.k,
       CASE s.schedule WHEN 'fixed' THEN 'T=' || s.steps || '/' || s.block
                       ELSE s.schedule || coalesce(' ' || printf('%.3g', s.threshold), '') END
           || CASE WHEN s.block_cache THEN ' cached' ELSE '' END || coalesce(' ' || s.options, '') AS sampler,
       s.schedule, s.steps AS sampler_steps, c.pass, c.state, c.reason,
       CASE WHEN m.caps & 8 THEN 1 ELSE 0 END AS is_lossless,
       CASE WHEN m.caps & 4 THEN 1 ELSE 0 END AS is_oracle,
       b.hash AS build, b.git AS build_git,
       CASE WHEN c.config_id = n.config_id AND coalesce(c.build_id, 0) = coalesce(n.build_id, 0)
                 AND c.model_id = n.model_id AND coalesce(c.session_id, 0) = coalesce(n.task_session, 0) THEN 1 ELSE 0 END AS is_current
FROM cell c
JOIN newest n ON n.id = c.id
JOIN run r ON r.id = c.run_id
JOIN model o ON o.id = c.model_id
JOIN config f ON f.id = c.config_id
JOIN method m ON m.id = f.method_id
JOIN sampler s ON s.id = c.sampler_id
LEFT JOIN dataset d ON d.id = c.dataset_id
LEFT JOIN build b ON b.id = c.build_id;

-- The configuration that a run compares with: the first whose method is lossless.
CREATE VIEW v_reference AS
SELECT run_id, model_id, min(config_id) AS config_id
FROM v_cell_all
WHERE is_current AND is_lossless
GROUP BY run_id, model_id;

CREATE VIEW v_cell AS
SELECT c.*, CASE WHEN v.config_id = c.config_id THEN 1 ELSE 0 END AS is_reference
FROM v_cell_all c
LEFT JOIN v_reference v ON v.run_id = c.run_id AND v.model_id = c.model_id
WHERE c.is_current;

-- ---- samples and accuracy ----

CREATE VIEW v_samples AS
SELECT c.run, c.model, c.task, c.method, c.config, c.k, c.sampler, c.pass,
       i.key AS item, i.bucket, i.length, i.context, i.depth,
       s.status, s.error, s.score, s.prediction, i.answers_json AS answers, i.classes_json AS classes,
       p.tokens AS prompt_tokens, p.truncated, p.token_hash,
       s.new_tokens, s.stopped, s.blocks, s.denoise_forwards, s.commit_forwards,
       s.engaged, s.work_attend + coalesce(s.work_select, 0) AS work, s.work_attend, s.work_select, s.agree, s.compared, s.dense_calls, s.sparse_calls,
       s.prefill_us, s.decode_us,
       c.benchmark, c.category, c.language, c.metric, c.synthetic, c.is_reference, c.is_lossless, c.is_oracle,
       c.run_id, c.model_id, c.dataset_id, c.config_id, c.sampler_id, s.cell_id, s.item_id, s.id AS sample_id
FROM sample s
JOIN v_cell c ON c.cell_id = s.cell_id
JOIN item i ON i.id = s.item_id
LEFT JOIN prompt p ON p.id = s.prompt_id;

-- Superseded rows too: is_current 0, with the build that made them.
CREATE VIEW v_samples_all AS
SELECT c.run, c.model, c.task, c.method, c.config, c.k, c.sampler, c.pass,
       i.key AS item, i.bucket, i.length, i.context, i.depth,
       s.status, s.error, s.score, s.prediction, i.answers_json AS answers, i.classes_json AS classes,
       p.tokens AS prompt_tokens, p.truncated, p.token_hash,
       s.new_tokens, s.stopped, s.blocks, s.denoise_forwards, s.commit_forwards,
       s.engaged, s.work_attend + coalesce(s.work_select, 0) AS work, s.work_attend, s.work_select, s.agree, s.compared, s.dense_calls, s.sparse_calls,
       s.prefill_us, s.decode_us,
       c.benchmark, c.category, c.language, c.metric, c.synthetic, c.is_lossless, c.is_oracle, c.is_current, c.build, c.build_git,
       c.run_id, c.model_id, c.dataset_id, c.config_id, c.sampler_id, s.cell_id, s.item_id, s.id AS sample_id
FROM sample s
JOIN v_cell_all c ON c.cell_id = s.cell_id
JOIN item i ON i.id = s.item_id
LEFT JOIN prompt p ON p.id = s.prompt_id;

-- Mean score of a task, with what it cost. n: samples with a score.
CREATE VIEW v_accuracy AS
SELECT run, model, task, method, config, k,
       avg(score) AS score, count(score) AS n, avg(engaged) AS engaged, avg(work) AS work,
       avg(work_attend) AS work_attend, avg(work_select) AS work_select,
       1.0 * sum(denoise_forwards) / nullif(sum(blocks), 0) AS forwards_per_block,
       avg(prompt_tokens) AS prompt_tokens, sum(new_tokens) AS new_tokens,
       sum(status = 'failed') AS failed, sum(status = 'skipped') AS skipped,
       sampler, benchmark, category, language, metric, synthetic, is_reference, is_lossless, is_oracle,
       run_id, model_id, dataset_id, config_id, sampler_id
FROM v_samples
WHERE pass = 'quality'
GROUP BY run_id, model_id, dataset_id, config_id, sampler_id;

-- The tasks that a mean over tasks is made of: used 0 where no configuration of the run scores at all, under any
-- sampler: the model cannot do the task, and it would only pull all methods together.
CREATE VIEW v_task_used AS
SELECT run_id, model_id, dataset_id, task, CASE WHEN max(score) > 0 THEN 1 ELSE 0 END AS used, run, model
FROM v_accuracy WHERE n > 0
GROUP BY run_id, model_id, dataset_id;

-- The same by the benchmark's own groups (length buckets, difficulty).
CREATE VIEW v_accuracy_bucket AS
SELECT run, model, task, method, config, k, bucket, avg(score) AS score, count(score) AS n, sampler
FROM v_samples
WHERE pass = 'quality' AND bucket IS NOT NULL
GROUP BY run_id, model_id, dataset_id, config_id, sampler_id, bucket;

-- Mean score by context length: prompts of up to 512, 1024, ... tokens, over the used tasks that have such prompts.
CREATE VIEW v_accuracy_context AS
WITH sized AS (
    SELECT run, model, method, config, k, score, sampler, is_reference, is_oracle,
           run_id, model_id, dataset_id, config_id, sampler_id,
           CASE WHEN prompt_tokens <= 512 THEN 512 WHEN prompt_tokens <= 1024 THEN 1024
                WHEN prompt_tokens <= 2048 THEN 2048 WHEN prompt_tokens <= 4096 THEN 4096
                WHEN prompt_tokens <= 8192 THEN 8192 WHEN prompt_tokens <= 16384 THEN 16384
                WHEN prompt_tokens <= 32768 THEN 32768 WHEN prompt_tokens <= 65536 THEN 65536
                WHEN prompt_tokens <= 131072 THEN 131072 WHEN prompt_tokens <= 262144 THEN 262144
                WHEN prompt_tokens <= 524288 THEN 524288 WHEN prompt_tokens <= 1048576 THEN 1048576 ELSE 2097152 END AS up_to
    FROM v_samples
    WHERE pass = 'quality' AND score IS NOT NULL AND prompt_tokens > 0
), by_task AS (
    SELECT run, model, method, config, k, up_to, avg(score) AS score, count(1) AS n, sampler, is_reference,
           is_oracle, run_id, model_id, dataset_id, config_id, sampler_id
    FROM sized
    GROUP BY run_id, model_id, dataset_id, config_id, sampler_id, up_to
)
SELECT b.run, b.model, b.method, b.config, b.k, b.up_to, avg(b.score) AS score, sum(b.n) AS n, count(1) AS tasks,
       b.sampler, b.is_reference, b.is_oracle, b.run_id, b.model_id, b.config_id, b.sampler_id
FROM by_task b
JOIN v_task_used t ON t.run_id = b.run_id AND t.model_id = b.model_id AND t.dataset_id = b.dataset_id AND t.used
GROUP BY b.run_id, b.model_id, b.config_id, b.sampler_id, b.up_to;

-- Runs of one config text that differ in the seed: means over the used tasks, then over the seeds. Runs in which the
-- configuration lacks a used task are not counted. variance: between the seeds, of a sample (NULL for one seed).
-- delta: mean over the tasks of the paired differences to the reference. list_text is the same for all models of a
-- config with a list of models.
CREATE VIEW v_seeds AS
WITH per_run AS (
    SELECT r.name, r.seed, json_remove(r.config_json, '$.seed', '$.results', '$.plots', '$.threads') AS text,
           json_remove(r.config_json, '$.seed', '$.results', '$.plots', '$.threads', '$.model') AS list_text,
           a.run_id, a.model_id, a.model, a.method, a.config, a.k, a.config_id, a.sampler, a.is_reference,
           avg(a.score) AS score, avg(p.mean) AS delta, avg(a.work) AS work, sum(a.n) AS n, count(1) AS tasks
    FROM v_accuracy a
    JOIN v_task_used t ON t.run_id = a.run_id AND t.model_id = a.model_id AND t.dataset_id = a.dataset_id AND t.used
    JOIN run r ON r.id = a.run_id
    LEFT JOIN v_paired p ON p.run_id = a.run_id AND p.model_id = a.model_id AND p.dataset_id = a.dataset_id
                        AND p.config_id = a.config_id AND p.sampler_id = a.sampler_id
    WHERE a.n > 0
    GROUP BY a.run_id, a.model_id, a.config_id, a.sampler_id
), complete AS (
    SELECT q.* FROM per_run q
    JOIN (SELECT run_id, model_id, sum(used) AS tasks FROM v_task_used GROUP BY run_id, model_id) u
      ON u.run_id = q.run_id AND u.model_id = q.model_id AND u.tasks = q.tasks
)
SELECT c.name, c.model, c.method, c.config, c.k, c.sampler, count(1) AS seeds, avg(c.score) AS score,
       CASE WHEN count(1) > 1
            THEN max(0.0, sum(c.score * c.score) - count(1) * avg(c.score) * avg(c.score)) / (count(1) - 1)
            END AS variance,
       min(c.score) AS lowest, max(c.score) AS highest, max(c.tasks) AS tasks, min(c.run_id) AS first_run_id,
       max(c.run_id) AS last_run_id, c.text AS config_text,
       avg(c.delta) AS delta,
       CASE WHEN count(c.delta) > 1
            THEN max(0.0, sum(c.delta * c.delta) - count(c.delta) * avg(c.delta) * avg(c.delta)) / (count(c.delta) - 1)
            END AS delta_variance,
       avg(c.work) AS work, sum(c.n) AS n, max(c.is_reference) AS is_reference, max(o.type) AS type,
       min(c.config_id) AS first_config_id, c.list_text
FROM complete c
JOIN model o ON o.id = c.model_id
GROUP BY c.name, c.text, c.list_text, c.model, c.method, c.config, c.k, c.sampler;

CREATE VIEW v_niah AS
SELECT run, model, task, method, config, k, context, depth, avg(score) AS score, count(score) AS n,
       avg(prompt_tokens) AS prompt_tokens, avg(work) AS work, sampler, is_reference, is_oracle,
       run_id, model_id, dataset_id, config_id, sampler_id
FROM v_samples
WHERE pass = 'quality' AND context > 0 AND depth IS NOT NULL
GROUP BY run_id, model_id, dataset_id, config_id, sampler_id, context, depth;

-- LongBench the way its readers average it: the mean over the six categories of the mean over their tasks, and
-- the mean of the 16 tasks that are not Chinese. tasks and tasks_16 say how many tasks stand behind the number.
CREATE VIEW v_longbench AS
WITH category_mean AS (
    SELECT run_id, model_id, config_id, sampler_id, category, avg(score) AS score
    FROM v_accuracy WHERE benchmark = 'longbench' AND n > 0
    GROUP BY run_id, model_id, config_id, sampler_id, category
), overall AS (
    SELECT run_id, model_id, config_id, sampler_id, avg(score) AS score, count(1) AS categories
    FROM category_mean GROUP BY run_id, model_id, config_id, sampler_id
)
SELECT a.run, a.model, a.method, a.config, a.k, a.sampler,
       o.score AS category_mean, o.categories, count(1) AS tasks,
       avg(CASE WHEN a.language <> 'zh' THEN a.score END) AS mean_16, sum(a.language <> 'zh') AS tasks_16
FROM v_accuracy a
JOIN overall o ON o.run_id = a.run_id AND o.model_id = a.model_id AND o.config_id = a.config_id
              AND o.sampler_id = a.sampler_id
WHERE a.benchmark = 'longbench' AND a.n > 0
GROUP BY a.run_id, a.model_id, a.config_id, a.sampler_id;

-- ---- paired with the reference: same run, model, sampler, item and prompt tokens ----

CREATE VIEW v_paired_item AS
SELECT a.run, a.model, a.task, a.method, a.config, a.k, a.sampler, a.item,
       a.score, b.score AS reference_score, a.score - b.score AS difference,
       a.prediction, b.prediction AS reference_prediction, a.answers,
       a.prediction = b.prediction AS same_prediction, a.denoise_forwards, a.blocks,
       b.denoise_forwards AS reference_forwards, b.blocks AS reference_blocks,
       a.new_tokens = b.new_tokens AS same_length, a.prompt_tokens + a.new_tokens AS tokens,
       a.is_reference, a.is_lossless, a.is_oracle,
       a.run_id, a.model_id, a.dataset_id, a.config_id, a.sampler_id, a.item_id
FROM v_samples a
JOIN v_reference v ON v.run_id = a.run_id AND v.model_id = a.model_id
JOIN cell rc ON rc.run_id = a.run_id AND rc.model_id = a.model_id AND rc.dataset_id = a.dataset_id
            AND rc.config_id = v.config_id AND rc.sampler_id = a.sampler_id AND rc.pass = 'quality'
JOIN v_samples b ON b.cell_id = rc.id AND b.item_id = a.item_id AND b.token_hash = a.token_hash
WHERE a.pass = 'quality' AND a.score IS NOT NULL AND b.score IS NOT NULL;

CREATE VIEW v_paired AS
SELECT run, model, task, method, config, k, sampler,
       avg(difference) AS mean, count(1) AS n,
       sum(difference > 0) AS wins, sum(difference < 0) AS losses, sum(difference = 0) AS ties,
       avg(same_prediction) AS same_prediction,
       1.0 * sum(denoise_forwards) / nullif(sum(blocks), 0) AS forwards_per_block,
       1.0 * sum(reference_forwards) / nullif(sum(reference_blocks), 0) AS reference_forwards_per_block,
       is_reference, is_lossless, is_oracle, run_id, model_id, dataset_id, config_id, sampler_id
FROM v_paired_item
GROUP BY run_id, model_id, dataset_id, config_id, sampler_id;

-- ---- recall ----

-- Mean over all block-steps of all samples; layers and steps that ran dense have no row. n: samples.
CREATE VIEW v_recall AS
SELECT c.run, c.model, c.task, c.method, c.config, c.k, r.layer, r.step,
       sum(r.index_recall * r.blocks) / sum(r.blocks) AS index_recall,
       sum(r.mass_recall * r.blocks) / sum(r.blocks) AS mass_recall, count(1) AS n,
       sum(r.captured_mass * r.blocks) / sum(r.blocks) AS captured_mass, sum(r.blocks) AS blocks,
       c.pass, c.sampler, c.is_reference, c.is_oracle,
       c.run_id, c.model_id, c.dataset_id, c.config_id, c.sampler_id
FROM recall r
JOIN sample s ON s.id = r.sample_id
JOIN v_cell c ON c.cell_id = s.cell_id
GROUP BY c.cell_id, r.layer, r.step;

-- The same of one sample over its layers and steps: what two runs are paired by. is_current as in v_samples_all.
CREATE VIEW v_recall_sample AS
SELECT s.run, s.model, s.task, s.method, s.config, s.k, s.sampler, s.pass, s.item, s.token_hash,
       sum(r.index_recall * r.blocks) / sum(r.blocks) AS index_recall,
       sum(r.mass_recall * r.blocks) / sum(r.blocks) AS mass_recall, sum(r.blocks) AS blocks,
       s.is_current, s.build, s.run_id, s.model_id, s.dataset_id, s.config_id, s.sampler_id, s.sample_id
FROM recall r
JOIN v_samples_all s ON s.sample_id = r.sample_id
GROUP BY r.sample_id;

CREATE VIEW v_recall_head AS
SELECT c.run, c.model, c.task, c.method, c.config, c.k, r.layer, r.step, h.key AS head,
       sum(h.value * r.blocks) / sum(r.blocks) AS index_recall,
       sum(m.value * r.blocks) / sum(r.blocks) AS mass_recall, count(1) AS n,
       c.pass, c.sampler, c.run_id, c.model_id, c.dataset_id, c.config_id, c.sampler_id
FROM recall r
JOIN sample s ON s.id = r.sample_id
JOIN v_cell c ON c.cell_id = s.cell_id
CROSS JOIN json_each(r.index_heads) h
CROSS JOIN json_each(r.mass_heads) m
WHERE m.key = h.key AND h.value IS NOT NULL -- a head that read everything has no recall, and no weight either
GROUP BY c.cell_id, r.layer, r.step, h.key;

-- One row per configuration and task: the mean over its layers and steps, and the share of layer-steps that ran
-- sparse and so could be measured.
CREATE VIEW v_recall_config AS
SELECT run, model, task, method, config, k,
       sum(index_recall * blocks) / sum(blocks) AS index_recall,
       sum(mass_recall * blocks) / sum(blocks) AS mass_recall, max(n) AS n,
       count(DISTINCT layer) AS layers, count(DISTINCT step) AS steps, sum(blocks) AS blocks,
       pass, sampler, is_reference, is_oracle, run_id, model_id, dataset_id, config_id, sampler_id
FROM v_recall
GROUP BY run_id, model_id, dataset_id, config_id, sampler_id, pass;

-- ---- forwards ----

CREATE VIEW v_forwards AS
SELECT run, model, task, method, config, k, forwards, blocks,
       1.0 * blocks / sum(blocks) OVER (PARTITION BY run_id, model_id, dataset_id, config_id, sampler_id) AS share,
       sampler, schedule, is_reference, is_oracle, run_id, model_id, dataset_id, config_id, sampler_id
FROM (SELECT c.run, c.model, c.task, c.method, c.config, c.k, h.forwards, sum(h.blocks) AS blocks, c.sampler,
             c.schedule, c.is_reference, c.is_oracle, c.run_id, c.model_id, c.dataset_id, c.config_id, c.sampler_id
      FROM forwards h
      JOIN sample s ON s.id = h.sample_id
      JOIN v_cell c ON c.cell_id = s.cell_id
      WHERE c.pass = 'quality'
      GROUP BY c.cell_id, h.forwards);

-- What sparse attention does to the number of denoising forwards of a block, paired by item: ratio above 1 means
-- more forwards than the reference. task '*': mean over the used tasks of their ratios. Confidence intervals are in the report.
CREATE VIEW v_forwards_ratio AS
WITH by_task AS (
    SELECT p.run, p.model, p.task, p.method, p.config, p.k, p.sampler, count(1) AS n,
           1.0 * sum(p.denoise_forwards) / nullif(sum(p.blocks), 0) AS forwards_per_block,
           1.0 * sum(p.reference_forwards) / nullif(sum(p.reference_blocks), 0) AS reference_forwards_per_block,
           1.0 * sum(p.denoise_forwards) / count(1) AS forwards_per_request,
           1.0 * sum(p.reference_forwards) / count(1) AS reference_forwards_per_request,
           p.is_reference, p.is_oracle, p.run_id, p.model_id, p.dataset_id, p.config_id, p.sampler_id
    FROM v_paired_item p
    GROUP BY p.run_id, p.model_id, p.dataset_id, p.config_id, p.sampler_id
), ratios AS (
    SELECT *, forwards_per_block / nullif(reference_forwards_per_block, 0) AS ratio,
           forwards_per_request / nullif(reference_forwards_per_request, 0) AS request_ratio
    FROM by_task
)
SELECT run, model, task, method, config, k, sampler, n, forwards_per_block, reference_forwards_per_block, ratio,
       forwards_per_request, reference_forwards_per_request, request_ratio,
       is_reference, is_oracle, run_id, model_id, dataset_id, config_id, sampler_id
FROM ratios
UNION ALL
SELECT r.run, r.model, '*', r.method, r.config, r.k, r.sampler, sum(r.n), avg(r.forwards_per_block),
       avg(r.reference_forwards_per_block), avg(r.ratio), avg(r.forwards_per_request),
       avg(r.reference_forwards_per_request), avg(r.request_ratio),
       r.is_reference, r.is_oracle, r.run_id, r.model_id, NULL, r.config_id, r.sampler_id
FROM ratios r
JOIN v_task_used t ON t.run_id = r.run_id AND t.model_id = r.model_id AND t.dataset_id = r.dataset_id AND t.used
GROUP BY r.run_id, r.model_id, r.config_id, r.sampler_id;

-- ---- latency ----

-- Quantiles by linear interpolation between order statistics, one row per measured case, phase, launch mode and
-- session. Samples that were dropped (clock too low) are counted, not used. is_newest: the newest measurement of the
-- case; older ones stay. sampler: the schedule that was timed, which is the cell's own for phase request alone.
CREATE VIEW v_latency_all AS
WITH ranked AS (
    SELECT cell_id, session_id, context, batch, steps, graph, phase, time_us,
           row_number() OVER ordered - 1 AS i, count(1) OVER whole AS n, lead(time_us) OVER ordered AS next_us
    FROM latency
    WHERE kept = 1
    WINDOW whole AS (PARTITION BY cell_id, session_id, context, batch, steps, graph, phase),
           ordered AS (PARTITION BY cell_id, session_id, context, batch, steps, graph, phase ORDER BY time_us)
), quantile AS (
    SELECT cell_id, session_id, context, batch, steps, graph, phase, max(n) AS n,
           max(CASE WHEN i <= (n - 1) * 0.1 AND i + 1 > (n - 1) * 0.1
                    THEN time_us + ((n - 1) * 0.1 - i) * (coalesce(next_us, time_us) - time_us) END) AS p10_us,
           max(CASE WHEN i <= (n - 1) * 0.5 AND i + 1 > (n - 1) * 0.5
                    THEN time_us + ((n - 1) * 0.5 - i) * (coalesce(next_us, time_us) - time_us) END) AS median_us,
           max(CASE WHEN i <= (n - 1) * 0.9 AND i + 1 > (n - 1) * 0.9
                    THEN time_us + ((n - 1) * 0.9 - i) * (coalesce(next_us, time_us) - time_us) END) AS p90_us
    FROM ranked
    GROUP BY cell_id, session_id, context, batch, steps, graph, phase
)
SELECT c.run, c.model, c.method, c.config, c.k, q.context, q.batch, q.steps, q.graph, q.phase,
       q.median_us, q.p10_us, q.p90_us, q.n,
       (SELECT count(1) FROM latency l
        WHERE l.cell_id = q.cell_id AND l.session_id = q.session_id AND l.context = q.context
          AND l.batch = q.batch AND l.steps = q.steps AND l.graph = q.graph AND l.phase = q.phase AND l.kept = 0) AS dropped,
       CASE q.phase WHEN 'request' THEN c.sampler WHEN 'prefill' THEN 'prefill'
                    ELSE 'T=' || q.steps || '/' || c.block END AS sampler,
       c.synthetic, c.block, c.is_reference, c.is_oracle,
       CASE WHEN q.session_id = max(q.session_id) OVER (PARTITION BY q.cell_id, q.context, q.batch, q.steps, q.phase)
            THEN 1 ELSE 0 END AS is_newest, y.started_at AS measured_at, c.build, c.build_git,
       c.run_id, c.model_id, c.config_id, c.sampler_id, q.session_id, q.cell_id
FROM quantile q
JOIN v_cell c ON c.cell_id = q.cell_id
JOIN session y ON y.id = q.session_id;

CREATE VIEW v_latency_mode AS
SELECT run, model, method, config, k, context, batch, steps, graph, phase, median_us, p10_us, p90_us, n, dropped,
       sampler, synthetic, block, is_reference, is_oracle, measured_at, run_id, model_id, config_id, sampler_id,
       session_id, cell_id
FROM v_latency_all WHERE is_newest;

-- The faster of graph and eager, for the reference as for everyone else. tokens_per_s: of phase block.
CREATE VIEW v_latency AS
WITH ordered AS (
    SELECT *, row_number() OVER (PARTITION BY cell_id, session_id, context, batch, steps, phase
                                 ORDER BY median_us, graph) AS place
    FROM v_latency_mode
)
SELECT run, model, method, config, k, context, batch, phase, median_us, p10_us, p90_us, n, steps, graph, dropped,
       CASE WHEN phase = 'block' THEN 1e6 * block * batch / median_us END AS tokens_per_s,
       sampler, synthetic, is_reference, is_oracle, measured_at, run_id, model_id, config_id, sampler_id, session_id,
       cell_id
FROM ordered WHERE place = 1;

-- Ratio of medians to the reference at the same context, batch and steps, both measured in one session: methods take
-- turns there. low and high combine the p10 of one side with the p90 of the other: wider than a paired interval,
-- never narrower.
CREATE VIEW v_speedup AS
WITH reference AS (
    SELECT *, row_number() OVER (PARTITION BY run_id, model_id, sampler_id, session_id, context, batch, steps, phase
                                 ORDER BY median_us, graph) AS place
    FROM v_latency_all WHERE is_reference = 1
)
SELECT a.run, a.model, a.method, a.config, a.k, a.context, a.batch, a.steps, a.phase,
       b.median_us / a.median_us AS speedup, b.p10_us / a.p90_us AS low, b.p90_us / a.p10_us AS high,
       a.median_us, b.median_us AS reference_us, a.n,
       a.sampler, a.synthetic, a.is_reference, a.is_oracle, a.measured_at,
       a.run_id, a.model_id, a.config_id, a.sampler_id, a.session_id
FROM v_latency a
JOIN reference b ON b.place = 1 AND b.run_id = a.run_id AND b.model_id = a.model_id
                AND b.sampler_id = a.sampler_id AND b.session_id = a.session_id AND b.context = a.context
                AND b.batch = a.batch AND b.steps = a.steps AND b.phase = a.phase;

-- Steps per block from which a method has repaid its first step: first + (T-1) later <= T exact steps. NULL: it
-- never does. exact_us: the reference's later step.
CREATE VIEW v_break_even AS
SELECT l.run, l.model, l.method, l.config, l.k, l.context, l.batch, l.steps,
       f.median_us AS first_us, l.median_us AS later_us, l.reference_us AS exact_us,
       CASE WHEN l.median_us < l.reference_us
            THEN max(1.0, (f.median_us - l.median_us) / (l.reference_us - l.median_us)) END AS break_even_steps,
       l.sampler, l.synthetic, l.is_reference, l.is_oracle, l.run_id, l.model_id, l.config_id, l.sampler_id
FROM v_speedup l
JOIN v_speedup f ON f.phase = 'first_step' AND f.run_id = l.run_id AND f.model_id = l.model_id
                AND f.config_id = l.config_id AND f.sampler_id = l.sampler_id AND f.context = l.context
                AND f.batch = l.batch AND f.steps = l.steps
WHERE l.phase = 'later_step' AND l.is_reference = 0;

-- Shortest context at which a whole block is no slower than the reference's, linear between measured contexts.
-- NULL: slower at every measured one. The smallest measured context is an upper bound (at_most = 1).
CREATE VIEW v_crossover AS
WITH pairs AS (
    SELECT *, lag(context) OVER w AS context_before, lag(speedup) OVER w AS speedup_before
    FROM v_speedup
    WHERE phase = 'block' AND is_reference = 0
    WINDOW w AS (PARTITION BY run_id, model_id, config_id, sampler_id, batch, steps ORDER BY context)
)
SELECT run, model, method, config, k, batch, steps,
       min(CASE WHEN speedup >= 1 THEN
               CASE WHEN speedup_before < 1
                    THEN context_before + (1 - speedup_before) / (speedup - speedup_before)
                                        * (context - context_before)
                    ELSE context END END) AS crossover_context,
       max(CASE WHEN context_before IS NULL AND speedup >= 1 THEN 1 ELSE 0 END) AS at_most,
       max(speedup) AS best_speedup, max(context) AS longest_context, sampler, is_reference, is_oracle,
       run_id, model_id, config_id, sampler_id
FROM pairs
GROUP BY run_id, model_id, config_id, sampler_id, batch, steps;

-- Time by part of a step, the newest profile of each case. share: of this step; relative: of the reference's whole step.
CREATE VIEW v_breakdown AS
WITH newest AS (
    SELECT *, max(session_id) OVER (PARTITION BY cell_id, context, batch) AS newest_session FROM breakdown
), part AS (
    SELECT * FROM newest WHERE session_id = newest_session
), total AS (
    SELECT cell_id, context, batch, step_kind, sum(time_us) AS us
    FROM part GROUP BY cell_id, context, batch, step_kind
)
SELECT c.run, c.model, c.method, c.config, c.k, b.context, b.batch, b.step_kind, b.part, b.i AS part_order,
       b.time_us AS us, b.kernels, b.time_us / nullif(t.us, 0) AS share,
       b.time_us / nullif((SELECT r.us FROM total r JOIN v_cell e ON e.cell_id = r.cell_id
                           WHERE e.is_reference = 1 AND e.run_id = c.run_id AND e.model_id = c.model_id
                             AND e.sampler_id = c.sampler_id AND e.pass = c.pass AND r.context = b.context
                             AND r.batch = b.batch AND r.step_kind = b.step_kind), 0) AS relative,
       c.sampler, c.synthetic, c.is_reference, c.is_oracle, c.run_id, c.model_id, c.config_id, c.sampler_id
FROM part b
JOIN total t ON t.cell_id = b.cell_id AND t.context = b.context AND t.batch = b.batch
            AND t.step_kind = b.step_kind
JOIN v_cell c ON c.cell_id = b.cell_id;

CREATE VIEW v_memory AS
WITH newest AS (
    SELECT *, max(session_id) OVER (PARTITION BY cell_id, context, batch) AS newest_session FROM memory
)
SELECT c.run, c.model, c.method, c.config, c.k, m.context, m.batch,
       m.weights_bytes, m.kv_bytes, m.index_bytes, m.scratch_bytes, m.peak_bytes,
       c.sampler, c.synthetic, c.is_reference, c.is_oracle, c.run_id, c.model_id, c.config_id, c.sampler_id
FROM newest m JOIN v_cell c ON c.cell_id = m.cell_id
WHERE m.session_id = m.newest_session;

-- What a user of a method waits for, as two factors that were measured apart: forwards (how many denoising forwards
-- of the reference one of the method's stands for, paired by item; below 1: the method needs more) times cost (the
-- reference's time of a later denoising step over the method's). request_speedup: the same measured as a whole,
-- where the latency pass decoded requests with this sampler; NULL elsewhere.
CREATE VIEW v_end_to_end AS
SELECT r.run, r.model, r.method, r.config, r.k, r.sampler, s.context, s.batch, s.steps,
       1 / r.ratio AS forwards_factor, s.speedup AS cost_factor, s.speedup / r.ratio AS speedup,
       q.speedup AS request_speedup, r.n, r.is_reference, r.is_oracle, r.run_id, r.model_id, r.config_id, r.sampler_id
FROM v_forwards_ratio r
JOIN v_speedup s ON s.run_id = r.run_id AND s.model_id = r.model_id AND s.config_id = r.config_id
                AND s.phase = 'later_step'
LEFT JOIN v_speedup q ON q.run_id = r.run_id AND q.model_id = r.model_id AND q.config_id = r.config_id
                     AND q.sampler_id = r.sampler_id AND q.phase = 'request' AND q.context = s.context
                     AND q.batch = s.batch
WHERE r.task = '*' AND r.ratio > 0;

-- Accuracy against speed, each measured under the same sampler: a fixed schedule of T steps with blocks of T steps
-- (a later step where no block was measured), the family's own rule with whole requests. Means over the used tasks;
-- speedup NULL: nothing was timed under this sampler.
CREATE VIEW v_pareto AS
WITH quality AS (
    SELECT a.run, a.model, a.method, a.config, a.k, a.sampler, avg(a.score) AS score, sum(a.n) AS n,
           count(1) AS tasks, avg(a.work) AS work, avg(a.work_attend) AS work_attend,
           avg(a.work_select) AS work_select, avg(a.engaged) AS engaged,
           avg(a.forwards_per_block) AS forwards_per_block,
           a.is_reference, a.is_oracle, a.run_id, a.model_id, a.config_id, a.sampler_id
    FROM v_accuracy a
    JOIN v_task_used t ON t.run_id = a.run_id AND t.model_id = a.model_id AND t.dataset_id = a.dataset_id AND t.used
    WHERE a.n > 0
    GROUP BY a.run_id, a.model_id, a.config_id, a.sampler_id
), paired AS (
    SELECT p.run_id, p.model_id, p.config_id, p.sampler_id, avg(p.mean) AS delta
    FROM v_paired p
    JOIN v_task_used t ON t.run_id = p.run_id AND t.model_id = p.model_id AND t.dataset_id = p.dataset_id AND t.used
    GROUP BY p.run_id, p.model_id, p.config_id, p.sampler_id
), whole AS (
    SELECT DISTINCT run_id, steps FROM v_speedup WHERE phase = 'block'
)
SELECT q.run, q.model, q.method, q.config, q.k, q.sampler, q.score, p.delta, q.n, q.tasks, q.work, q.work_attend,
       q.work_select, q.engaged,
       q.forwards_per_block, s.context, s.batch, s.steps, s.phase, s.speedup, s.low, s.high,
       q.is_reference, q.is_oracle, q.run_id, q.model_id, q.config_id, q.sampler_id, v.curve
FROM quality q
JOIN sampler y ON y.id = q.sampler_id
JOIN v_curve v ON v.run_id = q.run_id AND v.model_id = q.model_id AND v.config_id = q.config_id
LEFT JOIN paired p ON p.run_id = q.run_id AND p.model_id = q.model_id AND p.config_id = q.config_id
                  AND p.sampler_id = q.sampler_id
LEFT JOIN v_speedup s ON s.run_id = q.run_id AND s.model_id = q.model_id AND s.config_id = q.config_id
     AND CASE WHEN y.schedule = 'fixed'
              THEN s.steps = y.steps
                   AND (s.phase = 'block'
                        OR (s.phase = 'later_step'
                            AND NOT EXISTS (SELECT 1 FROM whole w WHERE w.run_id = q.run_id AND w.steps = y.steps)))
              ELSE s.phase = 'request' AND s.sampler_id = q.sampler_id END;

-- ---- equal work: methods side by side where they read as much, whatever their budgets are called ----

-- The curve that a configuration is a point of: the configurations of a method in a run that differ in one number
-- only, the dial: the option with most values there, k among equals, then the first in the method's table.
-- curve: the label without the dial.
CREATE VIEW v_curve AS
WITH used AS (
    SELECT DISTINCT c.run_id, c.model_id, c.config_id, f.method_id, f.label, f.k, f.options_json AS options
    FROM v_cell_all c JOIN config f ON f.id = c.config_id
    WHERE c.is_current
), numbers AS (
    SELECT u.run_id, u.model_id, u.method_id, o.key AS name, count(DISTINCT o.value) AS n, min(o.id) AS place
    FROM used u CROSS JOIN json_each(coalesce(u.options, '{}')) o
    WHERE o.type IN ('integer', 'real')
    GROUP BY u.run_id, u.model_id, u.method_id, o.key
), dials AS (
    SELECT run_id, model_id, method_id, name,
           row_number() OVER (PARTITION BY run_id, model_id, method_id
                              ORDER BY n DESC, name <> 'k', place) AS place
    FROM numbers
)
SELECT u.run_id, u.model_id, u.config_id, coalesce(d.name, 'k') AS dial,
       replace(u.label, printf(' %s=%g', coalesce(d.name, 'k'),
                               CAST(coalesce(json_extract(u.options, '$."' || d.name || '"'), u.k, 0) AS REAL)), '')
           AS curve
FROM used u
LEFT JOIN dials d ON d.run_id = u.run_id AND d.model_id = u.model_id AND d.method_id = u.method_id AND d.place = 1;

-- The points of all curves in ascending order of work, each with the next one of its curve: by task, and over the
-- used tasks ('*', only configurations with every one of them: means over the tasks).
CREATE VIEW v_work AS
WITH recalls AS (
    SELECT * FROM v_recall_config WHERE pass = 'recall'
), by_task AS (
    SELECT a.run, a.model, a.task, a.method, a.config, a.k, a.work, a.score,
           a.n, a.forwards_per_block, r.index_recall, r.mass_recall, a.sampler, a.is_reference, a.is_oracle,
           a.run_id, a.model_id, a.dataset_id, a.config_id, a.sampler_id
    FROM v_accuracy a
    LEFT JOIN recalls r ON r.run_id = a.run_id AND r.model_id = a.model_id AND r.dataset_id = a.dataset_id
                       AND r.config_id = a.config_id AND r.sampler_id = a.sampler_id
    WHERE a.n > 0
), mean AS (
    SELECT b.run, b.model, b.method, b.config, b.k, avg(b.work) AS work, avg(b.score) AS score, sum(b.n) AS items,
           avg(b.forwards_per_block) AS forwards_per_block, avg(b.index_recall) AS index_recall,
           avg(b.mass_recall) AS mass_recall, b.sampler, b.is_reference, b.is_oracle,
           b.run_id, b.model_id, b.config_id, b.sampler_id,
           max(count(1)) OVER (PARTITION BY b.run_id, b.model_id, b.sampler_id) = count(1) AS complete
    FROM by_task b
    JOIN v_task_used t ON t.run_id = b.run_id AND t.model_id = b.model_id AND t.dataset_id = b.dataset_id AND t.used
    GROUP BY b.run_id, b.model_id, b.config_id, b.sampler_id
), point AS (
    SELECT * FROM by_task
    UNION ALL
    SELECT run, model, '*', method, config, k, work, score, items, forwards_per_block, index_recall, mass_recall,
           sampler, is_reference, is_oracle, run_id, model_id, NULL, config_id, sampler_id
    FROM mean WHERE complete
)
SELECT p.run, p.model, p.task, p.method, v.curve, v.dial, p.config, p.k, p.work, p.score, p.n,
       p.forwards_per_block, p.index_recall, p.mass_recall,
       lead(p.config) OVER along AS next_config, lead(p.work) OVER along AS next_work,
       lead(p.score) OVER along AS next_score, lead(p.n) OVER along AS next_n,
       lead(p.forwards_per_block) OVER along AS next_forwards_per_block,
       lead(p.index_recall) OVER along AS next_index_recall, lead(p.mass_recall) OVER along AS next_mass_recall,
       p.sampler, p.is_reference, p.is_oracle, p.run_id, p.model_id, p.dataset_id, p.config_id, p.sampler_id
FROM point p
JOIN v_curve v ON v.run_id = p.run_id AND v.model_id = p.model_id AND v.config_id = p.config_id
WHERE p.work IS NOT NULL
WINDOW along AS (PARTITION BY p.run_id, p.model_id, p.sampler_id, p.dataset_id, p.method, v.curve
                 ORDER BY p.work, p.config_id);

-- Every curve read off at fixed levels of work, linear between the two measured points around a level. A curve has
-- no row at levels outside its measured range: nothing is extrapolated. share: of the way from config_low to
-- config_high; n: the smaller of both. Work within 1e-9 of a level is on it: a mean's last digit decides nothing.
CREATE VIEW v_equal_work AS
WITH level(work) AS (
    VALUES (0.05), (0.1), (0.15), (0.2), (0.3), (0.4), (0.5), (0.6), (0.7), (0.8), (0.9), (1.0)
), between_points AS (
    SELECT w.*, l.work AS level,
           CASE WHEN l.work > w.work + 1e-9 THEN (l.work - w.work) / (w.next_work - w.work) ELSE 0.0 END AS share
    FROM v_work w
    JOIN level l ON l.work >= w.work - 1e-9 AND (l.work < w.next_work - 1e-9 OR
                                                 (w.next_work IS NULL AND l.work <= w.work + 1e-9))
)
SELECT run, model, task, method, curve, level AS work,
       CASE WHEN share > 0 THEN score + share * (next_score - score) ELSE score END AS score,
       CASE WHEN share > 0 THEN min(n, next_n) ELSE n END AS n,
       CASE WHEN share > 0 THEN index_recall + share * (next_index_recall - index_recall)
            ELSE index_recall END AS index_recall,
       CASE WHEN share > 0 THEN mass_recall + share * (next_mass_recall - mass_recall)
            ELSE mass_recall END AS mass_recall,
       CASE WHEN share > 0 THEN forwards_per_block + share * (next_forwards_per_block - forwards_per_block)
            ELSE forwards_per_block END AS forwards_per_block,
       config AS config_low, CASE WHEN share > 0 THEN next_config ELSE config END AS config_high,
       work AS work_low, CASE WHEN share > 0 THEN next_work ELSE work END AS work_high, share,
       dial, sampler, is_reference, is_oracle, run_id, model_id, dataset_id, config_id, sampler_id
FROM between_points;

-- ---- recorded samples ----

-- Samples of which something was recorded, with the prompt as the model read it (NULL: of this sample nothing).
CREATE VIEW v_record AS
SELECT s.run, s.model, s.task, s.method, s.config, s.k, s.item, s.answers, s.score, s.prediction, s.prompt_tokens,
       s.depth, t.text AS prompt, t.token_bytes, s.sampler, s.is_reference, s.run_id, s.model_id, s.dataset_id,
       s.config_id, s.sampler_id, s.item_id, s.sample_id
FROM v_samples s
JOIN sample x ON x.id = s.sample_id
JOIN prompt_text t ON t.prompt_id = x.prompt_id
WHERE s.pass = 'quality';

CREATE VIEW v_trace AS
SELECT s.run, s.model, s.task, s.method, s.config, s.k, s.item, t.i, t.block, t.step, t.masked, t.prefix, t.written,
       s.sampler, s.run_id, s.config_id, s.sampler_id, t.sample_id
FROM trace t JOIN v_samples s ON s.sample_id = t.sample_id;

-- pages as schema.sql says, filled in where a step read what the one before it read.
CREATE VIEW v_selection AS
SELECT s.run, s.model, s.task, s.method, s.config, s.k, s.item, x.block, x.layer, x.step, x.granularity, x.prefix,
       x.kv_heads,
       coalesce(x.pages, (SELECT y.pages FROM selection y
                          WHERE y.sample_id = x.sample_id AND y.block = x.block AND y.layer = x.layer
                            AND y.step < x.step AND y.pages IS NOT NULL ORDER BY y.step DESC LIMIT 1)) AS pages,
       s.sampler, s.run_id, s.config_id, s.sampler_id, x.sample_id
FROM selection x JOIN v_samples s ON s.sample_id = x.sample_id;

-- ---- counters, gates, failures, runs ----

CREATE VIEW v_counters AS
SELECT c.run, c.model, c.task, c.method, c.config, c.k, n.name, n.unit, n.better, n.aggregate,
       CASE n.aggregate WHEN 'sum' THEN sum(v.value) WHEN 'max' THEN max(v.value) ELSE avg(v.value) END AS value,
       count(v.value) AS n, c.pass, c.sampler, c.run_id, c.config_id
FROM counter_value v
JOIN counter n ON n.id = v.counter_id
JOIN sample s ON s.id = v.sample_id
JOIN v_cell c ON c.cell_id = s.cell_id
GROUP BY c.cell_id, n.id;

-- Counters by layer and step. A mean weighs every sample by what it counted there. layer or step NULL: the counter
-- is not by it; step 0: commits. n: samples.
CREATE VIEW v_counter_grid AS
SELECT c.run, c.model, c.task, c.method, c.config, c.k, g.name, g.unit, g.better, g.aggregate,
       nullif(v.layer, -1) AS layer, nullif(v.step, -1) AS step,
       CASE g.aggregate WHEN 'sum' THEN sum(v.total) WHEN 'max' THEN max(v.total)
                        ELSE sum(v.total) / sum(v.weight) END AS value,
       count(1) AS n, sum(v.weight) AS weight, c.pass, c.sampler, c.is_reference, c.is_oracle,
       c.run_id, c.model_id, c.dataset_id, c.config_id, c.sampler_id
FROM grid_value v
JOIN grid g ON g.id = v.grid_id
JOIN sample s ON s.id = v.sample_id
JOIN v_cell c ON c.cell_id = s.cell_id
GROUP BY c.cell_id, g.id, v.layer, v.step;

CREATE VIEW v_gates AS
SELECT r.label AS run, g.name, g.verdict, g.detail, g.run_id FROM gate g JOIN run r ON r.id = g.run_id;

-- Everything that did not give a number, with its reason.
CREATE VIEW v_failures AS
SELECT run, model, task, method, config, k, pass, 'cell' AS what, state AS status, NULL AS item, reason,
       sampler, run_id
FROM v_cell WHERE state IN ('skipped', 'failed')
UNION ALL
SELECT run, model, task, method, config, k, pass, 'sample', status, item, error, sampler, run_id
FROM v_samples WHERE status <> 'ok';

CREATE VIEW v_events AS
SELECT r.label AS run, e.stored_at, e.level, e.text, e.run_id FROM event e JOIN run r ON r.id = e.run_id;

-- Environment columns are those of the run's newest session; sessions > 1: it was interrupted and resumed.
CREATE VIEW v_runs AS
WITH newest AS (SELECT run_id, max(id) AS id FROM session GROUP BY run_id)
SELECT r.label AS run, r.name, r.seed, r.state,
       (SELECT count(1) FROM sample s JOIN cell c ON c.id = s.cell_id WHERE c.run_id = r.id) AS samples,
       (SELECT count(1) FROM sample s JOIN cell c ON c.id = s.cell_id
        WHERE c.run_id = r.id AND s.status = 'failed') AS failed,
       (SELECT count(1) FROM gate g WHERE g.run_id = r.id AND g.verdict = 'fail') AS gates_failed,
       (SELECT count(1) FROM session y WHERE y.run_id = r.id) AS sessions,
       substr((SELECT min(y.started_at) FROM session y WHERE y.run_id = r.id), 1, 19) || 'Z' AS started_at, x.ended_at,
       (SELECT sum(y.wall_us) FROM session y WHERE y.run_id = r.id) AS wall_us,
       (SELECT max(y.peak_bytes) FROM session y WHERE y.run_id = r.id) AS peak_bytes,
       (SELECT count(DISTINCT y.env_id) FROM session y WHERE y.run_id = r.id) AS environments,
       e.device, e.host, e.os, e.cpu, e.threads, e.gpu, e.driver, e.cuda, e.git, e.build, x.command,
       r.config_json, r.id AS run_id, x.id AS session_id
FROM run r JOIN newest n ON n.run_id = r.id JOIN session x ON x.id = n.id JOIN env e ON e.id = x.env_id;

-- Every stored value but times, moments, memory and machine, under keys that do not depend on the order of
-- storing: two runs with one seed, interrupted or not, give the same rows.
--     SELECT * FROM v_content ORDER BY relation, key, value;
CREATE VIEW v_content AS
SELECT 'run' AS relation, label AS key, printf('%s seed=%d', hash, seed) AS value FROM run
UNION ALL
SELECT 'cell', printf('%s|%s|%s|%s|%s|%s', c.run, c.model, coalesce(c.task, ''), c.config, c.sampler, c.pass),
       printf('%s %s is_reference=%d', c.state, coalesce(c.reason, ''), c.is_reference)
FROM v_cell c
UNION ALL
SELECT 'sample',
       printf('%s|%s|%s|%s|%s|%s|%s', s.run, s.model, coalesce(s.task, ''), s.config, s.sampler, s.pass, s.item),
       json_array(s.status, s.error, s.prediction, quote(s.score), s.answers, s.classes, s.bucket,
                  s.length, s.context, s.depth, s.prompt_tokens, s.truncated, s.token_hash, s.new_tokens,
                  s.stopped, s.blocks, s.denoise_forwards, s.commit_forwards, quote(s.engaged),
                  quote(s.work_attend), quote(s.work_select), s.agree, s.compared, s.dense_calls,
                  s.sparse_calls)
FROM v_samples s
UNION ALL
SELECT 'forwards',
       printf('%s|%s|%s|%s|%s|%s|%d', s.run, s.model, coalesce(s.task, ''), s.config, s.sampler, s.item,
              h.forwards),
       CAST(h.blocks AS TEXT)
FROM forwards h JOIN v_samples s ON s.sample_id = h.sample_id
UNION ALL
SELECT 'recall',
       printf('%s|%s|%s|%s|%s|%s|%s|%03d|%03d', s.run, s.model, coalesce(s.task, ''), s.config, s.sampler, s.pass,
              s.item, r.layer, r.step),
       json_array(r.blocks, quote(r.index_recall), quote(r.mass_recall),
                  quote(r.captured_mass), r.index_heads, r.mass_heads)
FROM recall r JOIN v_samples s ON s.sample_id = r.sample_id
UNION ALL
SELECT 'counter',
       printf('%s|%s|%s|%s|%s|%s|%s|%s', s.run, s.model, coalesce(s.task, ''), s.config, s.sampler, s.pass, s.item,
              n.name),
       json_array(n.unit, n.better, n.aggregate, quote(v.value))
FROM counter_value v JOIN counter n ON n.id = v.counter_id JOIN v_samples s ON s.sample_id = v.sample_id
UNION ALL
SELECT 'grid',
       printf('%s|%s|%s|%s|%s|%s|%s|%s|%03d|%04d', s.run, s.model, coalesce(s.task, ''), s.config, s.sampler,
              s.pass, s.item, g.name, v.layer, v.step),
       json_array(g.unit, g.better, g.aggregate, quote(v.total), quote(v.weight))
FROM grid_value v JOIN grid g ON g.id = v.grid_id JOIN v_samples s ON s.sample_id = v.sample_id
UNION ALL
SELECT 'trace',
       printf('%s|%s|%s|%s|%s|%s|%05d', s.run, s.model, coalesce(s.task, ''), s.config, s.sampler, s.item, t.i),
       json_array(t.block, t.step, t.masked, t.prefix, t.written)
FROM trace t JOIN v_samples s ON s.sample_id = t.sample_id
UNION ALL
SELECT 'selection',
       printf('%s|%s|%s|%s|%s|%s|%d|%d|%d', s.run, s.model, coalesce(s.task, ''), s.config, s.sampler, s.item, x.block,
              x.layer, x.step),
       printf('%d %d %d %s', x.granularity, x.prefix, x.kv_heads, hex(x.pages))
FROM selection x JOIN v_samples s ON s.sample_id = x.sample_id
UNION ALL
SELECT DISTINCT 'latency', printf('%s|%s|%s|%s|%d|%d|%d|%d|%s', c.run, c.model, c.config, c.sampler, l.context,
                                  l.batch, l.steps, l.graph, l.phase), ''
FROM latency l JOIN v_cell c ON c.cell_id = l.cell_id
UNION ALL
SELECT 'gate', run || '|' || name, verdict FROM v_gates;
