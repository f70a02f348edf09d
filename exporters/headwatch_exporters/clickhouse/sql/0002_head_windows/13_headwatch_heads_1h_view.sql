-- Out of the rung below, as it is written there.
CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_heads_1h_view TO headwatch_heads_1h AS
SELECT toStartOfHour(r.time) AS time, r.* EXCEPT (time)
FROM headwatch_heads_10m AS r;
