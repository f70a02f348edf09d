"""A batch holds what was put into it, and says so where it does not."""

from __future__ import annotations

import pytest

from headwatch.errors import SpoolError
from headwatch_exporters.spool.record import CHUNK_BYTES, Batch, BatchWriter, decode, encode

from .records import batch, record

GOOD = batch("good")


def test_a_batch_is_compressed_as_it_comes_and_read_in_pieces():
    writer = BatchWriter("t", ("a",), "token")
    for number in range(30):
        writer.add(2, [bytes([number]) * 100_000, b"end"])
    whole = writer.batch()
    assert (whole.rows, whole.native_bytes, len(whole.block) < 10_000) == (60, 30 * 100_003, True)
    pieces = list(whole.native())
    assert b"".join(pieces) == b"".join(bytes([number]) * 100_000 + b"end" for number in range(30))
    assert max(map(len, pieces)) <= CHUNK_BYTES


@pytest.mark.parametrize(
    "bad",
    [
        Batch("t", ("a",), "bomb", 1, 10, batch("x", content=b"0" * 100_000_000).block),
        Batch("t", ("a",), "cut", 1, 4, GOOD.block[:-3]),
        Batch("t", ("a",), "none", 1, 4, b"zstd"),
        Batch("t", ("a",), "empty", 1, 4, b""),
        Batch("t", ("a",), "less", 1, 5, GOOD.block),
        Batch("t", ("a",), "more behind", 1, 4, GOOD.block + b"x"),
    ],
    ids=lambda bad: bad.token,
)
def test_what_does_not_hold_what_it_says_is_an_error_and_costs_no_memory(bad: Batch):
    pieces: list[bytes] = []
    with pytest.raises(SpoolError):
        pieces.extend(bad.native())
    assert sum(map(len, pieces)) <= bad.native_bytes


def test_a_record_comes_back_equal():
    one = record(7, batch("a", "one", 3, b"\0\n"), batch("b", "two"))
    assert decode(encode(one)) == one


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01\x02", encode(record(1))[:-1], encode(record(1)) + b"x", b"\x91\x01"])
def test_what_is_no_record_is_refused(data: bytes):
    with pytest.raises(SpoolError, match="no record"):
        decode(data)
