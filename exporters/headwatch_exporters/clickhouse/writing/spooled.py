"""The spool before the store: opened as soon as the disk lets us, and emptied by a thread of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from headwatch.errors import SpoolError
from headwatch.health import SpoolHealth
from headwatch_exporters.spool.sender import Sender
from headwatch_exporters.spool.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwatch.config import SpoolConfig
    from headwatch_exporters.spool.losses import Losses
    from headwatch_exporters.spool.record import Batch, Record

logger = logging.getLogger("headwatch.spool")

CLOSE_SECONDS = 5.0
"""What waits is sent for so long at the end; the rest stays on disk for the next start."""


class Spooled:
    """A spool and the thread that empties it.  A disk that is read-only or full is asked again with each record."""

    def __init__(self, config: SpoolConfig, folder: Path, insert: Callable[[Batch], None], losses: Losses) -> None:
        """Open the spool in *folder*, or say why that has to wait.

        Raises:
            SpoolError: Another process has the folder.
        """
        self._config = config
        self._folder = folder
        self._insert = insert
        self._losses = losses
        self._open: tuple[Spool, Sender] | None = None
        self._error = ""
        try:
            self._opened()
        except SpoolError as error:
            if error.reason == "in_use":
                raise
            self._error = str(error)
            logger.error("%s; it is asked again with each delivery", error)  # noqa: TRY400 - one line, at the edge

    def append(self, record: Record) -> None:
        """Keep *record* until the store has it.

        Raises:
            SpoolError: The disk does not take it.
        """
        try:
            spool, _ = self._opened()
            if record.batches:
                spool.append(record)
        except SpoolError as error:
            self._error = str(error)
            raise
        self._error = ""

    def health(self) -> SpoolHealth:
        """Return where spool and sending stand."""
        if self._open is not None:
            return self._open[1].health(self._error)
        losses = self._losses
        return SpoolHealth(
            up=False, last_error=self._error, disk_bytes=0, max_bytes=self._config.max_bytes, records=0, oldest_ns=0,
            sent_records=0, sent_batches=0, sent_rows=0, send_errors=0, errors=dict(losses.errors),
            dropped_batches=dict(losses.batches), dropped_rows=dict(losses.rows), aside_batches=0, last_duration_seconds=0.0,
        )  # fmt: skip

    def rewrite(self, transform: Callable[[Batch], Batch | None]) -> int:
        """Have each batch as *transform* returns it: see :meth:`Spool.rewrite`.

        Raises:
            SpoolError: The disk does not let us.
        """
        return self._opened()[0].rewrite(transform)

    def close(self) -> bool:
        """Send for a while, and let go of the folder; return False where an insert hangs, and has it."""
        if self._open is None:
            return True
        spool, sender = self._open
        ended = sender.stop(CLOSE_SECONDS)
        if spool.waiting:
            logger.warning("%d deliveries wait in the spool %s for the next start", spool.waiting, self._folder)
        if ended:
            spool.close()
        return ended

    def _opened(self) -> tuple[Spool, Sender]:
        if self._open is None:
            fsync_seconds = self._config.fsync_seconds if self._config.fsync == "interval" else 0.0
            spool = Spool(self._folder, self._config.max_bytes, fsync_seconds=fsync_seconds, losses=self._losses)
            self._open = spool, Sender(spool, self._insert)
            self._open[1].start()
        return self._open
