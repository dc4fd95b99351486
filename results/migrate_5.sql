-- migrate_5.sql - a store of version 5 becomes one of version 6, in one transaction; every row stays.
--
-- New: records of chosen samples, which no run of before has: the prompt's text, the trace of steps, what each layer
-- selected.

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

PRAGMA user_version = 6;
