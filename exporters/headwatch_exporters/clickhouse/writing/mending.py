"""Puts right, in a store that is open, what a disk that ran full has left in it: see :mod:`.parts`.

The lost tokens of a table are taken out of its log, and it is detached and attached again.  So it reads the log anew, sets its
torn parts aside, and takes back those that were merged into them (kept for :data:`OLD_PARTS_SECONDS`).  Until then, mostly for
milliseconds, and at most until soon after the queries that read it at that moment have ended, queries of it fail.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.writing.parts import forget_lost, lost_tokens, tables, torn_parts

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("headwatch.store")

OLD_PARTS_SECONDS = 180
"""How long our tables keep what was merged: chDB's own default is not at all."""
_NAME = """SELECT concat('`', database, '`.`', name, '`') FROM system.tables
    WHERE engine LIKE '%MergeTree' AND arrayExists(path -> position(path, '/FOLDER/') > 0, data_paths) FORMAT TSVRaw"""
_IN_USE = "still used by some query"
_THERE = "already exists"
_WAIT_SECONDS = 1.0
_ROUNDS = 3
"""A part that is set aside when its table is attached leaves a lost token: that is a second round."""
_PAUSE_SECONDS = 0.1


class Mending:
    """Mends the tables of the embedded store in the folder *path*.  Nobody may insert meanwhile."""

    def __init__(self, path: str, query: Callable[[str], str]) -> None:
        """*query* runs a statement and returns the answer as text; it raises where the store refuses."""
        self._store = Path(path)
        self._query = query
        self._begun: dict[Path, str] = {}
        """Folder and name of tables whose logs and parts are to be read anew, ..."""
        self._detached: set[str] = set()
        """... and names of those that are detached."""
        self.merges_stopped = False
        """Whether a table that is attached again must be told so."""

    @property
    def unfinished(self) -> bool:
        """Return whether a table is still detached."""
        return bool(self._detached)

    def mend(self) -> int:
        """Mend each table that needs it, and return how many did.

        Raises:
            Exception: The store refuses; the next call goes on with what is left.
            OSError: The disk does not let us.
        """
        mended: set[Path] = set()
        for _ in range(_ROUNDS):
            self._begin()
            if not (self._begun or self._detached):
                break
            try:
                for name in filter(None, self._begun.values()):
                    if name not in self._detached:
                        self._detached.add(name)
                        self._query(f"DETACH TABLE {name} SYNC")
            finally:
                self._attach()
            mended.update(self._begun)
            self._begun.clear()
        return len(mended)

    def _begin(self) -> None:
        """Find what needs mending, and take its lost tokens out of the logs."""
        torn = {} if self._detached else torn_parts(self._query)
        for table in tables(self._store):
            if table in self._begun or table.name in torn or lost_tokens(table):
                if table not in self._begun:
                    self._begun[table] = self._query(_NAME.replace("FOLDER", table.name)).strip()
                forget_lost(table)
            if table.name in torn:
                logger.error("the disk ran full while parts of %s were written: %s are set aside",
                             self._begun[table], sorted(torn[table.name]))

    def _attach(self) -> None:
        """Attach everything that is detached; where one fails the others are there all the same."""
        failed: Exception | None = None
        for name in sorted(self._detached):
            try:
                self._attach_one(name)
            except Exception as error:  # noqa: BLE001 - raised below
                failed = error
            else:
                self._detached.discard(name)
        if failed is not None:
            raise failed

    def _attach_one(self, name: str) -> None:
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                self._query(f"ATTACH TABLE {name}")
            except Exception as error:
                if _IN_USE in str(error):
                    if time.monotonic() < until:
                        time.sleep(_PAUSE_SECONDS)
                        continue
                elif _THERE in str(error):
                    break
                raise
            break
        if self.merges_stopped:
            self._query(f"SYSTEM STOP MERGES {name}")
