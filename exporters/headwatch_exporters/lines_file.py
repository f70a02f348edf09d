"""A file of JSON lines that is only ever appended to: put aside at a size or an age, opened anew where somebody moved it.

Lines that are given together are appended whole or not at all, so that whoever gives them again writes them once.  A file that
would pass its size, or whose first line is too old, becomes ``PATH.1``, ``PATH.1`` becomes ``PATH.2``, and so on; the last one,
and those whose last line is too old, are deleted, also where more files were kept before.  So a line is kept for at most twice
the age.  Where the path is a link, all of this is done where the link leads when the file is opened.

logrotate, or a person, may move or delete the file at any time: before each write the file at the path is held against the one
that is open.  A line that a kill cut short stays a line of its own.  Cost: a ``stat`` of each file a write.
"""

from __future__ import annotations

import glob
import os
import re
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

_DAY_SECONDS = 86_400.0
_FIRST_LINE_BYTES = 1 << 20
_NUMBER = re.compile("[1-9][0-9]{0,2}")
"""What a file that was put aside ends in; longer ones are dates, and somebody else's."""


class _Stamp(msgspec.Struct, frozen=True):
    """What a line says of when it was written."""

    time: str = ""
    time_ns: int = 0


class LinesFile:
    """The file.  The caller sees to it that one thread appends at a time.  Every method may raise ``OSError``."""

    def __init__(self, path: str, max_bytes: int, files: int, days: int, clock: Callable[[], float] = time.time) -> None:
        """Open the file, or make it (0600); of *files* the current one is one."""
        self._path = real_path(path)
        self._max_bytes, self._days_seconds = max_bytes, days * _DAY_SECONDS
        self._clock = clock
        self._kept = [self._path, *(self._beside(str(number)) for number in range(1, files))]
        self._file = _open(self._path)
        self._began, self._torn = self._first_time(), self._is_torn()
        self._delete_beyond()

    def append(self, lines: bytes) -> None:
        """Write *lines*, or nothing of them."""
        self.expire()
        size = os.fstat(self._file).st_size
        if size and size + len(lines) > self._max_bytes:
            self._rotate()
            size = 0
        if not size:
            self._began = self._clock()
        elif self._torn:
            lines = b"\n" + lines
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._file, lines[written:])
        except OSError:
            with suppress(OSError):  # a device has no length
                os.ftruncate(self._file, size)
            self._torn = self._is_torn()
            raise
        self._torn = False

    def expire(self) -> None:
        """Put the file aside and delete others where they are too old; to be called now and then where nothing is written."""
        self._follow()
        oldest = self._clock() - self._days_seconds
        if self._began < oldest and os.fstat(self._file).st_size:
            self._rotate()
        for path in self._kept[1:]:
            with suppress(OSError):  # it is not there; or tried again with the next line
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _follow(self) -> None:
        """Open the file at the path where it is no longer the one that is open."""
        mine = os.fstat(self._file)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            fresh = _open(self._path)
            os.close(self._file)
            self._file = fresh
            self._began, self._torn = self._first_time(), self._is_torn()

    def _rotate(self) -> None:
        unfinished = self._beside("new")
        unfinished.unlink(missing_ok=True)
        fresh = _open(unfinished, os.O_EXCL | os.O_NOFOLLOW)  # first: what cannot be opened must cost no file
        for older, newer in zip(reversed(self._kept[1:]), reversed(self._kept[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        unfinished.replace(self._path)
        os.close(self._file)
        self._file, self._began, self._torn = fresh, self._clock(), False
        self._delete_beyond()

    def _delete_beyond(self) -> None:
        """Delete what was put aside when more files were kept."""
        beside = self._path.name + "."
        for path in self._path.parent.glob(f"{glob.escape(beside)}*"):
            if path not in self._kept and _NUMBER.fullmatch(path.name.removeprefix(beside)):
                with suppress(OSError):  # tried again when the next one is put aside
                    path.unlink()

    def _is_torn(self) -> bool:
        """Return whether the last line has no end."""
        if not self._path.is_file():
            return False
        with self._path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - 1, 0))
            return stream.read(1) not in {b"", b"\n"}

    def _first_time(self) -> float:
        """Return when the first line was written, in seconds since 1970; of an empty file, now."""
        line = b""
        if self._path.is_file():
            with self._path.open("rb") as stream:
                line = stream.readline(_FIRST_LINE_BYTES)
        if not line:
            return self._clock()
        with suppress(msgspec.MsgspecError, ValueError):
            stamp = msgspec.json.decode(line, type=_Stamp)
            return datetime.fromisoformat(stamp.time).timestamp() if stamp.time else stamp.time_ns / 1e9
        return self._path.stat().st_mtime

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{ending}")


def real_path(path: str | Path) -> Path:
    """Return where the file at *path* lies, whatever links lead there; a pipe or a device has no other path."""
    real = Path(os.path.realpath(path))
    return Path(path) if Path(path).exists() and not real.is_file() else real


def _open(path: Path, flags: int = 0) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
