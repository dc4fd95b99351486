-- migrate_4.sql - a store of version 4 becomes one of version 5, in one transaction; every row stays.
--
-- New: the part of a run that a session computes (NULL: all of it, as every session of before), and an index by
-- which merging finds events.

ALTER TABLE session ADD COLUMN shard INTEGER;
ALTER TABLE session ADD COLUMN shard_first INTEGER;
ALTER TABLE session ADD COLUMN shard_last INTEGER;
CREATE INDEX event_session ON event(session_id);

PRAGMA user_version = 5;
