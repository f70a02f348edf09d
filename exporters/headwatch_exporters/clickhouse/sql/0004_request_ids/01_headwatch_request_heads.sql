-- The ids of a day's requests come again for each head, tens of thousands of rows later: blocks and a window that reach so far make of
-- 78 bytes a row about 6.
ALTER TABLE headwatch_request_heads
    MODIFY COLUMN request_id String CODEC(ZSTD(1, 24)) SETTINGS (min_compress_block_size = 8388608, max_compress_block_size = 8388608),
    MODIFY COLUMN engine_id String CODEC(ZSTD(1, 24)) SETTINGS (min_compress_block_size = 8388608, max_compress_block_size = 8388608);
