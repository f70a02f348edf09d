"""ClickHouse's own compressed blocks, which ``compress=1`` asks for and ``decompress=1`` announces.

A block is a CityHash128 of the rest (16 bytes), the method (a byte), the size of header and data and the size of the data
unpacked (4 bytes each), and the data.  A body is any number of blocks, one after the other: every one is read.
"""

from __future__ import annotations

from struct import Struct

import lz4.block

from headwatch_exporters.clickhouse.http.cityhash import cityhash128
from headwatch_exporters.clickhouse.http.refusal import QueryError

LZ4 = 0x82
NONE = 0x02
_CHECKSUM = Struct("<QQ")
_HEADER = Struct("<BII")


class Blocks:
    """Packs a stream into blocks, one for each piece."""

    def pack(self, piece: bytes) -> bytes:
        """Return the block of *piece*."""
        return pack(piece) if piece else b""

    def finish(self) -> bytes:
        """Return nothing: blocks have no end."""
        return b""


def pack(data: bytes) -> bytes:
    """Return *data* as one block, with LZ4."""
    packed: bytes = lz4.block.compress(data, store_size=False)
    rest = _HEADER.pack(LZ4, _HEADER.size + len(packed), len(data)) + packed
    return _CHECKSUM.pack(*cityhash128(rest)) + rest


def unpack(body: bytes, most_bytes: int) -> bytes:
    """Return what the blocks in *body* hold, at most *most_bytes*.

    Raises:
        QueryError: It is no sequence of whole blocks, a checksum is wrong, or it holds more.
    """
    found, at = bytearray(), 0
    while at < len(body):
        if len(body) - at < _CHECKSUM.size + _HEADER.size:
            raise QueryError("CANNOT_DECOMPRESS", "the body ends within a compressed block")
        start = at + _CHECKSUM.size
        method, packed_size, size = _HEADER.unpack_from(body, start)
        at = start + packed_size
        if packed_size < _HEADER.size or at > len(body):
            raise QueryError("CANNOT_DECOMPRESS", "the body ends within a compressed block")
        if len(found) + size > most_bytes:
            raise QueryError("QUERY_IS_TOO_LARGE", f"the body holds more than {most_bytes} bytes")
        rest = body[start:at]
        if cityhash128(rest) != _CHECKSUM.unpack_from(body, start - _CHECKSUM.size):
            raise QueryError("CHECKSUM_DOESNT_MATCH", "the checksum of a compressed block does not match")
        found += _unpacked(method, rest[_HEADER.size :], size)
    return bytes(found)


def _unpacked(method: int, packed: bytes, size: int) -> bytes:
    if method == LZ4:
        try:
            data: bytes = lz4.block.decompress(packed, uncompressed_size=size) if size else b""
        except lz4.block.LZ4BlockError as error:
            raise QueryError("CANNOT_DECOMPRESS", "a compressed block is damaged") from error
    elif method == NONE:
        data = packed
    else:
        raise QueryError(
            "UNKNOWN_COMPRESSION_METHOD", f"compression method 0x{method:02x} is not known; use LZ4 or none"
        )
    if len(data) != size:
        raise QueryError("CANNOT_DECOMPRESS", "a compressed block is damaged")
    return data
