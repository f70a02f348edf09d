-- Out of the rung below, as it is written there.
CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_heads_1d_view TO headwatch_heads_1d AS
SELECT toStartOfDay(r.time) AS time, r.* EXCEPT (time)
FROM headwatch_heads_1h AS r;
