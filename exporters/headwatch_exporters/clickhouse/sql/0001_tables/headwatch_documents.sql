-- Documents of sampled requests: what each was, whether it was found in the prompt, and the share that it drew.  Never its text.
CREATE TABLE IF NOT EXISTS headwatch_documents
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    model LowCardinality(String),
    route LowCardinality(String),
    arm LowCardinality(String),
    request_id String,
    engine_id String,
    weight Float32 DEFAULT 1 CODEC(ZSTD(1)),
    rank UInt16,
    document_id String,
    kind LowCardinality(String),
    source LowCardinality(String),
    version String,
    retrieved_at String,
    labels Map(LowCardinality(String), String),
    found Bool,
    share Nullable(Float32),
    share_retrieval_heads Nullable(Float32),
    share_prompt_end Nullable(Float32),
    tokens UInt32
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (service, route, time)
TTL toDateTime(time) + toIntervalDay({evidence_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
