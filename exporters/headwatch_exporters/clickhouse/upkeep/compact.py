"""Parts merged into one for each partition: what a merge leaves out (rows past their time, rows that add up) is given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.schema_files import OURS

if TYPE_CHECKING:
    from headwatch_exporters.clickhouse.connection import Connection
    from headwatch_exporters.clickhouse.schema import Progress


def compact(connection: Connection, progress: Progress) -> list[str]:
    """Merge every table that has more than one part in a partition, and return their names.

    It needs free space for the largest partition once more.

    Raises:
        StoreError: The store refuses.
    """
    rows = connection.query(
        """
        SELECT DISTINCT table FROM (
          SELECT table, partition_id FROM system.parts
          WHERE database = currentDatabase() AND active GROUP BY table, partition_id HAVING count() > 1
        ) ORDER BY table
        """
    )
    names = [row["table"] for row in rows if row["table"].startswith(OURS)]
    for name in names:
        progress(name)
        connection.require_space()
        connection.command(f"OPTIMIZE TABLE {name} FINAL")
    return names
