-- What the Collector's table holds already.  Nothing else reaches the rungs before step 21, so a fill that was cut short is begun anew.
TRUNCATE TABLE headwatch_heads_1m;
TRUNCATE TABLE headwatch_heads_10m;
TRUNCATE TABLE headwatch_heads_1h;
TRUNCATE TABLE headwatch_heads_1d;
INSERT INTO headwatch_head_points {select of 21_headwatch_head_points_view}
SETTINGS insert_deduplicate = 0;
