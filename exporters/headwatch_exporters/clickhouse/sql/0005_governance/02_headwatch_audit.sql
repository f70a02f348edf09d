-- What was done to the store by hand: purges, with what they removed and never whom.
CREATE TABLE IF NOT EXISTS headwatch_audit
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    who String,
    action LowCardinality(String),
    what LowCardinality(String),
    removed Map(LowCardinality(String), UInt64)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY time
SETTINGS non_replicated_deduplication_window = 1000;
