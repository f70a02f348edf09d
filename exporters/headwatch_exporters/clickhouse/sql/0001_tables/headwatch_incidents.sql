-- Incidents, one row each time one changes: read with FINAL, which leaves the latest `updated` of each id.
-- What a page named (heads, documents, requests) stands in arrays; `document` is the whole incident as JSON.
CREATE TABLE IF NOT EXISTS headwatch_incidents
(
    id String,
    updated DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    opened DateTime64(9),
    since DateTime64(9),
    resolved Nullable(DateTime64(9)),
    state LowCardinality(String),
    severity LowCardinality(String),
    class LowCardinality(String),
    cause LowCardinality(String),
    sentence String,
    confidence Float32,
    runner_up LowCardinality(String),
    model LowCardinality(String),
    route LowCardinality(String),
    log10_evidence Float64,
    acknowledged_by String,
    resolved_by String,
    ruling LowCardinality(String),
    note String,
    reopened UInt16,
    silenced Bool,
    silenced_why String,
    paged Bool,
    page_route LowCardinality(String),
    `heads.layer` Array(UInt16),
    `heads.head` Array(UInt16),
    `heads.feature` Array(LowCardinality(String)),
    `heads.before` Array(Float64),
    `heads.after` Array(Float64),
    `heads.effect` Array(Float64),
    `documents.id` Array(String),
    `documents.source` Array(String),
    `requests.request_id` Array(String),
    `requests.engine_id` Array(String),
    document String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(updated)
PARTITION BY toYYYYMM(opened)
ORDER BY (service, id)
TTL toDateTime(updated) + toIntervalDay({incident_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
