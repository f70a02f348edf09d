"""What a start could not read of a segment and passed by, noted beside it: ``<segment>.passed``, JSON, some kilobytes at most.

A record that lies there may have been tried.  When the disk reads it again the store has taken others and may have forgotten
its token, so it must not be sent; one that was never tried may.  The state in the header tells which it was, and this note that
it was passed by.  It is on disk before the start delivers anything, is replaced in one step once what can be read again was
given up, and goes with its segment.  A file that is smaller than it was is another one, written anew: of that nothing was
passed by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headwatch.durable import replace_durably, sync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WHOLE = ((0, 1 << 63),)
"""The stretches of a file that could not be opened."""

Stretches = tuple[tuple[int, int], ...]
"""Offsets: the first byte of each, and the one behind it."""


class _Note(msgspec.Struct, frozen=True):
    size_bytes: int
    """Of the segment, at least; 0 where nobody could tell."""
    stretches: Stretches


def passed_by(segment: Path, size_bytes: int) -> Stretches:
    """Return what earlier starts passed by of *segment*; all of it where the note cannot be read."""
    try:
        note = msgspec.json.decode(_path(segment).read_bytes(), type=_Note)
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return WHOLE
    return note.stretches if size_bytes >= note.size_bytes else ()


def pass_by(segment: Path, size_bytes: int, stretches: Sequence[tuple[int, int]]) -> None:
    """Note on disk that *stretches* of *segment* are passed by, and nothing else of it.

    Raises:
        OSError: The disk does not let us: the note is as it was.
    """
    path = _path(segment)
    note = msgspec.json.encode(_Note(size_bytes, tuple(stretches)))
    if not stretches:
        if not path.exists():
            return
        path.unlink()
    elif _holds(path, note):
        return
    else:
        replace_durably(path, note, path.with_suffix(".passed.tmp"))
        return
    sync_folder(path.parent)


def forget(segment: Path) -> None:
    """Delete the note beside *segment*, which is gone or written anew."""
    _path(segment).unlink(missing_ok=True)


def forget_others(folder: Path, segments: Sequence[Path]) -> None:
    """Delete the notes whose segment is gone, and what a kill left of writing one."""
    kept = {_path(segment) for segment in segments}
    for path in folder.glob("*.passed*"):
        if path not in kept:
            path.unlink()


def _path(segment: Path) -> Path:
    return segment.with_suffix(".passed")


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False
