-- migrate_2.sql - a store of version 2 becomes one of version 3, in one transaction; every row stays.
--
-- New: builds (which code computed a cell), the session that last asked for a cell, and the session of each
-- measurement, so that measuring again overwrites nothing. Rows of before belong to the build 'before version 3' and
-- to the newest session of their run.

CREATE TABLE build (
    id   INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    git  TEXT
) STRICT;
INSERT INTO build(hash, git) VALUES ('before version 3', NULL);

ALTER TABLE cell ADD COLUMN build_id INTEGER REFERENCES build(id);
ALTER TABLE cell ADD COLUMN session_id INTEGER REFERENCES session(id);
UPDATE cell SET build_id = 1, session_id = (SELECT max(y.id) FROM session y WHERE y.run_id = cell.run_id);
DROP INDEX cell_key;
CREATE UNIQUE INDEX cell_key
    ON cell(run_id, model_id, coalesce(dataset_id, 0), config_id, sampler_id, pass, coalesce(build_id, 0));

ALTER TABLE sample RENAME COLUMN work TO work_attend;

CREATE TABLE new_latency (
    cell_id  INTEGER NOT NULL REFERENCES cell(id),
    session_id INTEGER NOT NULL REFERENCES session(id),
    context  INTEGER NOT NULL, batch INTEGER NOT NULL, steps INTEGER NOT NULL,
    graph    INTEGER NOT NULL CHECK (graph IN (0, 1)),
    phase    TEXT NOT NULL,
    i        INTEGER NOT NULL,
    time_us  REAL NOT NULL,
    kept     INTEGER NOT NULL CHECK (kept IN (0, 1)),
    sm_mhz   INTEGER, throttle INTEGER, temperature REAL, power REAL, other_processes INTEGER,
    timer    TEXT,
    PRIMARY KEY (cell_id, session_id, context, batch, steps, graph, phase, i)
) STRICT, WITHOUT ROWID;

CREATE TABLE new_memory (
    cell_id INTEGER NOT NULL REFERENCES cell(id),
    session_id INTEGER NOT NULL REFERENCES session(id),
    context INTEGER NOT NULL, batch INTEGER NOT NULL,
    weights_bytes INTEGER NOT NULL, kv_bytes INTEGER NOT NULL, index_bytes INTEGER NOT NULL,
    scratch_bytes INTEGER NOT NULL, peak_bytes INTEGER NOT NULL,
    PRIMARY KEY (cell_id, session_id, context, batch)
) STRICT, WITHOUT ROWID;

CREATE TABLE new_breakdown (
    cell_id   INTEGER NOT NULL REFERENCES cell(id),
    session_id INTEGER NOT NULL REFERENCES session(id),
    context   INTEGER NOT NULL, batch INTEGER NOT NULL,
    step_kind TEXT NOT NULL,
    part      TEXT NOT NULL,
    i         INTEGER NOT NULL,
    time_us   REAL NOT NULL,
    kernels   INTEGER NOT NULL,
    PRIMARY KEY (cell_id, session_id, context, batch, step_kind, part)
) STRICT, WITHOUT ROWID;

INSERT INTO new_latency
SELECT l.cell_id, c.session_id, l.context, l.batch, l.steps, l.graph, l.phase, l.i, l.time_us, l.kept, l.sm_mhz,
       l.throttle, l.temperature, l.power, l.other_processes, l.timer
FROM latency l JOIN cell c ON c.id = l.cell_id;
INSERT INTO new_memory
SELECT m.cell_id, c.session_id, m.context, m.batch, m.weights_bytes, m.kv_bytes, m.index_bytes, m.scratch_bytes,
       m.peak_bytes
FROM memory m JOIN cell c ON c.id = m.cell_id;
INSERT INTO new_breakdown
SELECT b.cell_id, c.session_id, b.context, b.batch, b.step_kind, b.part, b.i, b.time_us, b.kernels
FROM breakdown b JOIN cell c ON c.id = b.cell_id;
DROP TABLE latency;
DROP TABLE memory;
DROP TABLE breakdown;
ALTER TABLE new_latency RENAME TO latency;
ALTER TABLE new_memory RENAME TO memory;
ALTER TABLE new_breakdown RENAME TO breakdown;

PRAGMA user_version = 3;
