-- Sampled rows of detail 2 and more, as the worker sent them: little-endian bytes, L layers, H heads.  What they say is in docs/detail.md.
CREATE TABLE IF NOT EXISTS headwatch_rows
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    model LowCardinality(String),
    route LowCardinality(String),
    arm LowCardinality(String),
    request_id String,
    engine_id String,
    instance LowCardinality(String),
    revision LowCardinality(String),
    adapter LowCardinality(String),
    rank UInt32,
    prompt_tokens UInt32,
    position UInt32,
    detail UInt8,
    layers Array(UInt16),
    heads UInt32,
    head_offset UInt32,
    features String CODEC(ZSTD(1)),
    span_mass String CODEC(ZSTD(1)),
    value_mass String CODEC(ZSTD(1)),
    output_norm String CODEC(ZSTD(1)),
    block_tokens UInt32,
    block_profile String CODEC(ZSTD(1)),
    top_k UInt16,
    top_position String CODEC(ZSTD(1)),
    top_weight String CODEC(ZSTD(1)),
    full_weight String CODEC(ZSTD(1)),
    `spans.kind` Array(LowCardinality(String)),
    `spans.start` Array(UInt32),
    `spans.end` Array(UInt32),
    `spans.document` Array(Int32),
    `spans.age` Array(UInt32)
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (service, request_id, engine_id, position, time)
TTL toDateTime(time) + toIntervalDay({row_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000, index_granularity = 256;
