-- The same by the hour.
-- Rows of one key add up when parts are merged, so read with sum(): the buckets are the state that any quantile needs.
CREATE TABLE IF NOT EXISTS headwatch_heads_1h
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
    b00 UInt64 CODEC(T64, ZSTD(1)), b01 UInt64 CODEC(T64, ZSTD(1)), b02 UInt64 CODEC(T64, ZSTD(1)),
    b03 UInt64 CODEC(T64, ZSTD(1)), b04 UInt64 CODEC(T64, ZSTD(1)), b05 UInt64 CODEC(T64, ZSTD(1)),
    b06 UInt64 CODEC(T64, ZSTD(1)), b07 UInt64 CODEC(T64, ZSTD(1)), b08 UInt64 CODEC(T64, ZSTD(1)),
    b09 UInt64 CODEC(T64, ZSTD(1)), b10 UInt64 CODEC(T64, ZSTD(1)), b11 UInt64 CODEC(T64, ZSTD(1)),
    b12 UInt64 CODEC(T64, ZSTD(1)), b13 UInt64 CODEC(T64, ZSTD(1)), b14 UInt64 CODEC(T64, ZSTD(1)),
    b15 UInt64 CODEC(T64, ZSTD(1)), b16 UInt64 CODEC(T64, ZSTD(1)), b17 UInt64 CODEC(T64, ZSTD(1)),
    b18 UInt64 CODEC(T64, ZSTD(1)), b19 UInt64 CODEC(T64, ZSTD(1)), b20 UInt64 CODEC(T64, ZSTD(1)),
    b21 UInt64 CODEC(T64, ZSTD(1)), b22 UInt64 CODEC(T64, ZSTD(1)), b23 UInt64 CODEC(T64, ZSTD(1)),
    b24 UInt64 CODEC(T64, ZSTD(1)), b25 UInt64 CODEC(T64, ZSTD(1)), b26 UInt64 CODEC(T64, ZSTD(1)),
    b27 UInt64 CODEC(T64, ZSTD(1)), b28 UInt64 CODEC(T64, ZSTD(1)), b29 UInt64 CODEC(T64, ZSTD(1)),
    b30 UInt64 CODEC(T64, ZSTD(1)), b31 UInt64 CODEC(T64, ZSTD(1)), b32 UInt64 CODEC(T64, ZSTD(1)),
    b33 UInt64 CODEC(T64, ZSTD(1)), b34 UInt64 CODEC(T64, ZSTD(1)), b35 UInt64 CODEC(T64, ZSTD(1)),
    b36 UInt64 CODEC(T64, ZSTD(1)), b37 UInt64 CODEC(T64, ZSTD(1)), b38 UInt64 CODEC(T64, ZSTD(1)),
    b39 UInt64 CODEC(T64, ZSTD(1)), b40 UInt64 CODEC(T64, ZSTD(1)), b41 UInt64 CODEC(T64, ZSTD(1)),
    b42 UInt64 CODEC(T64, ZSTD(1)), b43 UInt64 CODEC(T64, ZSTD(1)), b44 UInt64 CODEC(T64, ZSTD(1)),
    b45 UInt64 CODEC(T64, ZSTD(1)), b46 UInt64 CODEC(T64, ZSTD(1)), b47 UInt64 CODEC(T64, ZSTD(1)),
    b48 UInt64 CODEC(T64, ZSTD(1)), b49 UInt64 CODEC(T64, ZSTD(1)), b50 UInt64 CODEC(T64, ZSTD(1)),
    b51 UInt64 CODEC(T64, ZSTD(1)), b52 UInt64 CODEC(T64, ZSTD(1)), b53 UInt64 CODEC(T64, ZSTD(1)),
    b54 UInt64 CODEC(T64, ZSTD(1)), b55 UInt64 CODEC(T64, ZSTD(1)), b56 UInt64 CODEC(T64, ZSTD(1)),
    b57 UInt64 CODEC(T64, ZSTD(1)), b58 UInt64 CODEC(T64, ZSTD(1)), b59 UInt64 CODEC(T64, ZSTD(1)),
    b60 UInt64 CODEC(T64, ZSTD(1)), b61 UInt64 CODEC(T64, ZSTD(1)), b62 UInt64 CODEC(T64, ZSTD(1)),
    b63 UInt64 CODEC(T64, ZSTD(1)),
    mean Float64 ALIAS total / weight,
    buckets Array(UInt64) ALIAS [
        b00, b01, b02, b03, b04, b05, b06, b07, b08, b09, b10, b11, b12, b13, b14, b15,
        b16, b17, b18, b19, b20, b21, b22, b23, b24, b25, b26, b27, b28, b29, b30, b31,
        b32, b33, b34, b35, b36, b37, b38, b39, b40, b41, b42, b43, b44, b45, b46, b47,
        b48, b49, b50, b51, b52, b53, b54, b55, b56, b57, b58, b59, b60, b61, b62, b63
    ]
)
ENGINE = SummingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (service, feature, stratum, layer, toStartOfDay(time), head, instance, time)
TTL time + toIntervalDay({hour_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
