"""Whatever lies in the spool's folder: it is read in no time, takes no room, and what is lost is counted."""

from __future__ import annotations

import os
import random
import shutil
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from headwatch.errors import SpoolError
from headwatch_exporters.spool.record import encode
from headwatch_exporters.spool.segment import FILE_MAGIC, HEADER_BYTES, MAGIC
from headwatch_exporters.spool.spool import Spool

from .records import SECOND, batch, record, send

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUTS = [pytest.param(2_000, id="some"), pytest.param(20_000, id="many", marks=[pytest.mark.long, pytest.mark.timeout(3600)])]
RECORDS = 6
NAME = "00000000000000000001.seg"
OTHER = "00000000000000000007.seg"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A segment of which one record is done, one was tried and the others wait."""
    folder = tmp_path_factory.mktemp("good") / "spool"
    spool = Spool(folder, 1 << 20)
    for number in range(RECORDS):
        spool.append(record(number, batch(f"a{number}", content=b"x" * 50 * number), batch(f"b{number}", "two")))
    assert send(spool, "live", 1) == [0]
    spool.take("live")
    return (folder / NAME).read_bytes()


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder that costs no disk where the system has one: it is about what is read and not about what is kept."""
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def mutated(good: bytes, chance: random.Random) -> bytes:  # noqa: C901 - a list of damages
    """Return *good* with one to four kinds of damage, or bytes that were never any good."""
    data = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.choice((1, 2, 4, 8, HEADER_BYTES, 200)))
        kind = chance.randrange(10)
        if kind == 0 and start < end:
            data[start] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[start:end] = bytes(end - start)
        elif kind == 2:
            del data[start:end]
        elif kind == 3:
            del data[start:]
        elif kind == 4:
            data[start:start] = data[start:end] * chance.randint(1, 3)
        elif kind == 5:
            data[start:start] = chance.randbytes(chance.randint(1, 100))
        elif kind == 6:
            data[start:start] = chance.choice((MAGIC, FILE_MAGIC, MAGIC * 50, b"\xff" * 40))
        elif kind == 7 and len(data) >= start + 4:
            struct.pack_into("<I", data, start, chance.choice((0, 1, 2**31, 2**32 - 1)))
        elif kind == 8:
            data[start:start] = framed(chance.randbytes(chance.randint(0, 60)), chance)
        else:
            payload = bytearray(encode(record(chance.randrange(RECORDS))))
            payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
            data[start:start] = framed(bytes(payload), chance)
    return bytes(data) if chance.random() < 0.95 else chance.randbytes(chance.randint(0, 2000))


def framed(payload: bytes, chance: random.Random) -> bytes:
    """Return *payload* as a record whose checksums are right, whatever it holds."""
    number, time_ns = chance.getrandbits(chance.choice((8, 64))), chance.getrandbits(64)
    checked = struct.pack("<4s4sIQQI", MAGIC, b"", len(payload), number, time_ns, zlib.crc32(payload))
    state = chance.choice((b"PEND", b"TRIE", b"DONE", b"\0\0\0\0"))
    return checked[:4] + state + checked[8:] + struct.pack("<I", zlib.crc32(checked)) + payload


@pytest.mark.parametrize("inputs", INPUTS)
def test_no_file_in_the_folder_stops_the_spool(in_memory: Path, good: bytes, inputs: int):
    chance = random.Random(inputs)
    rejected = slowest = longest = peak = 0
    for number in range(inputs):
        folder = in_memory / str(number % 16)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        data = mutated(good, chance)
        (folder / chance.choice((NAME, OTHER))).write_bytes(data)
        if chance.random() < 0.3:
            (folder / NAME).write_bytes(mutated(good, chance))
        if number % 100 == 0:
            tracemalloc.start()
        began, started = time.monotonic(), time.thread_time()
        spool = Spool(folder, 1 << 20, fsync_seconds=1e9)
        spool.append(record(100))
        found = set()
        for lane in ("backlog", "live"):
            while (taken := spool.take(lane)) is not None:  # type: ignore[arg-type]  # they are the two
                found.add(encode(taken.record))
                for one in taken.record.batches:
                    try:
                        sum(map(len, one.native()))
                    except SpoolError:
                        rejected += 1
                spool.done(taken)
        slowest = max(slowest, time.thread_time() - started)
        longest = max(longest, time.monotonic() - began)
        if tracemalloc.is_tracing():
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert encode(record(100)) in found, "what comes afterwards goes through"
        assert (spool.waiting, spool.oldest_ns) == (0, 0)
        assert spool.disk_bytes <= len(good) * 10 + 5000
        rejected += spool.losses.batches["corrupt:"] + spool.losses.errors["torn"]
        spool.close()
    assert rejected > inputs // 2
    assert slowest < 1.0
    assert longest < 5.0, "it waits for something, and not for a busy machine"
    assert peak < 16 << 20


def test_no_damage_to_what_is_there_goes_unseen(in_memory: Path, good: bytes):
    """A bit that flipped or bytes that were overwritten, anywhere: each record comes out whole, or its loss is counted."""
    chance = random.Random(3)
    for number in range(1_000):
        data, start = bytearray(good), chance.randrange(len(good))
        if number % 2:
            data[start] ^= 1 << chance.randrange(8)
        else:
            size = min(chance.choice((1, 8, 50, 300)), len(data) - start)
            data[start : start + size] = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size)))
        folder = in_memory / str(number)
        folder.mkdir()
        (folder / NAME).write_bytes(data)
        (folder / OTHER).write_bytes(FILE_MAGIC)
        spool = Spool(folder, 1 << 20, fsync_seconds=1e9)
        found = send(spool, "backlog")
        missing = set(range(1, RECORDS)) - set(found)
        assert not missing or spool.losses.batches["corrupt:"], (start, found)
        assert len(missing) <= 1 + (len(good) > 300) * 4
        assert len(found) == len(set(found))
        spool.close()


def test_a_length_that_nobody_has_memory_for_is_not_believed(tmp_path: Path):
    header = struct.pack("<4s4sIQQI", MAGIC, b"", 2**32 - 1, 1, SECOND, 0)
    data = FILE_MAGIC + header[:4] + b"PEND" + header[8:] + struct.pack("<I", zlib.crc32(header))
    (tmp_path / NAME).write_bytes(data + bytes(1000))
    (tmp_path / OTHER).write_bytes(FILE_MAGIC)
    spool = Spool(tmp_path, 1 << 20)
    assert spool.take("backlog") is None
    assert spool.losses.batches == {"corrupt:": 1}


def test_a_megabyte_of_beginnings_is_searched_in_no_time(tmp_path: Path):
    (tmp_path / NAME).write_bytes(FILE_MAGIC + MAGIC * (1 << 18))
    (tmp_path / OTHER).write_bytes(FILE_MAGIC)
    started = time.thread_time()  # what else the machine does is no hang
    assert Spool(tmp_path, 8 << 20).take("backlog") is None
    assert time.thread_time() - started < 5.0
