-- How features and masses of a row are written: 0, float32 as the worker sent them; 1, a byte each (headwatch_exporters.clickhouse.share_code).
ALTER TABLE headwatch_rows ADD COLUMN IF NOT EXISTS code UInt8 DEFAULT 0 AFTER detail;
