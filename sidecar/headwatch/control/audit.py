"""Who changed what, when: a file of JSON lines that is only ever appended to, and that has a cap.

At the cap the file becomes the previous one and a new one begins, so between one and two caps of the latest entries are
kept.  An entry is on the disk before its change is in force.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 4 * 1024 * 1024


class AuditEntry(msgspec.Struct, frozen=True):
    """One change."""

    time: str
    """ISO 8601, UTC, by the sidecar's clock."""
    who: str
    action: str
    epoch: int
    why: str
    old: dict[str, Any]
    """What the change replaced, by dotted name; null: nothing was ordered."""
    new: dict[str, Any]


class AuditLog:
    """The file *path* and the previous one, ``<path>.1``.  The caller sees to it that one thread appends at a time."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._previous = path.with_name(path.name + ".1")
        self._max_bytes = max_bytes

    def append(self, entry: AuditEntry) -> None:
        """Write *entry*, safely on the disk.

        Raises:
            OSError: It cannot be written.
        """
        line = msgspec.json.encode(entry) + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size + len(line) > self._max_bytes:
            self.path.replace(self._previous)
        number = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            written = os.write(number, line)
            os.fsync(number)
        finally:
            os.close(number)
        if written < len(line):
            raise OSError(28, f"only {written} of {len(line)} bytes could be written", str(self.path))

    def latest(self, limit: int) -> list[AuditEntry]:
        """Return the last *limit* entries, newest first; lines that are none (a write cut short) are passed over."""
        found: deque[AuditEntry] = deque(maxlen=limit)
        for path in (self._previous, self.path):
            try:
                with path.open("rb") as stream:
                    found.extend(filter(None, map(_entry, stream)))
            except OSError:
                continue
        return list(reversed(found))


def _entry(line: bytes) -> AuditEntry | None:
    try:
        return msgspec.json.decode(line, type=AuditEntry)
    except msgspec.MsgspecError:
        return None
