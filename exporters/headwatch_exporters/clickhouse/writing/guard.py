"""Keeps an embedded store from writing on a disk that is nearly full: what chDB writes there may be empty (:mod:`.parts`).

Inserts look for themselves (``EmbeddedInserts``); merges run on their own, so they are stopped here, and begin again once there
is room.
"""

from __future__ import annotations

import atexit
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
"""Parts that were merged are kept for six times as long: until then a torn one is found."""
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

    @property
    def unfinished(self) -> bool:
        """Return whether a table is detached, to be mended."""
        ...

    def stop_merges(self) -> None:
        """Stop merges, at once."""
        ...

    def start_merges(self) -> None:
        """Have them begin again."""
        ...

    def torn_since(self, seconds: int) -> bool:
        """Return whether a part was torn that was made from *seconds* (since 1970) on."""
        ...

    def mend(self) -> int:
        """Put right what a full disk has left, and return how many tables had to be."""
        ...


class DiskGuard:
    """The thread that looks at the disk of an embedded store."""

    def __init__(self, folder: Path, min_free_bytes: int, store: Guarded, drop_expired: Callable[[], int]) -> None:
        """*drop_expired* drops what merges would drop because of its age, and returns how many parts."""
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._store = store
        self._drop_expired = drop_expired
        self._due = 0.0
        """When parts are looked at again (monotonic), ..."""
        self._seen = 0
        """... and since when (seconds since 1970)."""
        self.low = False
        """Whether merges are stopped."""
        self._errors: dict[str, str] = {}
        """The last one of each kind of look."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-disk", daemon=True)

    def start(self) -> None:
        """Start the thread, which ends before the process does: chDB waits for ever for one that is stopped within a query."""
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> bool:
        """End the thread; return False where it is still waiting for an insert."""
        atexit.unregister(self.stop)
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        return not self._thread.is_alive()

    def look_at_disk(self) -> None:
        """Stop merges where the disk is nearly full, and have them begin again.

        Raises:
            Exception: The store or the disk does not let us; the next look tries again.
        """
        free = free_bytes(self._folder)
        if free < self._min_free_bytes and not self.low:
            self._store.stop_merges()
            self.low = True
            self._due = 0.0
            logger.error("the store %s is not written to: %d MiB are free on its disk, less than store.min_free_bytes (%d MiB)",
                         self._folder, free // _MIB, self._min_free_bytes // _MIB)
        elif self.low and free >= _ROOM * self._min_free_bytes:
            self._store.start_merges()
            self.low = False
            self._due = 0.0
            logger.warning("the disk of the store %s has room again: it is written to", self._folder)

    def look_at_parts(self) -> None:
        """Mend what is torn, if that is due, and let go of what merges would drop, were they not stopped.

        Raises:
            Exception: The store or the disk does not let us; it is tried again in half a minute.
        """
        if self._store.unfinished:
            self._store.mend()
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _MEND_SECONDS
        started = int(time.time() - _MEND_SECONDS)  # a merge may take its time
        if self._store.torn_since(self._seen):
            self._store.mend()
        self._seen = started
        if self.low:
            self._store.stop_merges()  # a table that was made or attached meanwhile does not know of it
            if dropped := self._drop_expired():
                logger.warning("%d parts of the store %s have reached their age, and make room", dropped, self._folder)

    def _run(self) -> None:
        while True:
            if self._store.is_open:
                for look in (self.look_at_disk, self.look_at_parts):
                    self._try(look)
            if self._stopping.wait(_LOOK_SECONDS):
                return

    def _try(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Exception as error:  # noqa: BLE001 - it is looked at again
            if str(error) != self._errors.get(look.__name__):
                logger.error("the disk of the store %s: %s", self._folder, error)  # noqa: TRY400 - one line
            self._errors[look.__name__] = str(error)
        else:
            self._errors.pop(look.__name__, None)
