-- Rows of one key in one insert are added up before they are written.
CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_heads_10m_view TO headwatch_heads_10m AS
WITH sumMap(arrayFilter((i, n) -> n > 0, arrayMap(i -> toInt16(p.first + i - 1), arrayEnumerate(p.counts)), p.counts),
           arrayFilter(n -> n > 0, p.counts)) AS buckets
SELECT
    toStartOfTenMinutes(p.time) AS time, p.service AS service, p.instance AS instance, any(p.model) AS model, p.stratum AS stratum,
    any(p.route) AS route, any(p.phase) AS phase, any(p.context_band) AS context_band, p.feature AS feature, p.layer AS layer,
    p.head AS head,
    sum(p.weight) AS weight,
    toFloat32(sum(p.total)) AS total,
    sum(p.zero_count) AS zero_count,
    p.unit AS unit,
    buckets.1 AS `bucketMap.index`,
    buckets.2 AS `bucketMap.count`
FROM headwatch_head_points AS p
GROUP BY time, service, instance, stratum, feature, layer, head, unit;
