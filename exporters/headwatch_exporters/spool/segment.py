"""One file of the spool: records one after another, each behind a header that is checked.

::

    8 bytes   HWSPOOL1
    then for each record
    4 bytes   magic
    4 bytes   state: PEND, TRIE or DONE       all that ever changes
    uint32    length of the payload
    uint64    number of the record
    uint64    when the delivery was made, nanoseconds
    uint32    CRC-32 of the payload
    uint32    CRC-32 of this header, its state taken as zero
    ...       the payload

All numbers are little-endian.  A state that is none of the three is taken as tried: damage there has a record sent once more,
which the store knows how to take, and never not at all.  Where the rest of a header is damaged the next good one is searched
for by its magic: one bad sector costs the records that lie on it, not those behind.  What the disk cannot read counts as zeros.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headwatch_exporters.spool.passed import forget

if TYPE_CHECKING:
    from pathlib import Path

FILE_MAGIC = b"HWSPOOL1"
MAGIC = b"\xabHWR"
_HEADER = struct.Struct("<4s4sIQQII")
HEADER_BYTES = _HEADER.size
_STATE_OFFSET, _STATE_END = 4, 8
MAX_PAYLOAD_BYTES = 256 * 1024 * 1024
"""A longer record is not written, and none is looked for."""
_MAX_NUMBER = 1 << 62
_SEARCH_BYTES = 1 << 20
_SECTOR_BYTES = 4096
MAX_REFUSALS = 64
"""After so many reads of a segment that the disk refused it is not asked sector by sector: each may take it half a minute."""

State = Literal["PEND", "TRIE", "DONE"]
"""Nobody tried to send it; it was tried; the store has it."""
_STATES: dict[bytes, State] = {b"PEND": "PEND", b"TRIE": "TRIE", b"DONE": "DONE"}


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a record lies, as its header says."""

    offset: int
    length: int
    number: int
    time_ns: int
    state: State
    crc: int

    @property
    def end(self) -> int:
        """Return the offset behind the record."""
        return self.offset + HEADER_BYTES + self.length


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that are no record."""

    offset: int
    end: int


class Segment:
    """An open segment file.

    ``start`` is where the first record is looked for: at once where the file does not begin as ours do.  ``pending`` counts the
    records in it that are not done, ``gaps`` are the gaps that were told of, the offset of each with its end: whoever walks
    through it keeps both.  ``unread`` are the stretches that the disk could not read, ``error`` is what it said, ``passed`` the
    stretches that are noted as passed by.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open *path*.

        Raises:
            OSError: It cannot be opened, or not be created.
        """
        self.path = path
        self.pending = 0
        self.gaps: dict[int, int] = {}
        self.unread: dict[int, int] = {}
        self.passed: list[tuple[int, int]] = []
        self.error = ""
        self._refusals = 0
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        self._file = os.open(path, flags, 0o600)
        try:
            if create:
                _write(self._file, FILE_MAGIC, 0)
            self.size = os.fstat(self._file).st_size
            self.start = len(FILE_MAGIC) if self.read(0, len(FILE_MAGIC)) == FILE_MAGIC else 0
        except OSError:
            os.close(self._file)
            if create:
                path.unlink(missing_ok=True)
            raise

    def append(self, payload: bytes, number: int, time_ns: int, *, sync: bool) -> Frame:
        """Write *payload* behind what is there; where that fails the segment is as it was.

        Raises:
            OSError: No space, or the disk fails.
        """
        frame = Frame(self.size, len(payload), number, time_ns, "PEND", zlib.crc32(payload))
        try:
            _write(self._file, _header(frame) + payload, frame.offset)
            if sync:
                os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, frame.offset)
            raise
        self.size = frame.end
        self.pending += 1
        return frame

    def next(self, offset: int) -> Frame | Gap | None:
        """Return the record at *offset*, or the gap up to the next one; None at the end."""
        if offset >= self.size:
            return None
        if offset in self.gaps:
            return Gap(offset, self.gaps[offset])
        frame = self._frame_at(offset)
        if frame is not None:
            return frame
        place = offset
        while place < self.size:
            data = self.read(place + 1, place + 1 + _SEARCH_BYTES)
            found = data.find(MAGIC)
            while found >= 0:
                if self._frame_at(place + 1 + found) is not None:
                    return Gap(offset, place + 1 + found)
                found = data.find(MAGIC, found + 1)
            place += max(1, len(data) - len(MAGIC) + 1)  # one that lies across two pieces is found in the second
        return Gap(offset, self.size)

    def payload(self, frame: Frame) -> bytes | None:
        """Return the payload of *frame*; None where its checksum is wrong."""
        data = self.read(frame.offset + HEADER_BYTES, frame.end)
        return data if zlib.crc32(data) == frame.crc else None

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from *start* to *end*, as far as there are any.

        Of a stretch whose first pages are good and whose next is not Linux returns the good ones and no error.
        """
        end = min(end, self.size)
        try:
            data = os.pread(self._file, max(0, end - start), start)
        except OSError:
            data = b""
        return data if start + len(data) >= end else data + self._read_sectors(start + len(data), end)

    def is_unread(self, start: int, end: int) -> bool:
        """Return whether the disk could not read some of what lies from *start* to *end*."""
        return any(first < end and start < last for first, last in self.unread.items())

    def mark(self, frame: Frame, state: State, *, sync: bool) -> None:
        """Change the state of *frame*.

        Raises:
            OSError: The disk fails.
        """
        os.pwrite(self._file, state.encode(), frame.offset + _STATE_OFFSET)
        if sync:
            os.fdatasync(self._file)

    def cut(self, offset: int) -> None:
        """Take away what lies behind *offset*.

        Raises:
            OSError: The disk fails.
        """
        os.ftruncate(self._file, offset)
        self.size = offset
        self.gaps = {start: end for start, end in self.gaps.items() if start < offset}

    def sync(self) -> None:
        """Have everything on disk.

        Raises:
            OSError: The disk fails.
        """
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def delete(self) -> None:
        """Close the file and delete it, then the note beside it: one without a segment is deleted at the next start."""
        self.path.unlink(missing_ok=True)
        forget(self.path)
        self.close()

    def _read_sectors(self, start: int, end: int) -> bytes:
        pieces = []
        self._refusals += 1
        while start < end:
            stop = end if self._refusals >= MAX_REFUSALS else min(end, start - start % _SECTOR_BYTES + _SECTOR_BYTES)
            try:
                piece = bytes(stop - start) if self.is_unread(start, stop) else os.pread(self._file, stop - start, start)
            except OSError as error:
                self.error = error.strerror or str(error)
                self._refusals += 1
                self.unread[start] = stop
                piece = bytes(stop - start)
            if not piece:  # somebody cut the file
                break
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def _frame_at(self, offset: int) -> Frame | None:
        data = self.read(offset, offset + HEADER_BYTES)
        if len(data) < HEADER_BYTES:
            return None
        magic, state, length, number, time_ns, crc, _ = _HEADER.unpack(data)
        if magic != MAGIC or length > MAX_PAYLOAD_BYTES or number > _MAX_NUMBER:
            return None
        frame = Frame(offset, length, number, time_ns, _STATES.get(state, "TRIE"), crc)
        if frame.end > self.size or _header(frame)[_STATE_END:] != data[_STATE_END:]:
            return None
        return frame


def _header(frame: Frame) -> bytes:
    checked = _HEADER.pack(MAGIC, b"", frame.length, frame.number, frame.time_ns, frame.crc, 0)[:-4]
    return checked[:_STATE_OFFSET] + frame.state.encode() + checked[_STATE_END:] + struct.pack("<I", zlib.crc32(checked))


def _write(file: int, data: bytes, offset: int) -> None:
    """Write all of *data*: one call may take a part only."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
