-- Out of the rung below, as it is written there.
CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_heads_1d_view TO headwatch_heads_1d AS
WITH sumMap(r.bucketMap.index, r.bucketMap.count) AS buckets
SELECT
    toStartOfDay(r.time) AS time, r.service AS service, r.instance AS instance, any(r.model) AS model, r.stratum AS stratum,
    any(r.route) AS route, any(r.phase) AS phase, any(r.context_band) AS context_band, r.feature AS feature, r.layer AS layer,
    r.head AS head,
    sum(r.weight) AS weight,
    toFloat32(sum(r.total)) AS total,
    sum(r.zero_count) AS zero_count,
    r.unit AS unit,
    buckets.1 AS `bucketMap.index`,
    buckets.2 AS `bucketMap.count`
FROM headwatch_heads_1h AS r
GROUP BY time, service, instance, stratum, feature, layer, head, unit;
