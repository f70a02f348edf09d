"""What is ordered, kept over a restart of the sidecar: one small file, replaced whole.

Time limits are kept as the seconds that were left, with the clock's time: the next life takes the time between off, and
never leaves more than there was, so a clock that was set back in between cannot prolong anything beyond that.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import msgspec

from headwatch.control.orders import Orders

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("headwatch.control")

_VERSION = 1


class Saved(msgspec.Struct, frozen=True):
    """The content of the file."""

    epoch: int = 0
    orders: Orders = Orders()
    left: dict[int, float] = {}
    """Epoch in which a time limit was ordered, to the seconds that were left."""
    saved_ns: int = 0
    version: int = _VERSION

    def left_at(self, now_ns: int) -> dict[int, float]:
        """Return the seconds that are left when the clock shows *now_ns*."""
        passed = max(0.0, (now_ns - self.saved_ns) / 1e9)
        return {number: max(0.0, self.left.get(number, 0.0) - passed) for number in self.orders.limits}


class StateFile:
    """Keeps :class:`Saved` in *path*.  Written in two steps, so that the audit can come between."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = path.with_name(path.name + ".new")

    def load(self) -> Saved:
        """Return what was saved; the empty state where there is none or it cannot be read, which is logged."""
        try:
            saved = msgspec.json.decode(self.path.read_bytes(), type=Saved)
        except FileNotFoundError:
            return Saved()
        except (OSError, msgspec.MsgspecError) as error:
            logger.error("cannot read %s, so live control starts without orders: %s", self.path, error)  # noqa: TRY400
            return Saved()
        if saved.version != _VERSION:
            logger.error("%s has version %d, not %d; live control starts without orders", self.path, saved.version, _VERSION)
            return Saved()
        return saved

    def write(self, saved: Saved) -> None:
        """Write *saved* beside the file, safely on the disk.

        Raises:
            OSError: It cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(saved), indent=2) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def commit(self) -> None:
        """Put what was written last in the file's place.

        Raises:
            OSError: It cannot be replaced.
        """
        self._new.replace(self.path)
