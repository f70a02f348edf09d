"""Frames as they reached the sidecar, with their times: what a recording can be observed from again.

A recording holds observed windows, and what is observed changes when a signal is added or mended.  A tape holds the frames
themselves, so recordings can be made from it without an engine.  It is large (about 70 kB a request) and stays with whoever
recorded it.  A record is eight bytes of time (ns), four of length, and the frame; a record that was cut off ends the tape.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAPE = "frames.tape"
"""Where frames are kept beside recordings."""
_HEADER = struct.Struct("<QI")


class Tape:
    """Writes a tape.  A context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")

    def keep(self, time_ns: int, frame: bytes) -> None:
        """Append *frame*, which arrived at *time_ns*."""
        self._file.write(_HEADER.pack(time_ns, len(frame)) + frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the time and the bytes of each frame of the tape at *path*, in the order in which they arrived."""
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            time_ns, length = _HEADER.unpack(header)
            frame = file.read(length)
            if len(frame) < length:
                return
            yield time_ns, frame
