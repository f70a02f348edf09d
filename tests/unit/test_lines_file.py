"""A file of lines is put aside by size and age, and is found again where somebody moved it."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest

from headwatch_exporters.lines_file import LinesFile

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400


class Clock:
    """A clock that is set by hand; files that are written get its time."""

    def __init__(self, path: Path) -> None:
        self.now = 1_800_000_000.0
        self._path = path

    def __call__(self) -> float:
        return self.now

    def write(self, file: LinesFile, name: str) -> None:
        file.append(json.dumps({"time_ns": int(self.now * 1e9), "name": name}).encode() + b"\n")
        os.utime(self._path, (self.now, self.now))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "lines.jsonl"


@pytest.fixture
def clock(path: Path) -> Clock:
    return Clock(path)


def opened(path: Path, clock: Clock, *, max_bytes: int = 1 << 20, files: int = 3, days: int = 10) -> LinesFile:
    return LinesFile(str(path), max_bytes, files, days, clock)


def names(path: Path) -> list[str]:
    return [json.loads(line)["name"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
def test_what_is_written_after_somebody_moved_the_file_is_at_its_path(path: Path, clock: Clock, how: str) -> None:
    file = opened(path, clock)
    clock.write(file, "before")
    aside = path.with_name("lines.jsonl-20261130")
    if how == "deleted":
        path.unlink()
    else:
        path.rename(aside)
    if how == "replaced":
        path.touch(0o600)
    file.append(b'{"name": "after"}\n')
    assert names(path) == ["after"]
    assert path.stat().st_mode & 0o777 == 0o600
    if how != "deleted":
        assert names(aside) == ["before"]
    file.close()


def test_a_file_that_was_copied_and_emptied_goes_on_at_its_beginning(path: Path, clock: Clock) -> None:
    file = opened(path, clock)
    clock.write(file, "before")
    os.truncate(path, 0)
    file.append(b'{"name": "after"}\n')
    assert path.read_bytes() == b'{"name": "after"}\n'
    file.close()


def test_a_line_is_kept_for_at_most_twice_the_age(path: Path, clock: Clock) -> None:
    file = opened(path, clock)
    clock.write(file, "first")
    clock.now += 9 * DAY
    clock.write(file, "ninth day")
    file.close()
    file = opened(path, clock)  # the age is that of its first line, also after a restart
    clock.now += 2 * DAY
    clock.write(file, "eleventh day")
    assert names(path) == ["eleventh day"]
    assert names(path.with_name("lines.jsonl.1")) == ["first", "ninth day"]
    clock.now += 9 * DAY
    file.expire()
    assert not path.with_name("lines.jsonl.1").exists(), "its last line is eleven days old"
    assert names(path) == ["eleventh day"]
    clock.now += 3 * DAY
    file.expire()
    assert path.read_bytes() == b"", "also where nothing is written any more"
    file.close()


def test_a_line_that_says_no_time_is_as_old_as_the_file(path: Path, clock: Clock) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no JSON\n")
    os.utime(path, (clock.now - 11 * DAY,) * 2)
    file = opened(path, clock)
    clock.write(file, "new")
    assert names(path) == ["new"]
    file.close()


def test_a_device_that_is_full_is_the_error_that_it_is(clock: Clock) -> None:
    file = LinesFile("/dev/full", 1 << 20, 3, 10, clock)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as raised:
            file.append(b"{}\n")
        assert raised.value.errno == errno.ENOSPC
    file.close()
