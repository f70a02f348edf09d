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


def test_a_link_stays_and_files_are_put_aside_where_it_leads(path: Path, clock: Clock) -> None:
    target = path.parent / "volume" / "real.jsonl"
    path.parent.mkdir()
    path.symlink_to(target)
    file = opened(path, clock, max_bytes=1)
    for name in ("first", "second", "third"):
        clock.write(file, name)
    file.close()
    assert path.is_symlink()
    assert [one.name for one in path.parent.iterdir() if one.is_file()] == ["lines.jsonl"]
    assert {one.name: names(one) for one in target.parent.iterdir()} == {
        "real.jsonl": ["third"], "real.jsonl.1": ["second"], "real.jsonl.2": ["first"],
    }  # fmt: skip


def test_files_beyond_those_that_are_kept_go_and_other_peoples_stay(path: Path, clock: Clock) -> None:
    path.parent.mkdir()
    for ending in ("1", "2", "3", "40", "20261130", "old", "old.7", "05"):
        path.with_name(f"lines.jsonl.{ending}").write_text("{}\n")
    file = opened(path, clock, files=2)
    left = {one.name.removeprefix("lines.jsonl") for one in path.parent.iterdir()}
    assert left == {"", ".1", ".20261130", ".old", ".old.7", ".05"}
    path.with_name("lines.jsonl.3").write_text("{}\n")
    clock.write(file, "old")
    clock.now += 11 * DAY
    clock.write(file, "new")
    assert not path.with_name("lines.jsonl.3").exists(), "also when the next one is put aside"
    file.close()


@pytest.mark.parametrize("when", ["opened", "found"])
def test_a_line_that_was_cut_short_stays_a_line_of_its_own(path: Path, clock: Clock, when: str) -> None:
    path.parent.mkdir()
    torn = b'{"time_ns": 1800000000000000000}\n{"name": "to'
    if when == "opened":
        path.write_bytes(torn)
    file = opened(path, clock)
    if when == "found":
        path.unlink()
        path.write_bytes(torn)
    file.append(b'{"name": "next"}\n')
    file.append(b'{"name": "last"}\n')
    assert path.read_bytes() == torn + b'\n{"name": "next"}\n{"name": "last"}\n'
    file.close()


@pytest.mark.parametrize("planted", ["file", "link"])
def test_nobody_can_lay_down_the_file_that_comes_next(path: Path, clock: Clock, planted: str) -> None:
    file = opened(path, clock, max_bytes=1)
    theirs = path.with_name("theirs")
    theirs.touch()
    theirs.chmod(0o666)
    new = path.with_name("lines.jsonl.new")
    if planted == "link":
        new.symlink_to(theirs)
    else:
        os.link(theirs, new)
    clock.write(file, "first")
    clock.write(file, "second")
    assert names(path) == ["second"]
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert theirs.read_bytes() == b""
    file.close()
