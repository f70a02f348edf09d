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
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger("headwatch.store")

_MIB = 1 << 20
_LOOK_SECONDS = 0.25
_MEND_SECONDS = 30.0
"""Parts that were merged are kept for eight minutes: until then a torn one is found."""
_DROP_SECONDS = 300.0
"""To see which parts have reached their age, their times are read."""
_STOP_SECONDS = 5.0
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

    @property
    def is_open(self) -> bool:
        """Return whether somebody has opened it."""
        ...

    def allow_merges(self, *, allowed: bool) -> None:
        """Have merges begin, or stop."""
        ...

    def torn_since(self, since_ns: int) -> bool:
        """Return whether a part was torn that was made from *since_ns* on."""
        ...

    def mend(self) -> int:
        """Put right what a full disk has left, and return how many tables had to be."""
        ...


class DiskGuard:
    """The thread that looks at the disk of an embedded store."""

    def __init__(self, folder: Path, min_free_bytes: int, store: Guarded, drop_expired: Callable[[], int]) -> None:
        """*drop_expired* drops what merges would drop because of its age, and returns how many parts."""
        self._drop_expired = drop_expired
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._store = store
        self._due = 0.0
        """When parts are looked at again (monotonic), ..."""
        self._seen_ns = 0
        """... and since when."""
        self._drop_due = 0.0
        """When parts that have reached their age are dropped again (monotonic)."""
        self.low = False
        """Whether merges are stopped."""
        self._error = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-disk", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> bool:
        """End the thread; return False where it is still waiting for an insert."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        return not self._thread.is_alive()

    def look(self) -> None:
        """Look once, and do what is to be done.

        Raises:
            Exception: The store or the disk does not let us; it is tried again in half a minute.
        """
        if not self._store.is_open:
            return
        free = free_bytes(self._folder)
        if free < self._min_free_bytes and not self.low:
            self._hold(free)
        elif self.low and free >= _ROOM * self._min_free_bytes:
            self._store.mend()
            self._store.allow_merges(allowed=True)
            self.low = False
            logger.warning("the disk of the store %s has room again: it is written to", self._folder)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _MEND_SECONDS
            self._look_at_parts()

    def _hold(self, free: int) -> None:
        self._store.allow_merges(allowed=False)
        self.low = True
        self._due = 0.0
        logger.error("the store %s is not written to: %d MiB are free on its disk, less than store.min_free_bytes (%d MiB)",
                     self._folder, free // _MIB, self._min_free_bytes // _MIB)

    def _look_at_parts(self) -> None:
        """Mend what is torn, and let go of what merges would drop, were they not stopped."""
        started_ns = time.time_ns() - int(_MEND_SECONDS * 1e9)  # a merge may take its time
        if self._store.torn_since(self._seen_ns):
            self._store.mend()
        self._seen_ns = started_ns
        if self.low and time.monotonic() >= self._drop_due:
            self._drop_due = time.monotonic() + _DROP_SECONDS
            if dropped := self._drop_expired():
                logger.warning("%d parts of the store %s have reached their age, and make room", dropped, self._folder)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - it is looked at again
                if str(error) != self._error:
                    logger.error("the disk of the store %s: %s", self._folder, error)  # noqa: TRY400 - one line
                self._error = str(error)
                if self._stopping.wait(_MEND_SECONDS):
                    return
            else:
                self._error = ""
            if self._stopping.wait(_LOOK_SECONDS):
                return
