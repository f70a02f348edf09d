"""Deliveries on their way to the store, on disk: what was appended is there after any kill, until the store has it.

Two lanes lead out.  *live* gives what is appended from now on, in order; *backlog* what waited before, likewise.  Whoever sends
takes from both in turn, so an outage that is over does not hold up what happens now.  A lane gives its record again and again
until it is done, so never more than one of each lane was tried and is unfinished.  That is what keeps replays exact: the store
knows a token for its last 1,000 inserts only, and a record that was tried is sent again before that.  The state on disk tells
which were tried, so it holds after a kill as well.

What the disk cannot read is skipped and counted, and its file kept until the room is needed: after the next start it is tried
again, unless it was tried before, when the store may have it and may have forgotten the token: what a start passed by is noted.

The folder belongs to one process (a lock).  Files are readable by their owner alone.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from headwatch.errors import SpoolError
from headwatch_exporters.spool.aside import FOLDER as ASIDE
from headwatch_exporters.spool.aside import MAX_BYTES as MAX_ASIDE_BYTES
from headwatch_exporters.spool.aside import Aside
from headwatch_exporters.spool.lane import Figures, Lane, Taken
from headwatch_exporters.spool.lock import lock
from headwatch_exporters.spool.losses import UNREADABLE, Losses, reason_of
from headwatch_exporters.spool.record import Record, decode, encode
from headwatch_exporters.spool.segment import HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame, Gap, Segment
from headwatch_exporters.spool.segments import Segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headwatch_exporters.spool.lane import LaneName
    from headwatch_exporters.spool.record import Batch

logger = logging.getLogger("headwatch.spool")

SEGMENTS = 32
"""The cap is so many segments: what makes room for new records goes in pieces of this size."""
LARGEST_SEGMENT_BYTES = 64 * 1024 * 1024


class Spool:
    """An open spool.  Safe from threads; *exclusive* is held by whoever sends or rewrites."""

    def __init__(self, folder: Path, max_bytes: int, *, fsync_seconds: float = 0.0, losses: Losses | None = None) -> None:
        """Open *folder*, made where it is missing.  *fsync_seconds* 0: each record is on disk before :meth:`append` returns.

        Raises:
            SpoolError: Another process has it (``in_use``), or the disk does not let us.
        """
        self.folder = folder
        self.losses = losses or Losses()
        self.exclusive = threading.Lock()
        self.changed = threading.Event()
        """Set when there is something to send."""
        self.max_bytes = max_bytes
        self._lock = threading.RLock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = lock(folder)
        except OSError as error:
            raise self._failed("open", error) from error
        try:
            self.aside = Aside(folder / ASIDE, self.losses, min(MAX_ASIDE_BYTES, max_bytes // 4))
            segment_bytes = min(LARGEST_SEGMENT_BYTES, max_bytes // SEGMENTS)
            self._segments = Segments(folder, segment_bytes, fsync_seconds, self._gap, self._passed)
        except OSError as error:
            os.close(self._held)
            raise self._failed("open", error) from error
        self.losses.errors["torn"] += self._segments.torn
        self._stand_at_the_start()
        self._tell_of_unopened()
        self._figures = self._count()

    def append(self, record: Record) -> None:
        """Keep *record*; the oldest segments make room where the cap is met.

        Raises:
            SpoolError: It is too large, or the disk does not take it: the spool is as it was.
        """
        payload = encode(record)
        size = len(payload) + HEADER_BYTES
        if len(payload) > MAX_PAYLOAD_BYTES or size > self.max_bytes // 4:
            self.losses.errors["too_large"] += 1
            raise SpoolError("too_large", f"a delivery of {len(payload):,} bytes is too large (spool.max_bytes)")
        with self._counted():
            try:
                self._make_room(size)
                self._segments.append(payload, record.time_ns)
            except OSError as error:
                raise self._failed("write to", error) from error
        self.changed.set()

    def take(self, name: LaneName) -> Taken | None:
        """Return the record whose turn it is in that lane, the same one until it is done; None where the lane is empty.

        Raises:
            SpoolError: The disk does not let us.
        """
        lane = self._lanes[name]
        with self._counted():
            try:
                while (found := lane.current or self._step(lane)) is not None:
                    segment, frame = found
                    try:
                        record = self._read(segment, frame)
                    except SpoolError as error:
                        self._give_up(segment, frame, str(error))
                        continue
                    lane.current = found
                    if frame.state == "PEND":
                        segment.mark(frame, "TRIE", sync=self._segments.syncs_each)
                        frame = replace(frame, state="TRIE")
                        lane.current = (segment, frame)
                    return Taken(segment, frame, record)
            except OSError as error:
                raise self._failed("read", error) from error
        return None

    def done(self, taken: Taken) -> None:
        """Let go of *taken*: the store has it.

        Raises:
            SpoolError: The disk does not let us; it will be sent again.
        """
        with self._counted():
            try:
                self._finish(taken.segment, taken.frame)
            except OSError as error:
                raise self._failed("write to", error) from error

    def set_aside(self, batch: Batch, reason: str, time_ns: int) -> None:
        """Set *batch* aside, which the store refuses for good.

        Raises:
            SpoolError: The disk does not let us; nothing was set aside.
        """
        with self._counted():
            try:
                self.aside.batch(batch, reason, time_ns)
            except OSError as error:
                raise self._failed("write to", error) from error

    def fall_behind(self) -> None:
        """Have all that waits and was not tried in the backlog: what comes from now on shall not wait for what fails."""
        with self._counted():
            self._boundary = self._segments.number
            live = self._lanes["live"]
            live.segment, live.offset = self._segments.last, self._segments.last.size

    def records(self) -> Iterator[Record]:
        """Yield what waits for the store, oldest first; what cannot be read is left out."""
        with self._lock:
            for segment in self._segments.all:
                for frame in self._segments.pending(segment):
                    with suppress(SpoolError):
                        yield self._read(segment, frame)

    def rewrite(self, transform: Callable[[Batch], Batch | None]) -> int:
        """Have each batch as *transform* returns it, None: gone; return how many changed.

        Waits for what is being sent.  Batches that were set aside are given to *transform* too.  What was delivered is deleted
        for good, and so is what cannot be read: nobody could say whether what is to go is in it.

        Raises:
            SpoolError: The disk does not let us; some of it may be as it was.
        """
        changed = 0

        def change(segment: Segment, frame: Frame) -> bytes | None:
            nonlocal changed
            try:
                record = self._read(segment, frame)
            except SpoolError:
                changed += 1
                return None
            kept = [(batch, transform(batch)) for batch in record.batches]
            changed += sum(after is not before for before, after in kept)
            batches = tuple(after for _, after in kept if after is not None)
            return encode(Record(record.time_ns, batches)) if batches else None

        with self.exclusive, self._counted():
            try:
                self._segments.rewrite(change)
                self._stand_at_the_start()
                self._tell_of_unopened()
                for path, batch in list(self.aside.entries()):
                    after = transform(batch) if batch is not None else None
                    if after is None or after is not batch:
                        self.aside.replace(path, after)
                        changed += 1
            except OSError as error:
                raise self._failed("rewrite", error) from error
        return changed

    @property
    def waiting(self) -> int:
        """Return how many records wait.  Like the other figures it is as of the last change: nobody waits for a slow disk."""
        return self._figures.waiting

    @property
    def disk_bytes(self) -> int:
        """Return what the spool takes on disk."""
        return self._figures.disk_bytes

    @property
    def oldest_ns(self) -> int:
        """Return when the oldest record that waits was made; 0: none does, or the disk does not say."""
        return self._figures.oldest_ns

    def close(self) -> None:
        """Have everything on disk and let go of the folder.  Nothing may be called afterwards."""
        with self._lock:
            try:
                self._segments.last.sync()
            except OSError as error:
                logger.error("%s", self._failed("write to", error))  # noqa: TRY400 - one line, at the edge
            self._segments.close()
            os.close(self._held)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Hold the lock, and have the figures right afterwards."""
        with self._lock:
            try:
                yield
            finally:
                self._figures = self._count()

    def _count(self) -> Figures:
        frames = [frame for _, frame in self._segments.tried]
        with suppress(OSError):
            for lane in self._lanes.values():
                frames += [found[1] for found in (lane.current, self._next(lane)) if found is not None]
        return Figures(self._segments.waiting, self._disk_bytes(), min((frame.time_ns for frame in frames), default=0))

    def _disk_bytes(self) -> int:
        return self._segments.disk_bytes + self.aside.disk_bytes

    def _stand_at_the_start(self) -> None:
        """Have all that waits in the backlog, and live what comes."""
        first, last = self._segments.first, self._segments.last
        self._boundary = self._segments.number
        self._lanes = {"backlog": Lane("backlog", first, first.start), "live": Lane("live", last, last.size)}

    def _make_room(self, size: int) -> None:
        """Drop the oldest segments that nobody sends from, until *size* fits.

        Raises:
            SpoolError: It does not fit, and none can go.
        """
        while self._disk_bytes() + size > self.max_bytes:
            held = [segment for segment, _ in self._segments.tried]
            held += [lane.current[0] for lane in self._lanes.values() if lane.current is not None]
            oldest = next((segment for segment in self._segments.all[:-1] if segment not in held), None)
            if oldest is None:
                self.losses.errors["full"] += 1
                raise SpoolError("full", f"the spool {self.folder} is full (spool.max_bytes), and what is in it is being sent")
            for frame in self._segments.pending(oldest):
                try:
                    self.losses.dropped("full", self._read(oldest, frame).batches)
                except SpoolError:
                    self.losses.batch("corrupt", UNREADABLE, 0)
            logger.error("the spool %s is full (spool.max_bytes): the oldest, %d, are lost", self.folder, oldest.pending)
            self._remove(oldest)

    def _step(self, lane: Lane) -> tuple[Segment, Frame] | None:
        """Return the next record of *lane* and step behind it; what was tried before this process began comes first."""
        if lane.name == "backlog" and self._segments.tried:
            return self._segments.tried.popleft()
        found = self._next(lane)
        if found is not None:
            lane.offset = found[1].end
        return found

    def _next(self, lane: Lane) -> tuple[Segment, Frame] | None:
        """Return the next record of *lane* that was never tried, and stay before it."""
        while True:
            found = lane.segment.next(lane.offset)
            if found is None:
                following = self._segments.following(lane.segment)
                if following is None:
                    return None
                lane.segment, lane.offset = following, following.start
            elif isinstance(found, Gap):
                if found.offset not in lane.segment.gaps:  # it was good when the file was opened
                    lane.segment.gaps[found.offset] = found.end
                    self._gap(lane.segment, found)
                    lane.segment.pending = sum(1 for _ in self._segments.pending(lane.segment))
                lane.offset = found.end
            elif lane.name == "backlog" and found.number >= self._boundary:
                return None
            elif found.state == "PEND":
                return lane.segment, found
            else:
                lane.offset = found.end

    @staticmethod
    def _read(segment: Segment, frame: Frame) -> Record:
        payload = segment.payload(frame)
        if payload is None:
            raise SpoolError("corrupt", "the checksum is wrong")
        return decode(payload)

    def _gap(self, segment: Segment, gap: Gap) -> None:
        if segment.is_unread(gap.offset, gap.end):
            self._unread(segment, gap.end - gap.offset)
        else:
            self._unreadable(segment.read(gap.offset, gap.end), "no record begins here", 0)

    def _passed(self, segment: Segment, frame: Frame) -> None:
        data = segment.read(frame.offset, frame.end)
        if segment.is_unread(frame.offset, frame.end):
            self._unread(segment, frame.end - frame.offset)
        else:
            self._unreadable(data, "it was tried, and could not be read at its turn: the store may have it", frame.time_ns)

    def _unread(self, segment: Segment, size: int) -> None:
        logger.error("the disk cannot read %d bytes of %s: %s; they are left out, and the file stays", size, segment.path,
                     segment.error)
        self.losses.errors["io"] += 1
        self.losses.batch("corrupt", UNREADABLE, 0)

    def _tell_of_unopened(self) -> None:
        for path, error in self._segments.unopened:
            logger.error("cannot open %s of the spool: %s; it is left out, and stays", path, error.strerror or error)
            self.losses.errors[reason_of(error)] += 1
            self.losses.batch("corrupt", UNREADABLE, 0)

    def _unreadable(self, data: bytes, reason: str, time_ns: int) -> None:
        logger.error("the spool %s gives up %d bytes: %s", self.folder, len(data), reason)
        self.losses.batch("corrupt", UNREADABLE, 0)
        try:
            self.aside.unreadable(data, reason, time_ns)
        except OSError as error:
            logger.error("they could not be set aside: %s", error.strerror)  # noqa: TRY400 - one line, at the edge

    def _give_up(self, segment: Segment, frame: Frame, reason: str) -> None:
        """Leave out the record at *frame*: set aside what it was, or leave it where it is if the disk could not read it."""
        if not segment.is_unread(frame.offset, frame.end):
            self._unreadable(segment.read(frame.offset, frame.end), reason, frame.time_ns)
            self._finish(segment, frame)
            return
        self._unread(segment, frame.end - frame.offset)
        segment.gaps[frame.offset] = frame.end
        if frame.state == "TRIE":
            with suppress(OSError):
                self._segments.give_up(segment, frame)
        self._let_go(segment, frame)

    def _finish(self, segment: Segment, frame: Frame) -> None:
        segment.mark(frame, "DONE", sync=False)
        self._let_go(segment, frame)

    def _let_go(self, segment: Segment, frame: Frame) -> None:
        segment.pending -= 1
        for lane in self._lanes.values():
            if lane.current == (segment, frame):
                lane.current = None
        if segment.pending or segment.unread:
            return
        if segment is not self._segments.last:
            self._remove(segment)
            return
        segment.cut(segment.start)
        for lane in self._lanes.values():
            if lane.segment is segment:
                lane.offset = segment.start

    def _remove(self, segment: Segment) -> None:
        """Delete *segment*; a lane that stood in it stands at the start of the next one."""
        following = self._segments.following(segment)
        for lane in self._lanes.values():
            if lane.segment is segment and following is not None:
                lane.segment, lane.offset = following, following.start
        self._segments.remove(segment)

    def _failed(self, what: str, error: OSError) -> SpoolError:
        reason = "in_use" if isinstance(error, BlockingIOError) else reason_of(error)
        self.losses.errors[reason] += 1
        if reason == "in_use":
            return SpoolError(reason, f"the spool {self.folder} is in use by another process; it belongs to one sidecar: stop "
                                      "the other, or give this one a folder of its own (spool.folder)")
        return SpoolError(reason, f"cannot {what} the spool {self.folder}: {error.strerror or error} (spool.folder)")
