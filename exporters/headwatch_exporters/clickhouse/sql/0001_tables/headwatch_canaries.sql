-- Runs of the fixed prompts: how far each was from its fingerprint, and where it departs first.
CREATE TABLE IF NOT EXISTS headwatch_canaries
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    prompt LowCardinality(String),
    deviation Float64,
    threshold Float64,
    failed Bool,
    earliest_layer Nullable(Int32),
    hint LowCardinality(String),
    note String,
    `heads.layer` Array(UInt16),
    `heads.head` Array(UInt16),
    `heads.feature` Array(LowCardinality(String)),
    `heads.before` Array(Float64),
    `heads.after` Array(Float64)
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (service, prompt, time)
TTL toDateTime(time) + toIntervalDay({evidence_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
