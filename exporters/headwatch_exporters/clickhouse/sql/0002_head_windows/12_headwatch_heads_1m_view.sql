-- The mean as a code: see headwatch_heads_1m.
CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_heads_1m_view TO headwatch_heads_1m AS
SELECT
    time, service, instance, model, stratum, route, phase, context_band, feature, layer, head, weight,
    if(total > 0, toUInt16(least(65534, greatest(0, round(-1024 * log2(total / weight))))), 65535) AS mean_code,
    zero_count, unit,
    toInt16(first) AS first,
    counts
FROM headwatch_head_points;
