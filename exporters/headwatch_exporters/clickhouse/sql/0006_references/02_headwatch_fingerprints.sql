-- The fingerprint that runs of the fixed prompts are held against from `time` on, likewise.
CREATE TABLE IF NOT EXISTS headwatch_fingerprints
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    created DateTime64(9),
    model LowCardinality(String),
    revision LowCardinality(String),
    dtype LowCardinality(String),
    prompt_set LowCardinality(String),
    runs UInt32,
    exact Bool,
    note String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (service, time)
TTL toDateTime(time) + toIntervalDay({incident_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
