-- The same by ten minutes.
-- Rows of one key add up when parts are merged, so read with sum() and sumMap(): the buckets are the state that any quantile needs.
-- Bucket `bucketMap.index`[n] holds `bucketMap.count`[n] * unit values.
CREATE TABLE IF NOT EXISTS headwatch_heads_10m
(
    time DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    service LowCardinality(String),
    instance LowCardinality(String),
    model LowCardinality(String),
    stratum LowCardinality(String),
    route LowCardinality(String),
    phase LowCardinality(String),
    context_band LowCardinality(String),
    feature LowCardinality(String),
    layer UInt16 CODEC(Delta, ZSTD(1)),
    head UInt16 CODEC(Delta, ZSTD(1)),
    weight UInt64 CODEC(T64, ZSTD(1)),
    total Float32 CODEC(ZSTD(1)),
    zero_count UInt64 CODEC(T64, ZSTD(1)),
    unit UInt64 CODEC(T64, ZSTD(1)),
    `bucketMap.index` Array(Int16) CODEC(Delta, ZSTD(1)),
    `bucketMap.count` Array(UInt64) CODEC(T64, ZSTD(1)),
    mean Float64 ALIAS total / weight
)
ENGINE = SummingMergeTree((weight, total, zero_count, bucketMap))
PARTITION BY toMonday(time)
ORDER BY (service, feature, stratum, layer, toStartOfDay(time), head, instance, time, unit)
TTL time + toIntervalDay({ten_minute_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
