"""What was given up or failed, counted: nothing leaves the spool unseen."""

from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch_exporters.spool.record import Batch

UNREADABLE = ""
"""The table of what could not be read any more."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class Losses:
    """Counts since the process started.

    Reasons of what was given up: ``full`` (the oldest made room), ``corrupt`` (it cannot be read, or could not at its turn),
    ``aside_full`` (what was set aside longest made room), ``encode`` (it cannot be written as the table has it).
    """

    def __init__(self) -> None:
        self.batches: Counter[str] = Counter()
        """By ``reason:table``."""
        self.rows: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        """By reason: attempts that failed."""

    def batch(self, reason: str, table: str, rows: int) -> None:
        """Count a batch that was given up."""
        self.batches[f"{reason}:{table}"] += 1
        self.rows[f"{reason}:{table}"] += rows

    def dropped(self, reason: str, batches: tuple[Batch, ...]) -> None:
        """Count *batches*, which were given up."""
        for batch in batches:
            self.batch(reason, batch.table, batch.rows)


def reason_of(error: OSError) -> str:
    """Return the word for *error*: ``no_space``, ``read_only`` or ``io``."""
    if error.errno in _NO_SPACE:
        return "no_space"
    return "read_only" if error.errno in _READ_ONLY else "io"
