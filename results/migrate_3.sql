-- migrate_3.sql - a store of version 3 becomes one of version 4, in one transaction; every row stays.
--
-- New: options of a sampler that have no column of their own. Samplers of before had none set that were stored.

ALTER TABLE sampler ADD COLUMN options TEXT;

PRAGMA user_version = 4;
