"""The files of a spool, oldest first: made as they fill up, deleted once everything in them is done."""

from __future__ import annotations

import re
import time
from collections import deque
from typing import TYPE_CHECKING

from headwatch.durable import sync_folder
from headwatch_exporters.spool.passed import WHOLE, forget, forget_others, pass_by, passed_by
from headwatch_exporters.spool.segment import Frame, Gap, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NAME = re.compile(r"\d{20}\.seg")


class Segments:
    """Open segment files, one at least; the last takes what is appended."""

    def __init__(
        self,
        folder: Path,
        segment_bytes: int,
        fsync_seconds: float,
        on_gap: Callable[[Segment, Gap], None],
        on_passed: Callable[[Segment, Frame], None],
    ) -> None:
        """Take up what lies in *folder*.

        *on_gap* is told of bytes that are no record, *on_passed* of a record that is given up: tried, and passed by since.

        Raises:
            OSError: The disk does not let us.
        """
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._fsync_seconds = fsync_seconds
        self._on_gap = on_gap
        self._on_passed = on_passed
        self._synced = time.monotonic()
        self.torn = 0
        """Records that a kill left half written; nobody was told that they are spooled."""
        self.load()

    def load(self) -> None:
        """Take up what lies in the folder.

        Raises:
            OSError: The disk does not let us.
        """
        self.all: list[Segment] = []
        self.tried: deque[tuple[Segment, Frame]] = deque()
        """Records that were tried by a process before this one, or before a rewrite, and are not done."""
        self.unopened: list[tuple[Path, OSError]] = []
        """Files that the disk does not let us open."""
        self.number = 1
        """Of the next record."""
        paths = sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        forget_others(self._folder, paths)
        for path in paths:
            try:
                segment = Segment(path)
            except OSError as error:
                pass_by(path, 0, WHOLE)
                self.unopened.append((path, error))
                self.number = max(self.number, int(path.stem) + 1)
                continue
            self.number = max(self.number, int(path.stem))
            self._scan(segment, last=path is paths[-1])
            if segment.unread:  # its name is taken
                self.number = max(self.number, int(path.stem) + 1)
            if segment.pending or segment.unread:
                self.all.append(segment)
            else:
                segment.delete()
        if not self.all or self.last.unread:
            self.all.append(self._create(self._path()))

    @property
    def first(self) -> Segment:
        """Return the oldest segment."""
        return self.all[0]

    @property
    def last(self) -> Segment:
        """Return the segment that takes what is appended."""
        return self.all[-1]

    @property
    def disk_bytes(self) -> int:
        """Return what all segments take on disk."""
        return sum(segment.size for segment in self.all)

    @property
    def waiting(self) -> int:
        """Return how many records are not done."""
        return sum(segment.pending for segment in self.all)

    @property
    def syncs_each(self) -> bool:
        """Return whether each record is on disk before it counts."""
        return not self._fsync_seconds

    def append(self, payload: bytes, time_ns: int) -> None:
        """Write a record behind all others.

        Raises:
            OSError: No space, or the disk fails: everything is as it was.
        """
        if self.last.size > self.last.start and self.last.size + len(payload) > self._segment_bytes:
            self.all.append(self._create(self._path()))
        due = self.syncs_each or time.monotonic() - self._synced >= self._fsync_seconds
        self.last.append(payload, self.number, time_ns, sync=due)
        self.number += 1
        if due:
            self._synced = time.monotonic()

    def following(self, segment: Segment) -> Segment | None:
        """Return the segment behind *segment*; None behind the last."""
        place = self.all.index(segment) + 1
        return self.all[place] if place < len(self.all) else None

    def remove(self, segment: Segment) -> None:
        """Delete *segment*."""
        self.all.remove(segment)
        segment.delete()

    def pending(self, segment: Segment) -> Iterator[Frame]:
        """Yield the records of *segment* that are not done."""
        offset = segment.start
        while (found := segment.next(offset)) is not None:
            if isinstance(found, Frame) and found.state != "DONE":
                yield found
            offset = found.end

    def give_up(self, segment: Segment, frame: Frame) -> None:
        """Have *frame*, which was tried, never sent again: mark it as done, or note it where the disk does not take the mark.

        Raises:
            OSError: It takes neither.
        """
        _finish(segment, frame)
        pass_by(segment.path, segment.size, segment.passed)

    def rewrite(self, change: Callable[[Segment, Frame], bytes | None]) -> None:
        """Write every segment anew, with the payload of each record that is not done as *change* returns it; None: gone.

        What cannot be read is gone as well.

        Raises:
            OSError: The disk does not let us; some segments may be as they were.
        """
        for segment in self.all:
            new = self._create(segment.path.with_suffix(".tmp"))
            try:
                for frame in self.pending(segment):
                    payload = change(segment, frame)
                    if payload is not None:
                        written = new.append(payload, frame.number, frame.time_ns, sync=False)
                        new.mark(written, frame.state, sync=False)
                new.sync()
                new.path.replace(segment.path)
                forget(segment.path)
            except OSError:
                new.path.unlink(missing_ok=True)
                raise
            finally:
                new.close()
        for path, _ in self.unopened:
            path.unlink(missing_ok=True)
        self.close()
        self.load()

    def close(self) -> None:
        """Close all files."""
        for segment in self.all:
            segment.close()

    def _path(self) -> Path:
        return self._folder / f"{self.number:020d}.seg"

    def _create(self, path: Path) -> Segment:
        path.with_suffix(".tmp").unlink(missing_ok=True)  # of a rewrite that was killed
        segment = Segment(path, create=True)
        if self.syncs_each:
            sync_folder(self._folder)  # a file whose name is lost is lost
        return segment

    def _scan(self, segment: Segment, *, last: bool) -> None:
        """Count what waits in *segment*, remember what was tried, give up what was passed by since, and note what is now."""
        passed = passed_by(segment.path, segment.size)
        offset, size = segment.start, segment.size
        while (found := segment.next(offset)) is not None:
            offset = found.end
            if isinstance(found, Gap):
                unread = segment.is_unread(found.offset, found.end)
                if found.end == segment.size and not unread:
                    size = found.offset
                if last and found.end == segment.size and not unread:
                    self.torn += 1
                    continue
                segment.gaps[found.offset] = found.end
                segment.passed += [(found.offset, found.end)] if unread else []
                self._on_gap(segment, found)
                continue
            self.number = max(self.number, found.number + 1)
            if found.state == "TRIE" and any(start <= found.offset < end for start, end in passed):
                self._on_passed(segment, found)
                _finish(segment, found)
                continue
            segment.pending += found.state != "DONE"
            if found.state == "TRIE":
                self.tried.append((segment, found))
        pass_by(segment.path, size, segment.passed)
        if size < segment.size:
            segment.cut(size)  # what is appended must not become the end of a record that was cut off


def _finish(segment: Segment, frame: Frame) -> None:
    try:
        segment.mark(frame, "DONE", sync=True)
    except OSError:
        segment.gaps[frame.offset] = frame.end
        segment.passed.append((frame.offset, frame.end))
