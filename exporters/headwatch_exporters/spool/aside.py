"""What was set aside: batches that the store refuses for good, and bytes of the spool that are no record.

Each is a pair of files, the bytes and a JSON with the reason.  There are never more than :data:`MAX_ENTRIES` pairs of
:data:`MAX_BYTES` together: what was set aside longest makes room.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from headwatch_exporters.spool.record import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch_exporters.spool.losses import Losses

FOLDER = "poison"
"""In the spool's folder."""
MAX_ENTRIES = 100
MAX_BYTES = 64 * 1024 * 1024
MAX_REASON_CHARACTERS = 1000


class Note(msgspec.Struct, frozen=True):
    """Why something was set aside, and what it was; without a table it is bytes that nobody could read."""

    reason: str
    time_ns: int
    """When the delivery was made."""
    table: str = ""
    columns: tuple[str, ...] = ()
    token: str = ""
    rows: int = 0
    native_bytes: int = 0


class Aside:
    """The folder; it is made when there is something to put into it."""

    def __init__(self, folder: Path, losses: Losses, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._losses = losses
        self._max_bytes = max_bytes
        self.disk_bytes = sum(path.stat().st_size for path in self._files())
        """What all of it takes on disk."""
        self.batches = 0
        """Set aside since the process started."""

    def batch(self, batch: Batch, reason: str, time_ns: int) -> None:
        """Set *batch* aside; one that is larger than all that may lie here is lost, and counted.

        Raises:
            OSError: The disk takes no more: nothing was set aside.
        """
        table, columns, token, rows, size, block = msgspec.structs.astuple(batch)
        if len(block) > self._max_bytes:
            self._losses.batch("aside_full", table, rows)
            return
        self._put(Note(reason[:MAX_REASON_CHARACTERS], time_ns, table, columns, token, rows, size), block, ".native.zst")

    def unreadable(self, data: bytes, reason: str, time_ns: int) -> None:
        """Set *data* aside, of which nobody knows what it was: as much of it as may lie here.

        Raises:
            OSError: The disk takes no more: nothing was set aside.
        """
        self._put(Note(reason[:MAX_REASON_CHARACTERS], time_ns), data[: self._max_bytes], ".bytes")

    def entries(self) -> Iterator[tuple[Path, Batch | None]]:
        """Yield what was set aside, longest first: the path of its bytes, and the batch where it is one."""
        for path, note in listed(self.folder):
            batch = None
            if note.table:
                batch = Batch(note.table, note.columns, note.token, note.rows, note.native_bytes, path.read_bytes())
            yield path, batch

    def told(self, path: Path, reason: str) -> None:
        """Have *reason* beside what lies at *path*: what the store said of it last.

        Raises:
            OSError: The disk takes no more: the reason is as it was.
        """
        note = msgspec.json.encode(msgspec.structs.replace(_note(path), reason=reason[:MAX_REASON_CHARACTERS]))
        target = _note_path(path)
        new = target.with_suffix(".tmp")
        new.touch(mode=0o600)
        new.write_bytes(note)
        self.disk_bytes += len(note) - target.stat().st_size
        new.replace(target)

    def replace(self, path: Path, batch: Batch | None) -> None:
        """Put *batch* in the place of what lies at *path*; None: delete it."""
        note = _note(path)
        self._delete(path)
        if batch is not None:
            self._write(path, msgspec.structs.replace(note, rows=batch.rows, native_bytes=batch.native_bytes), batch.block)

    def _put(self, note: Note, data: bytes, suffix: str) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._make_room(len(data))
        stem = f"{time.time_ns():020d}-{self.batches:06d}"
        self._write(self.folder / f"{stem}{suffix}", note, data)
        self.batches += 1

    def _write(self, path: Path, note: Note, data: bytes) -> None:
        """Write the reason first: bytes without one are as good as lost."""
        try:
            for target, content in ((_note_path(path), msgspec.json.encode(note)), (path, data)):
                target.touch(mode=0o600)
                self.disk_bytes += target.write_bytes(content)
        except OSError:
            self._delete(path)
            raise

    def _make_room(self, size: int) -> None:
        kept = [path for path in self._files() if path.suffix != ".json"]
        while kept and (len(kept) >= MAX_ENTRIES or self.disk_bytes + size > self._max_bytes):
            oldest = kept.pop(0)
            note = _note(oldest)
            self._delete(oldest)
            self._losses.batch("aside_full", note.table, note.rows)

    def _files(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []

    def _delete(self, path: Path) -> None:
        for target in (path, _note_path(path)):
            with suppress(FileNotFoundError):
                size = target.stat().st_size
                target.unlink()
                self.disk_bytes -= size


def listed(folder: Path) -> list[tuple[Path, Note]]:
    """Return what lies in *folder*, longest first, each with its reason; also while a sidecar uses it."""
    if not folder.is_dir():
        return []
    return [(path, _note(path)) for path in sorted(folder.iterdir()) if path.name.endswith((".native.zst", ".bytes"))]


def _note(path: Path) -> Note:
    try:
        return msgspec.json.decode(_note_path(path).read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Note("the reason is lost", 0)


def _note_path(path: Path) -> Path:
    return path.with_name(path.name.split(".", 1)[0] + ".json")
