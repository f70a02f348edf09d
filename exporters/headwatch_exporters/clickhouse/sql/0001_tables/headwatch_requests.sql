-- Sampled requests that ended, one row each.  A ratio is NULL where it is undefined, never 0.
-- A row stands for `weight` requests: take avgWeighted(x, weight) where requests were sampled at different rates.
CREATE TABLE IF NOT EXISTS headwatch_requests
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    instance LowCardinality(String),
    model LowCardinality(String),
    revision LowCardinality(String),
    adapter LowCardinality(String),
    route LowCardinality(String),
    arm LowCardinality(String),
    request_id String,
    engine_id String,
    weight Float32 DEFAULT 1 CODEC(ZSTD(1)),
    trace_id String,
    prompt_tokens UInt32,
    rows_prefill UInt32,
    rows_decode UInt32,
    state LowCardinality(String),
    grounding_ratio Nullable(Float32),
    grounding_ratio_retrieval_heads Nullable(Float32),
    document_mass Nullable(Float32),
    instruction_focus Nullable(Float32),
    history_mass Nullable(Float32),
    span_mass Map(LowCardinality(String), Float32) CODEC(ZSTD(1)),
    language LowCardinality(String),
    template LowCardinality(String),
    prompt_digest LowCardinality(String),
    prompt_kind LowCardinality(String),
    undefined UInt32,
    documents UInt16,
    documents_found UInt16,
    errors Array(LowCardinality(String)),
    duration_seconds Float32
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (service, route, time)
TTL toDateTime(time) + toIntervalDay({evidence_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
