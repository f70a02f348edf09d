-- The baseline that windows are held against from `time` on, a row each time it changes and at each start of a sidecar.
-- Version 0: none is in force.  Window numbers are those of the sidecar's own history.
CREATE TABLE IF NOT EXISTS headwatch_baselines
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    version UInt32,
    origin LowCardinality(String),
    created DateTime64(9),
    first_window Int64,
    last_window Int64,
    windows UInt32,
    note String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (service, time)
TTL toDateTime(time) + toIntervalDay({incident_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
