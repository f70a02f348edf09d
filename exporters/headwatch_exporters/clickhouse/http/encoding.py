"""Compression as HTTP has it: what an answer is packed with, and what a request was.

Answers are packed here and not by chDB, though it could: an error that comes late has to stand inside the packed stream, or a
driver that unpacks only what is whole takes the part that it got for the answer (clickhouse-connect 1.12 does).
"""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Any, Protocol

import lz4.frame

from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    zstd: Any
elif sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PREFERRED = ("zstd", "lz4", "gzip", "deflate")
_LEVEL = 3


class Packing(Protocol):
    """Packs a stream, piece by piece."""

    def pack(self, piece: bytes) -> bytes:
        """Return what can be sent once *piece* is there; it may be nothing."""
        ...

    def finish(self) -> bytes:
        """Return the rest."""
        ...


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, window_bits)

    def pack(self, piece: bytes) -> bytes:
        return self._stream.compress(piece)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstd.ZstdCompressor(level=_LEVEL)

    def pack(self, piece: bytes) -> bytes:
        return bytes(self._stream.compress(piece))

    def finish(self) -> bytes:
        return bytes(self._stream.flush())


class _Lz4:
    def __init__(self) -> None:
        self._stream = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def pack(self, piece: bytes) -> bytes:
        head = b"" if self._begun else self._stream.begin()
        self._begun = True
        return bytes(head + self._stream.compress(piece))

    def finish(self) -> bytes:
        return bytes((b"" if self._begun else self._stream.begin()) + self._stream.flush())


_PACKINGS: dict[str, Callable[[], Packing]] = {
    "zstd": _Zstd,
    "lz4": _Lz4,
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "deflate": lambda: _Zlib(zlib.MAX_WBITS),
}


def packing(encoding: str) -> Packing:
    """Return what packs with *encoding*, one of those that :func:`choose` returns and not empty."""
    return _PACKINGS[encoding]()


def choose(header: str) -> str:
    """Return the best encoding that *header* (``Accept-Encoding``) takes; empty: as it is."""
    weights = {}
    for item in header.lower().split(","):
        name, _, parameters = item.strip().partition(";")
        weights[name.strip()] = _weight(parameters)
    offered = [name for name in PREFERRED if weights.get(name, 0.0) > 0.0]
    return max(offered, key=lambda name: weights[name], default="")


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def unpack(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """Return *body* as it was before *encoding* (``Content-Encoding``) was applied, at most *most_bytes*.

    Raises:
        QueryError: The encoding is not known, the body is damaged, or it holds more.
    """
    try:
        data = _unpacked(body, encoding.strip().lower(), most_bytes + 1)
    except (zlib.error, RuntimeError, EOFError, zstd.ZstdError) as error:
        raise QueryError("CANNOT_DECOMPRESS", f"the body is no {encoding[:32]}: {error}") from error
    if len(data) > most_bytes:
        raise QueryError("QUERY_IS_TOO_LARGE", f"the body holds more than {most_bytes} bytes")
    return data


def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """Return what *body* holds, no more than *most* bytes: every frame of it, and each to its end."""
    if encoding in {"", "identity"}:
        return body
    if encoding not in _UNPACKINGS:
        raise QueryError(
            "UNKNOWN_COMPRESSION_METHOD", f"Content-Encoding {encoding[:32]!r} is none of gzip, deflate, lz4, zstd"
        )
    found = bytearray()
    while body and len(found) < most:
        frame = _UNPACKINGS[encoding]()
        found += frame.decompress(body, most - len(found))
        if not frame.eof and len(found) < most:
            raise EOFError("it ends too early")
        body = frame.unused_data
    return bytes(found)


_UNPACKINGS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "x-gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "deflate": zlib.decompressobj,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
}
