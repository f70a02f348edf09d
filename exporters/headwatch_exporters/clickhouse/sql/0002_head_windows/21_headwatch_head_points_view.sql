-- Series of single heads out of the Collector's table, whoever wrote them there: the sidecar, or any Collector.
-- Taken are delta histograms of scale 0 to 20 that name a layer and a head.  Ours are of scale 2.  One that is finer is merged down, which
-- is exact; of one that is coarser each bucket counts at the bucket of ours in its middle.  Values above 1 count in the last bucket, values
-- up to 2^-16 as zero.
CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_head_points_view TO headwatch_head_points AS
WITH
    substring(MetricName, 21) AS name,
    bitShiftLeft(toInt64(1), greatest(Scale - 2, 0)) AS merged,
    bitShiftLeft(toInt64(1), greatest(2 - Scale, 0)) AS spread,
    1 - toInt64(PositiveOffset) AS zeroth,
    multiIf(
        merged = 2, arrayMap(
            i -> PositiveBucketCounts[greatest(2 * i + zeroth, 0)] + PositiveBucketCounts[greatest(2 * i + zeroth + 1, 0)],
            range(-64, 0)),
        merged > 1, arrayMap(
            i -> arraySum(arraySlice(PositiveBucketCounts, greatest(merged * i + zeroth, 1),
                                     greatest(merged * (i + 1) + zeroth - greatest(merged * i + zeroth, 1), 0))),
            range(-64, 0)),
        arrayMap(
            i -> if(positiveModulo(i, spread) = intDiv(spread, 2), PositiveBucketCounts[greatest(intDiv(i - intDiv(spread, 2), spread) + zeroth, 0)], 0),
            range(-64, 0))
    ) AS inside,
    arraySum(arraySlice(PositiveBucketCounts, greatest(zeroth, 1))) AS above
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
    ZeroCount + arraySum(PositiveBucketCounts) - arraySum(inside) - above AS zero_count,
    if(above = 0, inside, arrayPushBack(arrayPopBack(inside), inside[64] + above)) AS buckets
FROM otel_metrics_exp_histogram
WHERE startsWith(MetricName, 'headwatch.attention.')
  AND mapContains(Attributes, 'headwatch.head')
  AND AggregationTemporality = 1
  AND Count > 0
  AND Scale BETWEEN 0 AND 20;
