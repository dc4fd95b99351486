-- schema.sql - the tables of a maskbench store, version 6.
--
-- Rules: every table is STRICT. What makes two numbers comparable (machine, model, data, method, sampler) is one
-- row with a content hash, found again by that hash. Nothing is rounded. Times are microseconds in columns named
-- *_us, moments are UTC text in columns named *_at; all other values of two runs with one seed are equal (see
-- v_content). Failures and skips are rows with a reason. Readers use the views of views.sql, never these tables.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- ---- identities: one row per content, found by hash ----

CREATE TABLE env (              -- the machine and the build
    id       INTEGER PRIMARY KEY,
    hash     TEXT NOT NULL UNIQUE,
    host     TEXT, os TEXT, cpu TEXT,
    threads  INTEGER NOT NULL,
    gpu      TEXT, gpu_uuid TEXT, -- name and UUID as nvidia-smi prints them; '' on a CPU, as the next two
    driver   TEXT, cuda TEXT,     -- version of the GPU's driver ("550.54.15") and of the CUDA runtime ("12.4")
    device   TEXT,              -- what computed: "cpu", "cuda"
    git      TEXT, build TEXT,
    detail   TEXT               -- clocks policy, memory, anything else worth keeping
) STRICT;

CREATE TABLE build (            -- the code of the program that a result depends on: model, kernels, datasets, base
    id   INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,  -- of the compiled code, debug information left out; 'before version 3': not known
    git  TEXT                   -- the commit that was built when the hash was first seen
) STRICT;

CREATE TABLE model (
    id             INTEGER PRIMARY KEY,
    hash           TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    family         TEXT,
    type           TEXT,        -- storage type: "bf16", "f32"
    config_hash    TEXT, weights_hash TEXT, tokenizer_hash TEXT,
    layers         INTEGER NOT NULL, query_heads INTEGER NOT NULL, kv_heads INTEGER NOT NULL,
    head_dim       INTEGER NOT NULL, hidden INTEGER NOT NULL,
    block          INTEGER NOT NULL, -- tokens per diffusion block
    vocab          INTEGER NOT NULL,
    synthetic      INTEGER NOT NULL CHECK (synthetic IN (0, 1)) -- 1: random weights, speed only
) STRICT;

CREATE TABLE dataset (          -- one task of a benchmark, with the bytes behind it
    id             INTEGER PRIMARY KEY,
    hash           TEXT NOT NULL UNIQUE,
    task           TEXT NOT NULL,
    benchmark      TEXT, category TEXT, language TEXT, metric TEXT,
    file_hash      TEXT, prompt_hash TEXT, options_json TEXT,
    max_new_tokens INTEGER NOT NULL
) STRICT;

CREATE TABLE method (
    id          INTEGER PRIMARY KEY,
    hash        TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    version     TEXT,
    summary     TEXT, reference TEXT,
    origin_hash TEXT,           -- of the plug-in file or of the built-in method's compiled code
    caps        INTEGER NOT NULL -- 1 pre-RoPE queries, 2 opaque, 4 oracle (not in speed plots), 8 lossless
) STRICT;

CREATE TABLE config (           -- a method with all its options
    id           INTEGER PRIMARY KEY,
    hash         TEXT NOT NULL UNIQUE,
    method_id    INTEGER NOT NULL REFERENCES method(id),
    label        TEXT NOT NULL,
    k            INTEGER CHECK (k >= 0), -- token budget per KV head; NULL: the method has none
    options_json TEXT
) STRICT;

CREATE TABLE sampler (
    id          INTEGER PRIMARY KEY,
    hash        TEXT NOT NULL UNIQUE,
    schedule    TEXT NOT NULL,  -- "threshold" (adaptive) or "fixed"
    steps       INTEGER NOT NULL, block INTEGER NOT NULL, sub_block INTEGER NOT NULL,
    threshold   REAL,
    dynamic     INTEGER NOT NULL CHECK (dynamic IN (0, 1)),
    block_cache INTEGER NOT NULL CHECK (block_cache IN (0, 1)),
    confidence  TEXT,
    options     TEXT            -- "key=value key=value": what has no column here and is not its default; NULL: none
) STRICT;

-- ---- runs ----

CREATE TABLE run (              -- one config text + seed; the same again continues it
    id          INTEGER PRIMARY KEY,
    hash        TEXT NOT NULL UNIQUE,
    label       TEXT NOT NULL UNIQUE, -- the config's name; "name#2", "name#3" for further texts or seeds
    name        TEXT NOT NULL,
    config_json TEXT,
    seed        INTEGER NOT NULL,
    state       TEXT NOT NULL   -- running, done, interrupted, failed
) STRICT;

CREATE TABLE session (          -- one start of the program on a run
    id         INTEGER PRIMARY KEY,
    run_id     INTEGER NOT NULL REFERENCES run(id),
    env_id     INTEGER NOT NULL REFERENCES env(id),
    command    TEXT,
    state      TEXT NOT NULL,   -- running, done, interrupted, failed, killed (found running by the next start)
    started_at TEXT NOT NULL,   -- to the millisecond: what tells two starts of one shard apart
    ended_at   TEXT,
    wall_us    REAL,
    peak_bytes INTEGER,         -- largest resident memory
    shard       INTEGER,        -- the part of the run that it computes; 0: the timed passes; NULL: all of it
    shard_first INTEGER, shard_last INTEGER -- the parts that make up the run; first 0: it has timed passes
) STRICT;
CREATE INDEX session_run ON session(run_id);

CREATE TABLE cell (             -- run x model x dataset x config x sampler x pass x build
    id         INTEGER PRIMARY KEY,
    run_id     INTEGER NOT NULL REFERENCES run(id),
    model_id   INTEGER NOT NULL REFERENCES model(id),
    dataset_id INTEGER REFERENCES dataset(id), -- NULL: no data, a latency cell
    config_id  INTEGER NOT NULL REFERENCES config(id),
    sampler_id INTEGER NOT NULL REFERENCES sampler(id),
    pass       TEXT NOT NULL,   -- quality, recall, forced, latency, breakdown
    state      TEXT NOT NULL DEFAULT 'open', -- open, done, skipped, failed
    reason     TEXT,            -- of skipped and failed
    build_id   INTEGER REFERENCES build(id),
    session_id INTEGER REFERENCES session(id) -- the newest start that asked for it: older ones are superseded
) STRICT;
CREATE UNIQUE INDEX cell_key
    ON cell(run_id, model_id, coalesce(dataset_id, 0), config_id, sampler_id, pass, coalesce(build_id, 0));

-- ---- samples ----

CREATE TABLE item (             -- a row of the benchmark, the same for every model and method
    id           INTEGER PRIMARY KEY,
    dataset_id   INTEGER REFERENCES dataset(id),
    key          TEXT NOT NULL,
    bucket       TEXT,          -- "0-4k", "hard/long"
    length       INTEGER,       -- the benchmark's own length field
    context      INTEGER,       -- requested tokens of a generated task
    depth        REAL,          -- needle depth, percent
    answers_json TEXT, classes_json TEXT
) STRICT;
CREATE UNIQUE INDEX item_key ON item(coalesce(dataset_id, 0), key);

CREATE TABLE prompt (           -- an item under one tokenizer and limit
    id         INTEGER PRIMARY KEY,
    item_id    INTEGER NOT NULL REFERENCES item(id),
    token_hash TEXT NOT NULL,
    tokens     INTEGER NOT NULL,
    truncated  INTEGER NOT NULL CHECK (truncated IN (0, 1)),
    UNIQUE (item_id, token_hash)
) STRICT;

CREATE TABLE sample (
    id               INTEGER PRIMARY KEY,
    cell_id          INTEGER NOT NULL REFERENCES cell(id),
    item_id          INTEGER NOT NULL REFERENCES item(id),
    prompt_id        INTEGER REFERENCES prompt(id), -- NULL: failed before there was one
    session_id       INTEGER REFERENCES session(id),
    status           TEXT NOT NULL CHECK (status IN ('ok', 'failed', 'skipped')),
    error            TEXT,      -- of failed and skipped: the sentence, with its source
    prediction       TEXT,
    score            REAL,      -- 0..1, unrounded; NULL: none
    new_tokens       INTEGER NOT NULL,
    blocks           INTEGER NOT NULL,
    denoise_forwards INTEGER NOT NULL,
    commit_forwards  INTEGER NOT NULL,
    stopped          INTEGER NOT NULL CHECK (stopped IN (0, 1)), -- 1: a stop token ended it
    engaged          REAL,      -- share of denoising layer-calls that ran sparse
    work_attend      REAL,      -- prefix tokens read by attention, share of exact's, dense calls included
    work_select      REAL,      -- the same for what was read to choose
    agree            INTEGER NOT NULL, compared INTEGER NOT NULL, -- forced pass: tokens equal to the reference's
    dense_calls      INTEGER NOT NULL, sparse_calls INTEGER NOT NULL, -- recall pass: layer-steps without, with row
    prefill_us       REAL, decode_us REAL,
    UNIQUE (cell_id, item_id)
) STRICT;
CREATE INDEX sample_item ON sample(item_id);

CREATE TABLE forwards (         -- blocks of a sample by their number of denoising forwards
    sample_id INTEGER NOT NULL REFERENCES sample(id) ON DELETE CASCADE,
    forwards  INTEGER NOT NULL,
    blocks    INTEGER NOT NULL,
    PRIMARY KEY (sample_id, forwards)
) STRICT, WITHOUT ROWID;

CREATE TABLE recall (           -- one layer and step of a sample, mean over its blocks; no row where it ran dense
    sample_id     INTEGER NOT NULL REFERENCES sample(id) ON DELETE CASCADE,
    layer         INTEGER NOT NULL,
    step          INTEGER NOT NULL, -- from 1
    blocks        INTEGER NOT NULL, -- block-steps in the mean
    index_recall  REAL NOT NULL,    -- |S n S*| / |S|, mean over KV heads
    mass_recall   REAL NOT NULL,    -- attention mass of S over that of S*
    captured_mass REAL,             -- attention mass of S
    index_heads   TEXT, mass_heads TEXT, -- JSON arrays, one number or null a KV head
    PRIMARY KEY (sample_id, layer, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (          -- a quantity that a method declares, or edited_tokens of a sampler that edits
    id        INTEGER PRIMARY KEY,
    method_id INTEGER NOT NULL REFERENCES method(id),
    name      TEXT NOT NULL,
    unit      TEXT, better TEXT,
    aggregate TEXT NOT NULL,    -- mean, sum, max
    UNIQUE (method_id, name)
) STRICT;

CREATE TABLE counter_value (
    sample_id  INTEGER NOT NULL REFERENCES sample(id) ON DELETE CASCADE,
    counter_id INTEGER NOT NULL REFERENCES counter(id),
    value      REAL,
    PRIMARY KEY (sample_id, counter_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE grid (             -- the same by layer, by step, or by both
    id        INTEGER PRIMARY KEY,
    method_id INTEGER NOT NULL REFERENCES method(id),
    name      TEXT NOT NULL,
    unit      TEXT, better TEXT,
    aggregate TEXT NOT NULL,    -- mean, sum, max
    UNIQUE (method_id, name)
) STRICT;

CREATE TABLE grid_value (       -- no row where nothing was counted
    sample_id INTEGER NOT NULL REFERENCES sample(id) ON DELETE CASCADE,
    grid_id   INTEGER NOT NULL REFERENCES grid(id),
    layer     INTEGER NOT NULL, -- -1: not by layer
    step      INTEGER NOT NULL, -- from 1; 0: commits; -1: not by step
    total     REAL NOT NULL,    -- of a mean the numerator: means over samples are sum(total) / sum(weight)
    weight    REAL NOT NULL CHECK (weight > 0),
    PRIMARY KEY (sample_id, grid_id, layer, step)
) STRICT, WITHOUT ROWID;

-- ---- records: chosen samples of the quality pass, to look at ----

CREATE TABLE prompt_text (      -- a prompt as the model read it
    prompt_id   INTEGER PRIMARY KEY REFERENCES prompt(id) ON DELETE CASCADE,
    text        TEXT NOT NULL,  -- of all tokens, chat template included; byte 0 is spelled C0 80
    token_bytes BLOB NOT NULL   -- a number a token, LEB128: bytes of the text that it stands for
) STRICT;

CREATE TABLE trace (            -- the forwards of a recorded sample
    sample_id INTEGER NOT NULL REFERENCES sample(id) ON DELETE CASCADE,
    i         INTEGER NOT NULL, -- order
    block     INTEGER NOT NULL, -- from 0; -1: before the first one
    step      INTEGER NOT NULL, -- from 1; 0: a commit
    masked    INTEGER NOT NULL, -- masked tokens of the block before it
    prefix    INTEGER NOT NULL, -- tokens in the cache
    written   TEXT NOT NULL,    -- JSON: [[position, "token"], ...]
    PRIMARY KEY (sample_id, i)
) STRICT, WITHOUT ROWID;

-- What a layer read of the prefix; no row where it read all of it, or by a way of its own without an index.
-- pages: for every KV head the number of pages + 1 (0: all of the prefix), the first page, then distances; numbers are
-- LEB128. NULL: as at the newest earlier step of this layer and block that has them.
CREATE TABLE selection (
    sample_id   INTEGER NOT NULL REFERENCES sample(id) ON DELETE CASCADE,
    block       INTEGER NOT NULL,
    layer       INTEGER NOT NULL,
    step        INTEGER NOT NULL, -- from 1
    granularity INTEGER NOT NULL, -- keys of a page
    prefix      INTEGER NOT NULL, -- keys that were there
    kv_heads    INTEGER NOT NULL,
    pages       BLOB,
    PRIMARY KEY (sample_id, block, layer, step)
) STRICT, WITHOUT ROWID;

-- ---- latency: every measurement stays, told apart by the session that made it ----

CREATE TABLE latency (          -- raw samples; a case is (cell, session, context, batch, steps, graph)
    cell_id  INTEGER NOT NULL REFERENCES cell(id),
    session_id INTEGER NOT NULL REFERENCES session(id),
    context  INTEGER NOT NULL, batch INTEGER NOT NULL, steps INTEGER NOT NULL,
    graph    INTEGER NOT NULL CHECK (graph IN (0, 1)), -- 1: replayed from a CUDA graph
    phase    TEXT NOT NULL,     -- prefill, first_step, later_step, commit, block, request
    i        INTEGER NOT NULL,  -- order of measuring
    time_us  REAL NOT NULL,
    kept     INTEGER NOT NULL CHECK (kept IN (0, 1)), -- 0: dropped, the clock was too low
    sm_mhz   INTEGER, throttle INTEGER, temperature REAL, power REAL, other_processes INTEGER,
    timer    TEXT,              -- cuda_event, host_clock
    PRIMARY KEY (cell_id, session_id, context, batch, steps, graph, phase, i)
) STRICT, WITHOUT ROWID;

CREATE TABLE memory (
    cell_id INTEGER NOT NULL REFERENCES cell(id),
    session_id INTEGER NOT NULL REFERENCES session(id),
    context INTEGER NOT NULL, batch INTEGER NOT NULL,
    weights_bytes INTEGER NOT NULL, kv_bytes INTEGER NOT NULL, index_bytes INTEGER NOT NULL,
    scratch_bytes INTEGER NOT NULL, peak_bytes INTEGER NOT NULL,
    PRIMARY KEY (cell_id, session_id, context, batch)
) STRICT, WITHOUT ROWID;

CREATE TABLE breakdown (
    cell_id   INTEGER NOT NULL REFERENCES cell(id),
    session_id INTEGER NOT NULL REFERENCES session(id),
    context   INTEGER NOT NULL, batch INTEGER NOT NULL,
    step_kind TEXT NOT NULL,    -- first, later, commit
    part      TEXT NOT NULL,    -- gemm, dense attention, selection, ...
    i         INTEGER NOT NULL, -- order of the parts, for stacking
    time_us   REAL NOT NULL,
    kernels   INTEGER NOT NULL,
    PRIMARY KEY (cell_id, session_id, context, batch, step_kind, part)
) STRICT, WITHOUT ROWID;

-- ---- what the run says about itself ----

CREATE TABLE gate (
    run_id  INTEGER NOT NULL REFERENCES run(id),
    name    TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('pass', 'fail', 'skip')),
    detail  TEXT,
    PRIMARY KEY (run_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
    id         INTEGER PRIMARY KEY,
    run_id     INTEGER NOT NULL REFERENCES run(id),
    session_id INTEGER REFERENCES session(id),
    stored_at  TEXT NOT NULL,
    level      TEXT NOT NULL,   -- note, warning, error
    text       TEXT NOT NULL
) STRICT;
CREATE INDEX event_session ON event(session_id);
