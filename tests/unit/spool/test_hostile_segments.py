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

import pytest

from headwatch.errors import SpoolError
from headwatch_exporters.spool.record import encode
from headwatch_exporters.spool.segment import FILE_MAGIC, HEADER_BYTES, MAGIC
from headwatch_exporters.spool.spool import Spool

from .records import SECOND, batch, record, send

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
    checked = struct.pack("<4sB3xIQQI", MAGIC, 0, len(payload), number, time_ns, zlib.crc32(payload))
    return checked[:4] + chance.choice(b"PTDX").to_bytes(1) + checked[5:] + struct.pack("<I", zlib.crc32(checked)) + payload


@pytest.mark.parametrize("inputs", INPUTS)
def test_no_file_in_the_folder_stops_the_spool(tmp_path: Path, good: bytes, inputs: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fdatasync", lambda _: None)  # no power is lost here
    chance = random.Random(inputs)
    originals = {encode(record(n, batch(f"a{n}", content=b"x" * 50 * n), batch(f"b{n}", "two"))) for n in range(1, RECORDS)}
    rejected = slowest = peak = 0
    for number in range(inputs):
        folder = tmp_path / str(number % 16)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        data = mutated(good, chance)
        (folder / chance.choice((NAME, OTHER))).write_bytes(data)
        if chance.random() < 0.3:
            (folder / NAME).write_bytes(mutated(good, chance))
        if number % 100 == 0:
            tracemalloc.start()
        started = time.monotonic()
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
        slowest = max(slowest, time.monotonic() - started)
        if tracemalloc.is_tracing():
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert encode(record(100)) in found, "what comes afterwards goes through"
        assert (spool.waiting, spool.oldest_ns) == (0, 0)
        assert spool.disk_bytes <= len(good) * 10 + 5000
        lost = spool.losses.batches["corrupt:"] + spool.losses.errors["torn"]
        rejected += lost
        if not originals <= found and (folder / NAME).exists() and data[:8] == FILE_MAGIC:
            assert lost or len(data) < len(good) or b"D" in data, "nothing is lost unseen"
        spool.close()
    assert rejected > inputs // 2
    assert slowest < 1.0
    assert peak < 16 << 20


def test_a_length_that_nobody_has_memory_for_is_not_believed(tmp_path: Path):
    header = struct.pack("<4sB3xIQQI", MAGIC, 0, 2**32 - 1, 1, SECOND, 0)
    data = FILE_MAGIC + header[:4] + b"P" + header[5:] + struct.pack("<I", zlib.crc32(header))
    (tmp_path / NAME).write_bytes(data + bytes(1000))
    (tmp_path / OTHER).write_bytes(FILE_MAGIC)
    spool = Spool(tmp_path, 1 << 20)
    assert spool.take("backlog") is None
    assert spool.losses.batches == {"corrupt:": 1}


def test_a_megabyte_of_beginnings_is_searched_in_no_time(tmp_path: Path):
    (tmp_path / NAME).write_bytes(FILE_MAGIC + MAGIC * (1 << 18))
    (tmp_path / OTHER).write_bytes(FILE_MAGIC)
    started = time.monotonic()
    assert Spool(tmp_path, 8 << 20).take("backlog") is None
    assert time.monotonic() - started < 5.0
