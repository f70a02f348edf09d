"""Compression of the ClickHouse endpoint: checksums, blocks, and the encodings of HTTP."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import lz4.frame
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from headwatch_exporters.clickhouse.http import blocks, encoding
from headwatch_exporters.clickhouse.http.cityhash import cityhash128
from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 1 << 20


@pytest.mark.parametrize(
    ("size", "low", "high"),
    [
        (1, 0x5C2F24EC0AC24AD2, 0xBA98CBBAB3506F98),
        (6, 0x452D92D7AA9347CB, 0xC267AA0A7B64CDDA),
        (9, 0x43A7BF9CD0D5EC01, 0xF32171686E0A1037),
        (30, 0x10528ADDA6C48653, 0xB4F5793BDD44C307),
        (110, 0x2C760D148BEEE2CC, 0x010ED69387205090),
        (119, 0xAE625BA49DD9F19E, 0x8BD8619A01134C02),
        (248, 0x29E55688E675BD90, 0x11E19092EE2EABC0),
    ],
)
def test_checksums_are_those_of_the_engines_own_data_files(size: int, low: int, high: int):
    """Of files that chDB 26.9 wrote: one value of so many letters, ``FixedString`` with ``CODEC(NONE)``."""
    data = bytes([65 + size % 26]) * size
    rest = b"\x02" + (size + 9).to_bytes(4, "little") + size.to_bytes(4, "little") + data
    assert cityhash128(rest) == (low, high)
    packed = low.to_bytes(8, "little") + high.to_bytes(8, "little") + rest
    assert blocks.unpack(packed, MOST) == data


@given(st.lists(st.binary(max_size=5000), max_size=5))
def test_blocks_carry_everything(pieces: list[bytes]):
    stream = blocks.Blocks()
    packed = b"".join(stream.pack(piece) for piece in pieces) + stream.finish()
    assert blocks.unpack(packed, MOST) == b"".join(pieces)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_damaged_block_is_never_taken(data: bytes, draw: st.DataObject):
    packed = bytearray(blocks.pack(data))
    at = draw.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(QueryError) as refused:
        blocks.unpack(bytes(packed), MOST)
    assert refused.value.name in {"CHECKSUM_DOESNT_MATCH", "CANNOT_DECOMPRESS", "QUERY_IS_TOO_LARGE"}
    with pytest.raises(QueryError, match="ends within"):
        blocks.unpack(blocks.pack(data)[: -draw.draw(st.integers(1, 25))], MOST)


def test_blocks_that_hold_too_much_are_refused_before_they_are_unpacked():
    with pytest.raises(QueryError, match="more than 99 bytes"):
        blocks.unpack(blocks.pack(b"x" * 50) * 2, 99)
    rest = b"\x90" + (10).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"x"
    low, high = cityhash128(rest)
    with pytest.raises(QueryError, match="0x90"):
        blocks.unpack(low.to_bytes(8, "little") + high.to_bytes(8, "little") + rest, MOST)


UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress, "deflate": zlib.decompress, "zstd": zstd.decompress, "lz4": lz4.frame.decompress,
}  # fmt: skip


@pytest.mark.parametrize("name", encoding.PREFERRED)
@given(pieces=st.lists(st.binary(max_size=2000), max_size=4))
def test_every_encoding_carries_everything_and_is_taken_back(name: str, pieces: list[bytes]):
    stream = encoding.packing(name)
    packed = b"".join(stream.pack(piece) for piece in pieces) + stream.finish()
    whole = b"".join(pieces)
    assert UNPACK[name](packed) == whole == encoding.unpack(packed, name, MOST)
    assert encoding.unpack(packed + packed, name, MOST) == whole + whole, "every frame of it"
    with pytest.raises(QueryError, match="ends too early"):
        encoding.unpack(packed[:-1], name, MOST)


@pytest.mark.parametrize("name", encoding.PREFERRED)
def test_a_small_body_that_holds_much_is_refused(name: str):
    stream = encoding.packing(name)
    with pytest.raises(QueryError, match="more than 1000 bytes"):
        encoding.unpack(stream.pack(b"x" * 10_000_000) + stream.finish(), name, 1000)


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("", ""), ("gzip", "gzip"), ("gzip, zstd, br", "zstd"), ("gzip;q=0.9, zstd;q=0.1", "gzip"), ("gzip;q=0", ""),
        ("GZIP", "gzip"), ("br, snappy", ""), ("identity", ""), ("deflate;q=x, lz4", "lz4"), (",,;q=1,", ""),
        ("zstd;q=0,*", ""),
    ],
)  # fmt: skip
def test_the_best_encoding_that_is_taken_is_chosen(header: str, chosen: str):
    assert encoding.choose(header) == chosen
