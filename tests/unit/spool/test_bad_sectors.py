"""A disk that cannot read a stretch of the spool costs the records on it, and a disk that is slow nobody's figures."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from headwatch_exporters.spool import segment
from headwatch_exporters.spool.sender import Sender
from headwatch_exporters.spool.spool import Spool

from ...programs import wait_for
from .bad_disk import MIB, RECORDS, SECTOR, files, opened
from .records import SECOND, batch, record, send, waiting


@pytest.mark.parametrize("start", [0, SECTOR, 5 * SECTOR])
def test_a_sector_that_cannot_be_read_at_the_start_costs_the_records_on_it(folder, disk, caplog, start):
    name = files(folder)[0]
    before = (folder / name).stat().st_size
    disk.bad = {name: range(start, start + SECTOR)}
    with caplog.at_level(logging.ERROR, "headwatch.spool"):
        spool = opened(folder)
        sent = send(spool, "backlog")
    lost = sorted(set(range(RECORDS)) - set(sent))
    assert 1 <= len(lost) <= 2, "those on that sector"
    assert sent == sorted(sent)
    assert spool.losses.batches == {"corrupt:": len(lost)}
    assert spool.losses.errors["io"] >= 1
    assert spool.waiting == 0
    assert any(f"{folder}/{name}" in line and "Input/output error" in line for line in caplog.messages)
    assert (folder / name).stat().st_size == before, "the file stays: the disk may read it again"
    spool.append(record(100))
    assert send(spool, "live") == [100]
    spool.close()
    disk.bad = {}
    assert send(opened(folder), "backlog") == lost, "once it can be read, what was left out comes"
    assert [(folder / one).stat().st_size for one in files(folder)] == [8], "and nothing is kept"


def test_a_whole_file_that_cannot_be_read_stops_nothing(folder, disk):
    spool = opened(folder)
    spool.append(record(50))
    spool.close()
    last = files(folder)[-1]
    disk.bad = {last: range(MIB)}
    spool = opened(folder)
    lost = set(range(RECORDS)) | {50}
    lost -= set(waiting(spool))
    assert lost
    spool.append(record(60))
    spool.close()
    disk.bad = {}
    assert set(waiting(opened(folder))) == {*range(RECORDS), 50, 60}, "nothing was appended to it, and nothing cut off"


def test_a_file_that_cannot_be_opened_is_left_where_it_is(folder, disk):
    first = files(folder)[0]
    disk.unopened = first
    spool = opened(folder)
    assert spool.losses.errors["io"] == 1
    assert spool.losses.batches == {"corrupt:": 1}
    there = waiting(spool)
    spool.append(record(60))
    assert send(spool, "backlog") + send(spool, "live") == [*there, 60]
    spool.close()
    disk.unopened = ""
    assert send(opened(folder), "backlog") == sorted(set(range(RECORDS)) - set(there))


def test_a_rewrite_leaves_nothing_that_cannot_be_read(folder, disk):
    """Nobody could say whether what is to go is in it."""
    first, second = files(folder)
    disk.bad, disk.unopened = {first: range(MIB)}, second
    spool = opened(folder)
    spool.append(record(70))
    spool.rewrite(lambda one: one)
    spool.close()
    disk.bad, disk.unopened = {}, ""
    assert waiting(opened(folder)) == [70]


def test_what_cannot_be_read_makes_room_like_all_that_is_old(folder, disk):
    name = files(folder)[0]
    disk.bad = {name: range(MIB)}
    spool = opened(folder)
    for number in range(100, 250):
        spool.append(record(number, batch(f"b{number}", content=os.urandom(2 * SECTOR))))
    assert name not in files(folder)
    assert not list(folder.glob("*.passed"))
    assert sum(path.stat().st_size for path in folder.glob("*.seg")) <= MIB
    spool.close()


def test_a_record_that_can_no_longer_be_read_does_not_hold_up_the_others(folder, disk):
    """The disk fails while the spool is open."""
    spool = opened(folder)
    name = files(folder)[0]
    disk.bad = {name: range(SECTOR, 2 * SECTOR)}
    sent = send(spool, "backlog")
    assert sent == list(range(1, RECORDS))
    assert (spool.waiting, spool.losses.batches) == (0, {"corrupt:": 1})
    spool.close()
    disk.bad = {}
    assert send(opened(folder), "backlog") == [0]


def test_what_was_tried_and_cannot_be_read_is_not_sent_later(folder, disk):
    """By then the store may have forgotten its token."""
    spool = opened(folder)
    assert spool.take("backlog") is not None
    disk.bad = {files(folder)[0]: range(SECTOR, 2 * SECTOR)}
    assert send(spool, "backlog") == list(range(1, RECORDS))
    spool.close()
    disk.bad = {}
    assert waiting(opened(folder)) == []


def test_a_disk_that_reads_nothing_is_not_asked_for_each_sector(tmp_path, disk):
    """Each refusal may take a disk half a minute."""
    (tmp_path / "00000000000000000001.seg").write_bytes(bytes(16 * MIB))
    disk.bad = {"00000000000000000001.seg": range(16 * MIB)}
    spool = Spool(tmp_path, 64 * MIB)
    assert disk.refused <= 2 * segment.MAX_REFUSALS
    spool.close()


def test_figures_do_not_wait_for_the_disk(tmp_path, monkeypatch):
    """A disk on which a flush takes long holds up what is spooled, and neither /metrics nor /healthz."""
    spool = Spool(tmp_path / "spool", MIB)
    spool.append(record(7))
    before = spool.disk_bytes
    slow, goes_on, real = threading.Event(), threading.Event(), os.fdatasync

    def sync(file: int) -> None:
        slow.set()
        assert goes_on.wait(20)
        real(file)

    monkeypatch.setattr(os, "fdatasync", sync)
    writer = threading.Thread(target=spool.append, args=(record(8),))
    writer.start()
    assert slow.wait(10)
    found = []
    reader = threading.Thread(target=lambda: found.append(Sender(spool, lambda _: None).health()))
    reader.start()
    reader.join(5)
    held_up = reader.is_alive()
    goes_on.set()
    for thread in (reader, writer):
        thread.join(10)
    assert not held_up
    assert (found[0].records, found[0].disk_bytes, found[0].oldest_ns) == (1, before, 7 * SECOND)
    wait_for(lambda: spool.waiting == 2, "the second one to count", 5)
    assert spool.oldest_ns == 7 * SECOND
    send(spool, "live")
    assert (spool.waiting, spool.oldest_ns) == (0, 0)
    spool.close()
