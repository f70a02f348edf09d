-- What other writers sent between the fill of step 20 and the view of step 21, which neither saw.  Taken are windows that ended before the
-- view was there, ten minutes before this migration began at the earliest, and that headwatch_heads_1m does not hold; so it may be run
-- again.  First it waits three seconds for inserts that are under way, where any window ended in the last ten minutes.
SELECT sleepEachRow(1) FROM (
    SELECT 1 FROM otel_metrics_exp_histogram
    WHERE MetricName LIKE 'headwatch.attention.%' AND TimeUnix BETWEEN now64(9) - INTERVAL 10 MINUTE AND now64(9)
    LIMIT 3
);
INSERT INTO headwatch_head_points
SELECT * FROM (
    {select of 21_headwatch_head_points_view}
      AND TimeUnix >= (SELECT min(applied_at) FROM headwatch_schema WHERE version = 2 AND step != '') - INTERVAL 10 MINUTE
      AND TimeUnix < (SELECT max(applied_at) FROM headwatch_schema WHERE version = 2 AND step = '21_headwatch_head_points_view')
) AS came
WHERE sipHash64(time, service, instance, model, stratum, route, phase, context_band, feature, layer, head, weight, zero_count, buckets)
    NOT IN (
        SELECT sipHash64(time, service, instance, model, stratum, route, phase, context_band, feature, layer, head, weight, zero_count, buckets)
        FROM headwatch_heads_1m
        WHERE time >= (SELECT min(applied_at) FROM headwatch_schema WHERE version = 2 AND step != '') - INTERVAL 1 DAY
    )
SETTINGS insert_deduplicate = 0;
