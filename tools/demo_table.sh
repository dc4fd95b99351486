#!/usr/bin/env bash
# README's table of the demo from a stored result: docs/results/quick.csv, which `make figures` writes.
#   bash tools/demo_table.sh CSV
# Scores are means over the needle samples and over the question-answering and retrieval tasks of the sample.
set -euo pipefail
sqlite3 -batch :memory: -cmd '.mode csv' -cmd ".import $1 r" -cmd '.mode list' -cmd '.separator " | "' "
WITH t AS (SELECT config, task, CAST(k AS INTEGER) AS k, CAST(score AS REAL) AS score, CAST(n AS INTEGER) AS n,
                  nullif(index_recall, '') AS index_recall, nullif(mass_recall, '') AS mass_recall,
                  CAST(work AS REAL) AS work, CAST(work_select AS REAL) AS work_select, rowid AS place
           FROM r WHERE sampler LIKE 'T=%'),
qa AS (SELECT config, avg(score) AS score FROM t WHERE task IN ('qasper', 'multifieldqa_en', 'hotpotqa', '2wikimqa',
           'musique', 'passage_retrieval_en') GROUP BY config)
SELECT '| method | needles, multi-key | QA and retrieval | index recall | mass recall | work | of it to choose |
|---|---:|---:|---:|---:|---:|---:|'
UNION ALL
SELECT printf('| %s | %.0f | %.0f | %s | %s | %.2f | %.2f |', a.config, 100 * n.score, 100 * q.score,
              CASE WHEN a.index_recall IS NULL THEN '-' ELSE printf('%.2f', a.index_recall) END,
              CASE WHEN a.mass_recall IS NULL THEN '-' ELSE printf('%.2f', a.mass_recall) END, a.work,
              a.work_select)
FROM (SELECT * FROM t WHERE task = '*' ORDER BY place) a
JOIN t n ON n.config = a.config AND n.task = 'niah_multikey' JOIN qa q ON q.config = a.config"
