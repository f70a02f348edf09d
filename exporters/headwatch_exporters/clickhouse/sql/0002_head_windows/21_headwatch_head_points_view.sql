-- Series of single heads out of the Collector's table, whoever wrote them there: the sidecar, or any Collector.
-- Taken are delta histograms of scale 0 to 20 that name a layer and a head.  A histogram that is finer than ours is merged down, which
-- is exact; of one that is coarser each bucket counts at the bucket of ours in its middle.  Weights of one window are mostly multiples
-- of one number: counts are kept over it.
CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_head_points_view TO headwatch_head_points AS
WITH
    substring(MetricName, 21) AS name,
    greatest(Scale - 2, 0) AS down,
    greatest(2 - Scale, 0) AS up,
    bitShiftLeft(toInt32(1), down) AS merged,
    bitShiftLeft(toInt32(1), up) AS spread,
    positiveModulo(PositiveOffset, merged) AS before,
    arrayConcat(arrayWithConstant(before, toUInt64(0)), PositiveBucketCounts) AS padded,
    multiIf(
        down > 0, arrayMap(n -> arraySum(arraySlice(padded, n * merged + 1, merged)), range(toUInt32(ceil(length(padded) / merged)))),
        up > 0, arrayFlatten(arrayMap(c -> arrayMap(n -> if(n = intDiv(spread, 2), c, toUInt64(0)), range(toUInt32(spread))), PositiveBucketCounts)),
        PositiveBucketCounts
    ) AS whole,
    gcd(gcd(greatest(arrayMin(arrayFilter(n -> n > 0, whole)), 1), greatest(arrayMax(whole), 1)), Count) AS common,
    if(arrayAll(n -> n % common = 0, whole), common, toUInt64(1)) AS divisor
SELECT
    toStartOfMinute(toDateTime(if(StartTimeUnix = 0, TimeUnix, StartTimeUnix), 'UTC')) AS time,
    ServiceName AS service,
    ResourceAttributes['service.instance.id'] AS instance,
    Attributes['gen_ai.request.model'] AS model,
    Attributes['headwatch.stratum'] AS stratum,
    Attributes['headwatch.route'] AS route,
    Attributes['headwatch.phase'] AS phase,
    Attributes['headwatch.context_band'] AS context_band,
    if(Attributes['headwatch.span.kind'] = '', name, concat(name, '.', Attributes['headwatch.span.kind'])) AS feature,
    assumeNotNull(toUInt16OrZero(Attributes['headwatch.layer'])) AS layer,
    assumeNotNull(toUInt16OrZero(Attributes['headwatch.head'])) AS head,
    Count AS weight,
    Sum AS total,
    ZeroCount AS zero_count,
    intDiv(PositiveOffset - before, merged) * spread AS first,
    divisor AS unit,
    arrayMap(n -> intDiv(n, divisor), whole) AS counts
FROM otel_metrics_exp_histogram
WHERE startsWith(MetricName, 'headwatch.attention.')
  AND mapContains(Attributes, 'headwatch.head')
  AND AggregationTemporality = 1
  AND Count > 0
  AND Scale BETWEEN 0 AND 20;
