-- Who asked, and on whose behalf, as the client names them: hashed where privacy.hash says so, removed by `headwatch store purge`.
ALTER TABLE headwatch_requests
    ADD COLUMN IF NOT EXISTS user String DEFAULT '' CODEC(ZSTD(1)) AFTER arm,
    ADD COLUMN IF NOT EXISTS tenant LowCardinality(String) DEFAULT '' AFTER user;
