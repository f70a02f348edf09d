"""What the spool keeps: one record for each delivery, with all its batches, so that a delivery is in it whole or not at all.

A batch is rows of one table as ClickHouse's *Native* blocks, in one zstd frame, with the token under which the store takes it
once.  Nothing is encrypted or hidden: what reads a record finds every identifier that the rows hold.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from headwatch.errors import SpoolError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd  # clickhouse-connect requires it

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ZSTD_LEVEL = 1
"""A window of 174,080 series, 78 MB: 4.5 MB in 0.19 s.  Level 3 saves 2 % more; lz4 takes 0.12 s and 10.7 MB."""
CHUNK_BYTES = 1 << 20
"""A batch is decompressed in pieces of so much: its size is not believed before it is seen."""


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one table."""

    table: str
    columns: tuple[str, ...]
    token: str
    """The store takes a batch of this token once, into the table and into the views behind it."""
    rows: int
    native_bytes: int
    """Size of the blocks as the store reads them."""
    block: bytes
    """zstd frame of Native blocks."""

    def native(self) -> Iterator[bytes]:
        """Yield the Native blocks in pieces of at most :data:`CHUNK_BYTES`.

        Raises:
            SpoolError: They are no zstd frame, or not of the size that they should have.
        """
        decompressor = zstd.ZstdDecompressor()
        size, data = 0, self.block
        try:
            while not decompressor.eof:
                piece = decompressor.decompress(data, max_length=CHUNK_BYTES)
                data = b""
                size += len(piece)
                if size > self.native_bytes or not (piece or decompressor.eof):  # longer than it says, or cut
                    break
                yield piece
        except zstd.ZstdError as error:
            raise SpoolError("corrupt", f"a batch of {self.table} is no zstd frame: {error}") from error
        if size != self.native_bytes or not decompressor.eof or decompressor.unused_data:
            raise SpoolError("corrupt", f"a batch of {self.table} does not hold the {self.native_bytes} bytes that it should")


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One delivery."""

    time_ns: int
    batches: tuple[Batch, ...]


class BatchWriter:
    """Compresses the Native blocks of one batch as they come."""

    def __init__(self, table: str, columns: tuple[str, ...], token: str) -> None:
        self._table = table
        self._columns = columns
        self._token = token
        self._compressor = zstd.ZstdCompressor(ZSTD_LEVEL)
        self._pieces: list[bytes] = []
        self.rows = 0
        self._native_bytes = 0

    def add(self, rows: int, native: Iterable[bytes]) -> None:
        """Take *native*, which holds *rows* rows."""
        self.rows += rows
        for piece in native:
            self._native_bytes += len(piece)
            self._pieces.append(self._compressor.compress(piece))

    def batch(self) -> Batch:
        """Return the batch.  Called once, at the end."""
        block = b"".join((*self._pieces, self._compressor.flush()))
        return Batch(self._table, self._columns, self._token, self.rows, self._native_bytes, block)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return *record* as msgpack."""
    return _encoder.encode(record)


def decode(data: bytes) -> Record:
    """Return the record that *data* holds.

    Raises:
        SpoolError: It holds none.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpoolError("corrupt", f"no record: {error}") from error
