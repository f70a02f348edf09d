-- The series of heads as they come, typed: what the Collector's attributes say, in columns.  Keeps nothing; the rungs hang on it.
-- buckets[n + 1] values lie in bucket n of headwatch_heads_1m.
CREATE TABLE IF NOT EXISTS headwatch_head_points
(
    time DateTime('UTC'),
    service LowCardinality(String),
    instance LowCardinality(String),
    model LowCardinality(String),
    stratum LowCardinality(String),
    route LowCardinality(String),
    phase LowCardinality(String),
    context_band LowCardinality(String),
    feature LowCardinality(String),
    layer UInt16,
    head UInt16,
    weight UInt64,
    total Float64,
    zero_count UInt64,
    buckets Array(UInt64)
)
ENGINE = Null;
