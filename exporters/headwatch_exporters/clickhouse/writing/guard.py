"""Keeps an embedded store from writing on a disk that is nearly full: what chDB writes there may be empty (:mod:`.parts`).

Inserts look for themselves (``EmbeddedInserts``); merges run on their own, so they are stopped here, and begin again once there
is room.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("headwatch.store")

_MIB = 1 << 20
_LOOK_SECONDS = 0.25
_MEND_SECONDS = 30.0
"""Parts that were merged are kept for eight minutes: until then a torn one is found."""
_ROOM = 1.25
"""Merges begin again with so many times the free space, so that they do not stop at once."""
_MIN_INODES = 1024


def free_bytes(path: str | Path) -> int:
    """Return what may be written on the disk of *path*; 0 where hardly a file can be made.

    Raises:
        OSError: It cannot be asked.
    """
    disk = os.statvfs(path)
    if disk.f_files and disk.f_favail < _MIN_INODES:
        return 0
    return disk.f_bavail * disk.f_frsize


class Guarded(Protocol):
    """An embedded store."""

    def allow_merges(self, *, allowed: bool) -> None:
        """Have merges begin, or stop; at once, whatever else is asked of the store."""
        ...

    def mend(self) -> int:
        """Put right what a full disk has left, and return how many tables had to be."""
        ...


class DiskGuard:
    """The thread that looks at the disk of an embedded store."""

    def __init__(self, folder: Path, min_free_bytes: int, store: Guarded) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._store = store
        self._mended = 0.0
        self.low = False
        """Whether merges are stopped."""
        self._error = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-disk", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look once, and do what is to be done.

        Raises:
            Exception: The store or the disk does not let us; the next call tries again.
        """
        free = free_bytes(self._folder)
        if free < self._min_free_bytes:
            if not self.low or time.monotonic() > self._mended + _MEND_SECONDS:
                self._hold(free)
        elif self.low and free >= _ROOM * self._min_free_bytes:
            self._store.mend()
            self._store.allow_merges(allowed=True)
            self.low = False
            logger.warning("the disk of the store %s has room again: it is written to", self._folder)

    def _hold(self, free: int) -> None:
        self._store.allow_merges(allowed=False)
        if not self.low:
            logger.error("the store %s is not written to: %d MiB are free on its disk, less than store.min_free_bytes (%d MiB)",
                         self._folder, free // _MIB, self._min_free_bytes // _MIB)
        self.low = True
        if self._store.mend():
            self._store.allow_merges(allowed=False)  # a table that was attached again does not know of the first
        self._mended = time.monotonic()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - it is looked at again
                if str(error) != self._error:
                    logger.error("the disk of the store %s: %s", self._folder, error)  # noqa: TRY400 - one line
                self._error = str(error)
            else:
                self._error = ""
            if self._stopping.wait(_LOOK_SECONDS):
                return
