"""A search through every file below a folder, as it lies there and as it reads when it is unpacked.

Unpacked are ClickHouse's compressed blocks (data of columns, dictionaries, indexes, marks, of parts in use and of old ones),
zstd frames (the spool) and zlib streams (the history), wherever in a file they begin.
"""

from __future__ import annotations

import struct
import sys
import zlib
from typing import TYPE_CHECKING

import lz4.block

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHECKSUM, _HEADER = 16, struct.Struct("<BII")
_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02
_LIMIT = 1 << 28
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def files_with(folder: Path, word: str) -> list[str]:
    """Return the files below *folder* that hold *word*, in whatever form."""
    wanted = word.encode()
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in files if _holds(path.read_bytes(), wanted))


def _holds(data: bytes, wanted: bytes) -> bool:
    return wanted in data or any(wanted in piece for piece in unpacked(data))


def unpacked(data: bytes) -> Iterator[bytes]:
    """Yield what can be unpacked of *data*."""
    yield from _blocks(data)
    for magic, unpack in ((_ZSTD_MAGIC, _zstd), (b"\x78\x01", _zlib), (b"\x78\x9c", _zlib), (b"\x78\xda", _zlib)):
        place = data.find(magic)
        while place >= 0:
            if piece := unpack(data[place:]):
                yield piece
            place = data.find(magic, place + 1)


def _blocks(data: bytes) -> Iterator[bytes]:
    """Yield ClickHouse's compressed blocks, one behind the other from the start; nothing where there are none."""
    place = 0
    while place + _CHECKSUM + _HEADER.size <= len(data):
        method, packed, size = _HEADER.unpack_from(data, place + _CHECKSUM)
        body = data[place + _CHECKSUM + _HEADER.size : place + _CHECKSUM + packed]
        if packed < _HEADER.size or place + _CHECKSUM + packed > len(data) or size > _LIMIT:
            return
        if method == _LZ4:
            yield lz4.block.decompress(body, uncompressed_size=size)
        elif method == _ZSTD:
            yield zstd.decompress(body)
        elif method == _NONE:
            yield body
        else:
            return  # numbers: Delta, T64 and the like hold no words, or hold them in frames that are found by their magic
        place += _CHECKSUM + packed


def _zstd(data: bytes) -> bytes:
    try:
        return zstd.ZstdDecompressor().decompress(data, max_length=_LIMIT)
    except zstd.ZstdError:
        return b""


def _zlib(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _LIMIT)
    except zlib.error:
        return b""
