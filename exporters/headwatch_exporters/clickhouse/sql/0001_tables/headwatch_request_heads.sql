-- One row for each sampled request and head: means over its generated rows.  NaN where undefined, or not measured.
CREATE TABLE IF NOT EXISTS headwatch_request_heads
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    model LowCardinality(String),
    route LowCardinality(String),
    arm LowCardinality(String),
    request_id String,
    engine_id String,
    weight Float32 DEFAULT 1 CODEC(ZSTD(1)),
    layer UInt16,
    head UInt16,
    entropy Float32 CODEC(ZSTD(1)),
    max_weight Float32 CODEC(ZSTD(1)),
    sink_mass Float32 CODEC(ZSTD(1)),
    local_mass Float32 CODEC(ZSTD(1)),
    distance Float32 CODEC(ZSTD(1)),
    lookback Float32 CODEC(ZSTD(1)),
    document_mass Float32 CODEC(ZSTD(1)),
    document_value_share Float32 DEFAULT nan CODEC(ZSTD(1)),
    output_norm Float32 DEFAULT nan CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (service, route, layer, head, time)
TTL toDateTime(time) + toIntervalDay({evidence_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
