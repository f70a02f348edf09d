"""What a start could not read and passed by: tried before, it is not sent later; never tried, it is delivered."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from headwatch.errors import SpoolError
from headwatch_exporters.spool import segments
from headwatch_exporters.spool.aside import listed

from .bad_disk import RECORDS, SECTOR, Disk, files, opened
from .records import SECOND, record, send, waiting

CHANGES = [(os, "pwrite"), (os, "fsync"), (os, "fdatasync"), (os, "ftruncate"), (Path, "replace"), (Path, "unlink"),
           (Path, "write_bytes")]


def break_header(disk: Disk, name: str) -> None:
    disk.bad = {name: range(SECTOR)}


def break_file(disk: Disk, name: str) -> None:
    disk.unopened = name


HOW = pytest.mark.parametrize("fail", [break_header, break_file])


def aside(folder: Path) -> list[str]:
    return [note.reason for _, note in listed(folder / "poison")]


@HOW
def test_what_was_tried_and_passed_by_is_not_sent_after_others(folder, disk, fail):
    """A store that knows the last 1,000 tokens would double it.  What nobody tried is delivered, in order."""
    spool = opened(folder)
    assert spool.take("backlog").record.time_ns == 0, "the store takes it, and a kill comes before that is noted"
    spool.close()
    fail(disk, files(folder)[0])
    spool = opened(folder)
    sent = send(spool, "backlog")
    for number in range(100, 1300):
        spool.append(record(number))
        sent += send(spool, "live")
    spool.close()
    disk.mend()
    spool = opened(folder)
    assert spool.losses.batches == {"corrupt:": 1}
    assert [reason.split(":")[0] for reason in aside(folder)] == ["it was tried, and could not be read at its turn"]
    left = send(spool, "backlog")
    assert left == sorted(left)
    assert sorted(sent + left) == [*range(1, RECORDS), *range(100, 1300)]
    assert not list(folder.glob("*.passed*")), "the note goes with its segment"
    spool.close()


@HOW
def test_it_is_noted_until_the_disk_reads_it_however_many_starts_that_takes(folder, disk, fail):
    spool = opened(folder)
    spool.take("backlog")
    spool.close()
    fail(disk, files(folder)[0])
    for _ in range(3):
        spool = opened(folder)
        assert [path.stat().st_size < 1000 for path in folder.glob("*.passed*")] == [True], "and takes little room"
        spool.close()
    disk.mend()
    spool = opened(folder)
    assert waiting(spool) == list(range(1, RECORDS))
    assert not list(folder.glob("*.passed*")), "nothing is passed by now"
    spool.close()


@HOW
def test_what_is_tried_after_it_was_passed_by_is_sent_again(folder, disk, fail):
    """The note holds for tries before it, and for what could not be read."""
    spool = opened(folder)
    spool.close()
    name = files(folder)[0]
    fail(disk, name)
    spool = opened(folder)
    tried = spool.take("backlog").record.time_ns // SECOND
    spool.close()
    spool = opened(folder)
    assert spool.take("backlog").record.time_ns // SECOND == tried, "its header was read all the time"
    spool.close()
    disk.mend()
    spool = opened(folder)
    assert waiting(spool) == list(range(RECORDS))
    assert send(spool, "backlog", 1) == [tried]
    assert spool.take("backlog").record.time_ns == 0
    spool.close()
    assert send(opened(folder), "backlog") == [one for one in range(RECORDS) if one != tried]


def test_what_can_be_marked_neither_is_noted(folder, disk):
    """A sector that cannot be read takes no part of a page either."""
    spool = opened(folder)
    spool.take("backlog")
    break_header(disk, files(folder)[0])
    disk.writes = False
    assert send(spool, "backlog")[0] == 1
    spool.close()
    disk.mend()
    assert waiting(opened(folder)) == []


@HOW
def test_a_rewrite_takes_the_note_along(folder, disk, fail):
    fail(disk, files(folder)[0])
    spool = opened(folder)
    assert list(folder.glob("*.passed"))
    disk.mend()  # what is written anew lies elsewhere
    spool.rewrite(lambda one: one)
    assert not list(folder.glob("*.passed"))
    spool.close()


@HOW
def test_where_nothing_can_be_noted_nothing_is_delivered(folder, disk, monkeypatch, fail):
    fail(disk, files(folder)[0])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(SpoolError, match="No space left") as caught:
            opened(folder)
    assert caught.value.reason == "no_space"
    spool = opened(folder)
    assert [path.suffix for path in folder.glob("*.passed*")] == [".passed"], "nothing is left of the attempt"
    spool.close()


class Killed(BaseException):
    """In place of a kill: nothing that comes after it is done."""


@HOW
@pytest.mark.parametrize("mends", [False, True])
def test_a_kill_at_any_step_of_noting_doubles_nothing_and_loses_nothing_else(tmp_path, folder, disk, monkeypatch, fail, mends):
    """At each call that changes something on disk while it is noted, and while what was noted is given up."""
    spool = opened(folder)
    spool.take("backlog")
    spool.close()
    fail(disk, files(folder)[0])
    if mends:
        opened(folder).close()
        disk.mend()
    steps = 0
    calls = {(place, name): getattr(place, name) for place, name in CHANGES}
    while True:
        copy = tmp_path / f"copy{steps}"
        shutil.copytree(folder, copy)
        left = iter(range(steps))

        def step(call, left=left):
            def before(*arguments, **named):
                if next(left, None) is None:
                    raise Killed
                return call(*arguments, **named)

            return before

        with monkeypatch.context() as patch:
            for (place, name), call in calls.items():
                patch.setattr(place, name, step(call))
            try:
                spool = opened(copy)
            except Killed:
                spool = None
        if spool is not None:
            spool.close()
            break
        steps += 1
        copy = shutil.copytree(copy, tmp_path / f"found{steps}")  # the lock of the other would go with its process
        spool = opened(copy)
        sent = send(spool, "backlog")
        spool.close()
        disk_was = disk.bad, disk.unopened
        disk.mend()
        spool = opened(copy)
        assert sorted(sent + send(spool, "backlog")) == list(range(1, RECORDS)), steps
        assert not list(copy.glob("*.passed*"))
        spool.close()
        disk.bad, disk.unopened = disk_was
    assert steps >= 3


def test_a_kill_while_a_segment_is_written_anew_loses_nothing(folder, disk, monkeypatch):
    """The note of the old file says nothing of the new one, in which what was tried lies where the old one was not read."""
    break_header(disk, files(folder)[0])
    spool = opened(folder)
    there = waiting(spool)
    spool.take("backlog")

    def killed(_: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(segments, "forget", killed)
        with pytest.raises(Killed):
            spool.rewrite(lambda one: one)
    spool.close()
    disk.mend()
    assert list(folder.glob("*.passed")), "it is still there"
    spool = opened(folder)
    assert waiting(spool) == there
    assert not list(folder.glob("*.passed"))
    spool.close()


def test_a_note_that_cannot_be_read_or_of_no_segment(folder, disk):
    """The first stands for the whole file, the second for nothing."""
    spool = opened(folder)
    spool.take("backlog")
    spool.close()
    (folder / files(folder)[0]).with_suffix(".passed").write_bytes(b"\xff{")
    (folder / "00000000000000000099.passed").write_bytes(b"{}")
    (folder / "00000000000000000001.passed.tmp").write_bytes(b"{}")
    spool = opened(folder)
    assert waiting(spool) == list(range(1, RECORDS))
    assert not list(folder.glob("*.passed*"))
