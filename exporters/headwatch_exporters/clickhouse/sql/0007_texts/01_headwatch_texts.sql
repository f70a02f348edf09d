-- Texts of sampled prompts, where text.enabled is on: redacted, then encrypted in the sidecar; the key is never here.  See docs/text-capture.md.
-- Each row expires by a column of its own, so that routes may differ; what has expired is gone an hour later.
CREATE TABLE IF NOT EXISTS headwatch_texts
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    model LowCardinality(String),
    route LowCardinality(String),
    arm LowCardinality(String),
    adapter LowCardinality(String),
    request_id String,
    trace_id String,
    user String,
    tenant LowCardinality(String),
    documents Array(String),
    document_tenants Array(LowCardinality(String)),
    kind LowCardinality(String),
    chars UInt64,
    kept_chars UInt32,
    redactions Map(LowCardinality(String), UInt32),
    key LowCardinality(String),
    body String CODEC(NONE),
    expires DateTime64(9) CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(expires)
ORDER BY (service, request_id, time)
TTL toDateTime(expires)
SETTINGS merge_with_ttl_timeout = 3600, non_replicated_deduplication_window = 1000;
