"""Puts right, in a store that is open, what a disk that ran full has left in it: see :mod:`.parts`.

A table is detached, its lost tokens are forgotten, and it is attached again, which sets its torn parts aside and takes back
those that were merged into them (ClickHouse keeps them for eight minutes).  For those milliseconds queries of it fail.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.writing.parts import forget_lost, lost_tokens, tables, torn_parts

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("headwatch.store")

_NAME = """SELECT concat('`', database, '`.`', name, '`') FROM system.tables
    WHERE engine LIKE '%MergeTree' AND arrayExists(path -> position(path, '/FOLDER/') > 0, data_paths) FORMAT TSVRaw"""


class Mending:
    """Mends the tables of the embedded store in the folder *path*.  Nobody may insert meanwhile."""

    def __init__(self, path: str, query: Callable[[str], str]) -> None:
        """*query* runs a statement and returns the answer as text; it raises where the store refuses."""
        self._store = Path(path)
        self._query = query
        self._detached: list[str] = []

    def mend(self) -> int:
        """Mend each table that needs it, and return how many did.

        Raises:
            Exception: The store refuses; what is detached is attached by the next call.
            OSError: The disk does not let us.
        """
        hurt = [table for table in tables(self._store) if torn_parts(table) or lost_tokens(table)]
        for table in hurt:
            torn = torn_parts(table)
            name = self._query(_NAME.replace("FOLDER", table.name)).strip()
            if name:
                self._detached.append(name)
                self._query(f"DETACH TABLE {name} SYNC")
            forget_lost(table)
            if torn:
                logger.error("the disk ran full while parts of %s were written: %s are set aside", name or table, sorted(torn))
        while self._detached:
            self._query(f"ATTACH TABLE {self._detached[-1]}")
            self._detached.pop()
        return len(hurt)
