"""A baseline as a file that travels: from one deployment to the next, into version control, into a release check.

The file is one version byte after a word that names it, then zlib over msgpack: what the version says of itself, and its parts
as the keeper holds them.  No pickle; what is read is checked before anything is kept.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.drift.codec import loads
from headwatch.drift.kept import NewBaseline, Origin
from headwatch.drift.learning import FEWEST_WINDOWS, Span
from headwatch.drift.parts import Part
from headwatch.drift.versions import as_new, learned
from headwatch.errors import DriftStateError
from headwatch.history.file import History

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.config import DriftConfig
    from headwatch.drift.keeper import Keeper

MAGIC = b"headwatch baseline\n"
VERSION = 1
_MOST_BYTES = 1 << 31


class _File(msgspec.Struct):
    origin: Origin
    created_ns: int
    first_window: int
    last_window: int
    windows: int
    note: str
    facts: dict[str, Any]
    parts: dict[str, bytes]


def write(keeper: Keeper, version: int, path: Path) -> None:
    """Write *version* to a new file at *path*, with its newcomers as if they had been there from the start.

    Raises:
        DriftStateError: There is no such version, or the file cannot be written.
    """
    new = as_new(keeper, version)
    content = msgspec.msgpack.encode(_File(
        new.origin, new.created_ns, new.first_window, new.last_window, new.windows, new.note, new.facts, new.parts,
    ))  # fmt: skip
    try:
        path.write_bytes(MAGIC + bytes([VERSION]) + zlib.compress(content))
        path.chmod(0o600)
    except OSError as error:
        raise DriftStateError(f"{path} cannot be written: {error.strerror}") from error


def is_baseline(path: Path) -> bool:
    """Return whether the file at *path* is a baseline."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def from_path(path: Path, config: DriftConfig, window_seconds: float, created_ns: int) -> NewBaseline:
    """Return what the file at *path* is a baseline of, pinned: a baseline as it is, an exported history by what it teaches.

    *window_seconds* is 0 where the windows of the history closed by count.

    Raises:
        DriftStateError: It is neither, or too short.
        HistoryError: It is a history that cannot be read.
    """
    if is_baseline(path):
        return read(path, "pinned")
    with History.open_readonly(path) as history:
        span = history.span()
        new = learned(Span(history, *span), config, window_seconds, created_ns, f"from {path.name}") if span else None
    if new is None:
        raise DriftStateError(f"{path}: no stratum or scope is in {FEWEST_WINDOWS} windows or more, which a baseline needs")
    return replace(new, origin="pinned")


def read(path: Path, origin: Origin) -> NewBaseline:
    """Return what the file at *path* holds, as of *origin*, every part checked.

    Raises:
        DriftStateError: It is no such file, was cut off, or is of another version of headwatch.
    """
    try:
        kept = path.read_bytes()
    except OSError as error:
        raise DriftStateError(f"{path} cannot be read: {error.strerror}") from error
    if not kept.startswith(MAGIC):
        raise DriftStateError(f"{path} is no baseline of headwatch")
    if kept[len(MAGIC) : len(MAGIC) + 1] != bytes([VERSION]):
        raise DriftStateError(f"{path} is a baseline of another version of headwatch; learn it anew")
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(kept[len(MAGIC) + 1 :], _MOST_BYTES)
        if not unpacker.eof:
            raise DriftStateError(f"{path} was cut off")
        found = msgspec.msgpack.decode(content, type=_File)
    except (zlib.error, msgspec.DecodeError) as error:
        raise DriftStateError(f"{path} cannot be read: {error}") from error
    for key, part in found.parts.items():
        if loads(part, Part).key.text != key:
            raise DriftStateError(f"{path}: the part {key!r} holds another one")
    return NewBaseline(
        origin, found.created_ns, found.first_window, found.last_window, found.windows, found.parts, found.note, found.facts
    )
