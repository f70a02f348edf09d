"""A disk with sectors that cannot be read, under a spool of two segments."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch_exporters.spool.spool import Spool

if TYPE_CHECKING:
    import pytest

MIB = 1 << 20
SECTOR = 4096
RECORDS = 6


class Disk:
    """Sectors that cannot be read, by the name of their file.

    A read that meets one fails; where *short*, as Linux has it, only if it begins there, and returns what lies before if not.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, short: bool) -> None:
        self.bad: dict[str, range] = {}
        self.refused = 0
        self.writes = True
        """Whether bad sectors can be written."""
        self._short = short
        self._pread, self._pwrite, self._open = os.pread, os.pwrite, os.open
        self.unopened = ""
        monkeypatch.setattr(os, "pread", self.pread)
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(os, "open", self.open)

    def pread(self, file: int, size: int, offset: int) -> bytes:
        bad = self._bad(file, size, offset)
        if bad and self._short and offset < bad.start:
            return self._pread(file, bad.start - offset, offset)
        if bad:
            self.refused += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._pread(file, size, offset)

    def pwrite(self, file: int, data: bytes, offset: int) -> int:
        if not self.writes and self._bad(file, len(data), offset):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._pwrite(file, data, offset)

    def open(self, path: str | Path, *more, **named) -> int:
        if self.unopened and Path(path).name == self.unopened:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._open(path, *more, **named)

    def mend(self) -> None:
        self.bad, self.unopened, self.writes = {}, "", True

    def _bad(self, file: int, size: int, offset: int) -> range:
        bad = self.bad.get(Path(f"/proc/self/fd/{file}").readlink().name, range(0))
        return bad if size and bad.start < offset + size and offset < bad.stop else range(0)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.seg"))


def opened(folder: Path) -> Spool:
    return Spool(folder, MIB)
