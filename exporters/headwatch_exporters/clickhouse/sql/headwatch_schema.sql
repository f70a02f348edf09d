-- Which migrations this store has seen: a row for each step, and one with an empty step for each version that is whole.
CREATE TABLE IF NOT EXISTS headwatch_schema
(
    version UInt32,
    name String,
    step String,
    checksum String,
    applied_at DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (version, step)
SETTINGS non_replicated_deduplication_window = 1000;
