"""What ingest knows of each worker: its latest status, and which of its frames never arrived.

A worker numbers its frames, dropped ones included, so a gap in the numbers is a loss.  The last number of each worker is
kept in a small file: a sidecar that was killed and started again counts what its workers sent in between and lost.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from headwatch.health import WorkerHealth

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headwatch.model import StatusFrame, WorkerIdentity

logger = logging.getLogger("headwatch.ingest")

MAX_WORKERS = 1024
SILENT_NS = 15_000_000_000
"""A worker that says nothing for so long is taken as gone."""
SKEW_NS = 30_000_000_000
"""A frame that comes late looks like a clock that is behind, so the frame of the last so long that came soonest is believed."""
_MOST_SKEWS = 64


class Watermark(msgspec.Struct):
    """The last frame seen of one life of a worker, and how many of it are missing so far."""

    next_sequence: int
    missing: int
    received: int


@dataclass(slots=True)
class _Entry:
    identity: WorkerIdentity
    mark: Watermark
    status: StatusFrame | None = None
    received_ns: int = 0
    skews: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_MOST_SKEWS))
    """When a status arrived, and its time minus the time then, in seconds."""

    @property
    def skew_seconds(self) -> float:
        """Return the worker's clock minus ours: delays only make a difference smaller, so the largest has the least of them."""
        return max((skew for _, skew in self.skews), default=0.0)


class WorkerRegistry:
    """Registers workers as their frames arrive.  Safe from threads."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._known = self._load()
        self._dirty = False

    def summary(self, worker: WorkerIdentity, sequence: int, now_ns: int) -> None:
        """Note that the summary frame *sequence* of *worker* arrived."""
        with self._lock:
            entry = self._entry(worker)
            if entry is None:
                return
            entry.received_ns = now_ns
            entry.mark.received += 1
            entry.mark.missing += max(0, sequence - entry.mark.next_sequence)
            entry.mark.next_sequence = max(entry.mark.next_sequence, sequence + 1)
            self._dirty = True

    def status(self, frame: StatusFrame, now_ns: int) -> None:
        """Note a status frame."""
        with self._lock:
            entry = self._entry(frame.worker)
            if entry is None:
                return
            entry.status = frame
            entry.received_ns = now_ns
            entry.skews.append((now_ns, (frame.time_ns - now_ns) / 1e9))
            while entry.skews[0][0] < now_ns - SKEW_NS:
                entry.skews.popleft()

    def health(self) -> tuple[WorkerHealth, ...]:
        """Return the state of every worker that has reported its status."""
        with self._lock:
            return tuple(
                WorkerHealth(
                    entry.status, entry.received_ns, entry.skew_seconds, entry.mark.received, entry.mark.missing
                )
                for entry in self._entries.values()
                if entry.status is not None
            )

    def save(self) -> None:
        """Write the watermarks, where they changed; a failure is logged and tried again next time."""
        if self._path is None:
            return
        with self._lock:
            if not self._dirty:
                return
            marks = {**self._known, **{key: entry.mark for key, entry in self._entries.items()}}
            payload = msgspec.json.encode(dict(list(marks.items())[-MAX_WORKERS:]))
            self._dirty = False
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(payload)
            temporary.replace(self._path)
        except OSError as error:
            self._dirty = True
            logger.warning("cannot write %s: %s", self._path, error.strerror)

    def _entry(self, worker: WorkerIdentity) -> _Entry | None:
        key = f"{worker.instance}/{worker.rank}/{worker.start_ns}"
        entry = self._entries.get(key)
        if entry is None:
            self._forget_earlier_lives(worker)
            if len(self._entries) >= MAX_WORKERS:
                return None
            entry = self._entries[key] = _Entry(worker, self._known.get(key) or Watermark(0, 0, 0))
        return entry

    def _forget_earlier_lives(self, worker: WorkerIdentity) -> None:
        for key, entry in list(self._entries.items()):
            same = entry.identity.instance == worker.instance and entry.identity.rank == worker.rank
            if same and entry.identity.start_ns < worker.start_ns:
                del self._entries[key]

    def _load(self) -> Mapping[str, Watermark]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Watermark])
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("cannot read %s, gaps before this start are not counted: %s", self._path, error)
            return {}
