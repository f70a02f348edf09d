"""Rows of canaries leave the stream here: they enter no window, no request record and no count of traffic.

A canary is a fixed prompt that headwatch itself sends through the server; were it counted, it would water down what it is
there to explain.  Whoever wants its rows gets them as they come, head by head; where nobody does, they are dropped.

Cost: one look at a string for a row of traffic; a set of ranks for each open canary, at most ``MAX_OPEN`` of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from headwatch.aggregate.ranks import Ending

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headwatch.model import RequestContext, WorkerIdentity

MAX_OPEN = 256
"""Canaries at once; rows of further ones are dropped and counted."""


class CanarySink(Protocol):
    """Takes the rows of canaries.  Called under the aggregator's lock: it must be quick, and never raise."""

    def add(
        self, worker: WorkerIdentity, context: RequestContext, position: int, features: NDArray[np.float32],
        layers: NDArray[np.int64], heads: slice, time_ns: int,
    ) -> None:
        """Take one row: *features* [L_frame, H_frame, F] of the heads *heads* of the global *layers*.

        *features* is a view of the frame; what is kept of it must be copied.
        """

    def finished(self, instance: str, engine_id: str) -> None:
        """Note that the request has ended on every rank, or has been silent for so long that it is taken as ended."""


@dataclass(slots=True)
class _Open:
    last_ns: int
    """Of the sidecar's clock, as of the last look."""
    ending: Ending = field(default_factory=Ending)
    fresh: bool = True
    """Whether a row has come since the last look."""


class CanaryRows:
    """Which canaries are under way.  Not safe from threads: the aggregator's lock is around it."""

    def __init__(self, sink: CanarySink | None, idle_ns: int) -> None:
        self._sink = sink
        self._idle_ns = idle_ns
        self._open: dict[tuple[str, str], _Open] = {}
        self.counters: Counter[str] = Counter()

    def add(
        self, worker: WorkerIdentity, context: RequestContext, position: int, features: NDArray[np.float32],
        layers: NDArray[np.int64], heads: slice, time_ns: int,
    ) -> None:
        """Hand one row on."""
        self.counters["canary_rows"] += 1
        if self._sink is None:
            return
        key = (worker.instance, context.engine_id)
        entry = self._open.get(key)
        if entry is None:
            if len(self._open) >= MAX_OPEN:
                self.counters["canary_rows_dropped"] += 1
                return
            entry = self._open[key] = _Open(time_ns)
        entry.fresh = True
        self._sink.add(worker, context, position, features, layers, heads, time_ns)

    def say(self, worker: WorkerIdentity, engine_id: str) -> None:
        """Note that *worker* ended the request *engine_id*, which may be no canary."""
        key = (worker.instance, engine_id)
        entry = self._open.get(key)
        if entry is not None:
            entry.ending.say(worker)
            if entry.ending.complete:
                self._finish(key)

    def collect(self, now_ns: int, *, everything: bool = False) -> None:
        """Finish what has ended or fallen silent by *now_ns*, or everything."""
        for key, entry in list(self._open.items()):
            if entry.fresh:
                entry.last_ns, entry.fresh = now_ns, False
            if everything or entry.ending.reached(now_ns) or now_ns - entry.last_ns > self._idle_ns:
                self._finish(key)

    def _finish(self, key: tuple[str, str]) -> None:
        del self._open[key]
        if self._sink is not None:
            self._sink.finished(*key)
