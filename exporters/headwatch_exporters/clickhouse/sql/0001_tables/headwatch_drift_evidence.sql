-- What drift detection held against its baselines, after each window: the largest evidence by place and name.
-- `stratum` is empty where the evidence is of all strata; heads stand in headwatch_incidents once something has paged.
CREATE TABLE IF NOT EXISTS headwatch_drift_evidence
(
    time DateTime64(9) CODEC(Delta, ZSTD(1)),
    service LowCardinality(String),
    window Int64,
    state LowCardinality(String),
    clock Float64,
    threshold Float64,
    kind LowCardinality(String),
    name LowCardinality(String),
    model LowCardinality(String),
    route LowCardinality(String),
    stratum LowCardinality(String),
    log10_evidence Float64,
    before Float64,
    after Float64,
    effect Float64,
    since DateTime64(9)
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (service, name, time)
TTL toDateTime(time) + toIntervalDay({evidence_ttl_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;
