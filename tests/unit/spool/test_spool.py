"""What was appended is there until it is done: in order, after a kill, within the cap, whatever the disk does."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headwatch.errors import SpoolError
from headwatch_exporters.spool.segment import HEADER_BYTES
from headwatch_exporters.spool.spool import SEGMENTS, Spool

from .records import batch, record, send, waiting

MIB = 1024 * 1024
SEGMENT_BYTES = MIB // SEGMENTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def opened(folder: Path, numbers=(), max_bytes: int = MIB, **more) -> Spool:
    spool = Spool(folder, max_bytes, **more)
    for number in numbers:
        spool.append(record(number))
    return spool


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.seg"))


def noise(size: int, seed: int = 0) -> bytes:
    """Return bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def test_records_come_out_whole_and_in_order(folder):
    spool = opened(folder)
    first = record(1, batch("a", "one", 3, noise(3 * MIB // 32)), batch("b", "two", 5))
    spool.append(first)
    spool.append(record(2))
    taken = spool.take("live")
    assert taken.record == first
    assert b"".join(taken.record.batches[0].native()) == noise(3 * MIB // 32)
    assert spool.take("live").record == first, "until it is done"
    spool.done(taken)
    assert send(spool, "live") == [2]
    assert (spool.waiting, spool.oldest_ns) == (0, 0)


def test_what_waited_is_backlog_and_does_not_hold_up_what_comes(folder):
    opened(folder, range(5)).close()
    spool = opened(folder, [10, 11])
    assert spool.take("live").record.time_ns == 10_000_000_000
    assert send(spool, "backlog", 2) == [0, 1]
    assert send(spool, "live") == [10, 11]
    assert send(spool, "backlog") == [2, 3, 4]


def test_when_something_fails_what_waits_falls_behind(folder):
    """The record that was tried keeps its lane, the others of it wait behind the backlog."""
    opened(folder, range(3)).close()
    spool = opened(folder, [10, 11, 12])
    tried = spool.take("live")
    spool.fall_behind()
    spool.append(record(20))
    assert spool.take("live").record == tried.record
    assert send(spool, "live") == [10, 20]
    assert send(spool, "backlog") == [0, 1, 2, 11, 12]


def test_what_was_tried_before_a_kill_comes_first(folder):
    """The store knows its token for the last thousand inserts only, and the backlog may be longer."""
    opened(folder, range(5)).close()
    spool = opened(folder, range(10, 15))
    spool.take("backlog")
    spool.take("live")
    spool._segments.close()  # as a kill leaves it: nothing was done
    os.close(spool._held)
    again = opened(folder)
    assert send(again, "backlog", 2) == [0, 10]
    assert send(again, "backlog") == [1, 2, 3, 4, 11, 12, 13, 14]


def test_done_is_done_after_a_restart(folder):
    spool = opened(folder, range(10))
    assert send(spool, "live", 4) == [0, 1, 2, 3]
    spool.close()
    assert waiting(opened(folder)) == [4, 5, 6, 7, 8, 9]


def test_an_empty_spool_takes_next_to_nothing(folder):
    spool = opened(folder, range(2000))
    assert len(segments(folder)) > 3
    full = spool.disk_bytes
    send(spool, "live", 1000)
    assert spool.disk_bytes < 0.6 * full, "segments go as they are done"
    send(spool, "live")
    assert spool.disk_bytes == 8
    assert [path.stat().st_size for path in segments(folder)] == [8]
    spool.append(record(1))
    assert send(spool, "live") == [1]


def test_the_oldest_makes_room_and_is_counted_by_table(folder):
    spool = opened(folder)
    for number in range(150):
        spool.append(record(number, batch(f"a{number}", "one", 3, noise(10_000, number)), batch(f"b{number}", "two", 2)))
        assert spool.disk_bytes <= MIB
        assert sum(path.stat().st_size for path in segments(folder)) <= MIB
    kept = waiting(spool)
    assert kept == list(range(kept[0], 150)), "the newest, without a hole"
    assert kept[0] > 40
    assert spool.losses.rows == {"full:one": 3 * kept[0], "full:two": 2 * kept[0]}
    assert spool.losses.batches == {"full:one": kept[0], "full:two": kept[0]}
    assert send(spool, "live") == kept


def test_what_is_being_sent_does_not_make_room(folder):
    spool = opened(folder)
    spool.append(record(0, batch("a", content=noise(10_000))))
    taken = spool.take("live")
    for number in range(1, 150):
        spool.append(record(number, batch("a", content=noise(10_000, number))))
    assert spool.take("live").record == taken.record
    assert waiting(spool)[:3] == [0, 1, 2], "its segment stays, the next ones go"
    assert waiting(spool)[3] > 40
    spool.done(taken)
    assert spool.losses.batches["full:t"] == 150 - len(waiting(spool)) - 1


def test_a_delivery_larger_than_the_spool_is_refused(folder):
    spool = opened(folder, [1])
    with pytest.raises(SpoolError, match=r"too large \(spool.max_bytes\)") as error:
        spool.append(record(2, batch("a", content=noise(MIB // 3))))
    assert error.value.reason == "too_large"
    assert (waiting(spool), spool.losses.errors["too_large"]) == ([1], 1)


@pytest.mark.parametrize("left", [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, -1])
def test_a_record_that_was_being_written_at_a_kill_is_cut_off(folder, left):
    spool = opened(folder, [1, 2])
    path, size = segments(folder)[0], spool.disk_bytes
    spool.append(record(3))
    spool.close()
    os.truncate(path, size + left if left > 0 else path.stat().st_size - 1)
    again = opened(folder)
    assert waiting(again) == [1, 2]
    assert again.losses.errors["torn"] == 1
    again.append(record(4))
    again.close()
    assert waiting(opened(folder)) == [1, 2, 4]


@pytest.mark.parametrize("place", ["magic", "length", "payload"])
def test_a_damaged_record_costs_itself_alone(folder, place):
    spool = opened(folder, [1])
    start = spool.disk_bytes
    spool.append(record(2))
    end = spool.disk_bytes
    spool.append(record(3))
    spool.close()
    offset = {"magic": start, "length": start + 9, "payload": end - 2}[place]
    with segments(folder)[0].open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes((byte[0] ^ 0xFF,)))
    again = opened(folder)
    assert send(again, "backlog") == [1, 3]
    assert again.waiting == 0
    assert again.losses.batches == {"corrupt:": 1}
    (entry,) = again.aside.entries()
    assert entry[1] is None
    assert entry[0].stat().st_size == end - start, "what it was lies aside, with the reason"


def test_a_damaged_state_sends_a_record_once_more_and_never_not_at_all(folder):
    spool = opened(folder, [1])
    start = spool.disk_bytes
    spool.append(record(2))
    spool.close()
    (path,) = segments(folder)
    data = path.read_bytes()
    for bit in range(8):
        path.write_bytes(data[: start + 4] + bytes((data[start + 4] ^ 1 << bit,)) + data[start + 5 :])
        again = opened(folder)
        assert (waiting(again), again.take("backlog").record) == ([1, 2], record(2))
        again.close()


def test_damage_while_the_spool_is_open_is_found_when_it_is_read(folder):
    spool = opened(folder, [1, 2, 3])
    path = segments(folder)[0]
    data = path.read_bytes()
    at = data.index(b"\xabHWR", data.index(b"\xabHWR") + 1)
    path.write_bytes(data[:at] + b"\0" * 8 + data[at + 8 :])
    assert send(spool, "live") == [1, 3]
    assert (spool.waiting, spool.disk_bytes - spool.aside.disk_bytes) == (0, 8)
    assert spool.losses.batches == {"corrupt:": 1}


def test_a_file_that_is_none_of_ours_stops_nothing(folder):
    opened(folder, [1]).close()
    (folder / "00000000000000000000.seg").write_bytes(noise(5000))
    (folder / "00000000000000009999.seg").write_bytes(b"")
    (folder / "readme").write_text("hello")
    spool = opened(folder)
    spool.append(record(2))
    assert send(spool, "backlog") == [1]
    assert send(spool, "live") == [2]
    assert spool.losses.batches == {"corrupt:": 1}


def test_a_write_that_fails_changes_nothing(folder, monkeypatch):
    """Half of it went through; what comes after it is readable."""
    spool = opened(folder, [1])
    real = os.pwrite

    def full(file, data, offset):
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data[: max(1, len(data) // 2)], offset)

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(3):
        with pytest.raises(SpoolError, match=f"cannot write to the spool {folder}: No space left") as error:
            spool.append(record(2))
        assert error.value.reason == "no_space"
    monkeypatch.undo()
    spool.append(record(3))
    assert waiting(spool) == [1, 3]
    assert spool.losses.errors["no_space"] == 3
    spool.close()
    assert waiting(opened(folder)) == [1, 3]


def test_a_limit_of_the_system_is_met_and_survived(folder):
    """A real one: no file of the process may grow beyond 64 KiB, until it may."""
    code = f"""
        import resource
        from pathlib import Path
        from headwatch.errors import SpoolError
        from headwatch_exporters.spool.spool import Spool
        from headwatch_exporters.spool.record import Batch, Record
        spool = Spool(Path({str(folder)!r}), 64 * 1024 * 1024)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
        kept = refused = 0
        for number in range(100):
            try:
                spool.append(Record(number, (Batch("t", ("a",), str(number), 1, 1, b"x" * 4096),)))
                kept += 1
            except SpoolError as error:
                assert error.reason == "no_space", error.reason
                refused += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        spool.append(Record(1000, (Batch("t", ("a",), "last", 1, 1, b"y"),)))
        assert kept > 10 and refused > 50 and spool.losses.errors["no_space"] == refused
        assert [r.time_ns for r in spool.records()] == [*range(kept), 1000]
        print("well")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_the_folder_belongs_to_one(folder):
    spool = opened(folder)
    with pytest.raises(SpoolError, match=f"the spool {folder} is in use by another process; .*spool.folder") as error:
        opened(folder)
    assert error.value.reason == "in_use"
    spool.close()
    opened(folder).close()


def test_nobody_else_can_read_it(folder):
    before = os.umask(0)
    try:
        spool = opened(folder, [1])
        spool.set_aside(batch("a"), "no such column", 0)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "poison")} == {0o700}


def test_what_is_set_aside_is_bounded_and_comes_with_its_reason(folder):
    spool = opened(folder)
    for number in range(120):
        spool.set_aside(batch(f"a{number}", rows=2), f"reason {number}", number)
    entries = list(spool.aside.entries())
    assert len(entries) == 100
    path, kept = entries[-1]
    assert kept == batch("a119", rows=2)
    assert b"reason 119" in path.with_name(path.name.split(".")[0] + ".json").read_bytes()
    assert (spool.losses.rows, spool.aside.batches) == ({"aside_full:t": 40}, 120)
    large = batch("large", content=noise(200_000))
    for _ in range(5):
        spool.set_aside(large, "too", 0)
    spool.set_aside(batch("larger", rows=7, content=noise(MIB // 3)), "too", 0)
    assert spool.losses.rows["aside_full:t"] == 120 * 2 + 4 + 7
    sizes = sum(path.stat().st_size for path in (folder / "poison").iterdir())
    assert sizes == spool.aside.disk_bytes <= MIB // 4 + 1000


def test_a_tool_finds_and_takes_out_what_a_person_asks_for(folder):
    """Also of what was tried, set aside, or delivered and not yet deleted."""
    spool = opened(folder)
    for number in range(6):
        who = b"user-7" if number % 2 else b"user-8"
        spool.append(record(number, batch(f"a{number}", "one", content=who), batch("b", "two")))
    assert send(spool, "live", 2) == [0, 1]
    tried = spool.take("live")
    spool.set_aside(batch("poison", content=b"user-7"), "no", 0)
    (folder / "poison" / "9.bytes").write_bytes(b"user-7, unreadable")

    def found() -> int:
        contents = [b"".join(one.native()) for whole in spool.records() for one in whole.batches]
        contents += [b"".join(one.native()) for _, one in spool.aside.entries() if one is not None]
        return sum(b"user-7" in content for content in contents)

    assert found() == 3
    assert spool.rewrite(lambda one: None if b"user-7" in b"".join(one.native()) else one) == 4
    assert found() == 0
    assert not list((folder / "poison").iterdir())
    assert spool.take("backlog").record.time_ns == tried.record.time_ns, "what was tried still comes first"
    assert send(spool, "backlog") == [2, 3, 4, 5]
    assert spool.rewrite(lambda _: None) == 0


def test_by_interval_not_every_record_is_forced_to_disk(folder, monkeypatch):
    counted = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: counted.append(file) or real(file))
    opened(folder, range(10), fsync_seconds=1000.0)
    assert counted == []
    opened(folder.with_name("other"), range(10))
    assert len(counted) == 10
