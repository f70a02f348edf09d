"""What has reached its age, dropped part by part: for a store whose merges, which do it otherwise, are stopped.

The ages are those of the configuration: an operator who lowers them to make room need not wait for merges either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.schema_files import ages

if TYPE_CHECKING:
    from headwatch.config import StoreConfig
    from headwatch_exporters.clickhouse.connection import Connection


def drop_expired(connection: Connection, config: StoreConfig) -> int:
    """Drop each part of which every row has reached its age by *config*; return how many.

    Raises:
        StoreError: The store refuses.
    """
    there = {row["name"] for row in connection.query("SELECT name FROM system.tables WHERE database = currentDatabase()")}
    dropped = 0
    for table, age in ages(config):
        if table in there:
            parts = connection.query(f"SELECT _part AS part FROM {table} GROUP BY _part HAVING max({age}) < now()")  # noqa: S608 - ours
            for row in parts:
                connection.command(f"ALTER TABLE {table} DROP PART '{row['part']}'")
            dropped += len(parts)
    return dropped
