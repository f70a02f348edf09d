-- One row for each head, feature and stratum in each window: how many values it stands for, their mean and their histogram.
-- `mean_code` is -1024 log2(mean): the mean comes back within 3.4e-4 of its value, in less than half the bytes of a Float32.
-- Bucket `first` + n holds counts[n + 1] * unit values; `zero_count` values are below 2^-16.
CREATE TABLE IF NOT EXISTS headwatch_heads_1m
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
    mean_code UInt16 CODEC(T64('bit'), ZSTD(1)),
    zero_count UInt64 CODEC(T64, ZSTD(1)),
    unit UInt64 CODEC(T64, ZSTD(1)),
    first Int16 CODEC(ZSTD(1)),
    counts Array(UInt64) CODEC(T64, ZSTD(1)),
    mean Float64 ALIAS if(mean_code = 65535, 0, exp2(-mean_code / 1024)),
    total Float64 ALIAS weight * mean,
    `bucketMap.index` Array(Int16) ALIAS arrayMap(n -> toInt16(first + n - 1), arrayEnumerate(counts)),
    `bucketMap.count` Array(UInt64) ALIAS arrayMap(n -> n * unit, counts)
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (service, feature, stratum, layer, toStartOfHour(time), head, instance, time)
TTL time + toIntervalDay({minute_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
