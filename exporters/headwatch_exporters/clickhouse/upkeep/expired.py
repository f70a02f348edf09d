"""What has reached its age, dropped part by part: for a store whose merges, which do it otherwise, are stopped.

The ages are those of the configuration: an operator who lowers them to make room need not wait for merges either.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.schema_files import ages

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.config import StoreConfig

logger = logging.getLogger("headwatch.store")

_TABLES = "SELECT name FROM system.tables WHERE database = currentDatabase() FORMAT TSVRaw"


def drop_expired(query: Callable[[str], str], config: StoreConfig) -> int:
    """Drop each part of which every row has reached its age by *config*; return how many.

    *query* runs a statement and returns the answer as text.  What one table refuses is logged: ClickHouse wants a MiB of free
    space to drop anything.

    Raises:
        Exception: The store refuses.
    """
    there = set(query(_TABLES).split())
    dropped = 0
    for table, age in ages(config):
        if table not in there:
            continue
        parts = f"SELECT _part FROM {table} GROUP BY _part HAVING max({age}) < now() FORMAT TSVRaw"  # noqa: S608 - ours
        try:
            for part in query(parts).split():
                query(f"ALTER TABLE {table} DROP PART '{part}'")
                dropped += 1
        except Exception as error:  # noqa: BLE001 - the driver's own
            logger.error("what has reached its age in %s is not dropped: %s", table, str(error).partition("\n")[0])  # noqa: TRY400
    return dropped
