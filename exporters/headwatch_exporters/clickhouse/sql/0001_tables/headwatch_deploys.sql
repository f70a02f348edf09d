-- Releases that an operator marked.
CREATE TABLE IF NOT EXISTS headwatch_deploys
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    title String,
    revision String,
    who String,
    planned_seconds Float64
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (service, time)
TTL toDateTime(time) + toIntervalDay({incident_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
