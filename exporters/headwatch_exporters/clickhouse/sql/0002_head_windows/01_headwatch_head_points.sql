-- The series of heads as they come, typed: what the Collector's attributes say, in columns.  Keeps nothing; the rungs hang on it.
-- Scale 2: bucket i holds values in (2^(i/4), 2^((i+1)/4)], and counts[n + 1] * unit of them lie in bucket first + n.
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
    first Int32,
    unit UInt64,
    counts Array(UInt64)
)
ENGINE = Null;
