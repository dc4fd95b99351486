-- training.sql - the file of a training: which ones there were and what each step was. A kind of file of its own (its
-- application_id differs from a store's), because no view of a run reads it. Read v_training.
CREATE TABLE training (
    training_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    identity TEXT NOT NULL UNIQUE,      -- the config without what only extends a training
    config TEXT NOT NULL,               -- the whole config, of the newest start
    model TEXT NOT NULL,                -- folder that it began with
    recipe TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    device TEXT NOT NULL,
    threads INTEGER NOT NULL,           -- of the newest start; the result does not depend on it
    build TEXT NOT NULL,                -- hash of the compiled program
    git TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'interrupted', 'failed')),
    reason TEXT                         -- why it failed
) STRICT;

CREATE TABLE training_step (
    training_id INTEGER NOT NULL REFERENCES training ON DELETE CASCADE,
    step INTEGER NOT NULL,              -- from 1
    length INTEGER NOT NULL,            -- tokens of its documents
    tokens INTEGER NOT NULL,            -- rows, noisy copies among them
    targets INTEGER NOT NULL,           -- masked tokens with a weight
    loss REAL NOT NULL,                 -- ce + lambda * kl + causal_weight * causal
    ce REAL NOT NULL,                   -- weighted mean cross entropy, nats
    kl REAL,                            -- weighted mean KL(student, teacher), nats; NULL without a teacher
    causal REAL,                        -- weighted mean cross entropy of the autoregressive loss, nats; NULL without
    accuracy REAL NOT NULL,             -- share of targets that were the best token
    gradient_norm REAL NOT NULL,        -- before clipping
    lr REAL NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (training_id, step)
) STRICT, WITHOUT ROWID;

CREATE VIEW v_training AS
SELECT t.name, t.recipe, t.model, t.seed, s.step, s.length, s.tokens, s.targets, s.loss, s.ce, s.kl, s.causal,
       s.accuracy, s.gradient_norm, s.lr, s.seconds, s.tokens / s.seconds AS tokens_per_second
FROM training_step s JOIN training t USING (training_id)
ORDER BY t.training_id, s.step;
