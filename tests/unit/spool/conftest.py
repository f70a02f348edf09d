"""What the tests of bad disks share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from headwatch_exporters.spool.spool import Spool

from .bad_disk import MIB, RECORDS, SECTOR, Disk
from .records import batch, record

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["fails", "short"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch, short=request.param == "short")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spool of two segments; each record lies on two or three sectors."""
    folder = tmp_path / "spool"
    spool = Spool(folder, MIB)
    for number in range(RECORDS):
        spool.append(record(number, batch(f"a{number}", content=os.urandom(2 * SECTOR))))
    spool.close()
    return folder
