"""What the pipeline hands over becomes observed windows: strata, signals, traffic, telemetry, canaries and releases.

Everything that drift detection looks at passes here once, so that a window in the history is all that there is to know.  A
request, a canary run or a release belongs to the window in which it ended; one that comes after that window was released
belongs to the next.  A sidecar that starts, or a window without traffic, makes windows with no strata: silence is an
observation too.

Cost: the open windows of :mod:`headwatch.drift.assemble` and at most :data:`MOST_WAITING` requests.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from headwatch.drift.assemble import Assembled, Assembler
from headwatch.drift.signals import DocumentBook, examples_of, signals_of
from headwatch.drift.telemetry import TelemetryMeter
from headwatch.drift.traffic_baseline import traffic_of
from headwatch.history.codec import rounded
from headwatch.observed import DRIFT_FEATURES, ObservedWindow, StratumWindow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwatch.findings import CanaryExhibit, DeployEvent
    from headwatch.health import Health
    from headwatch.records import RequestRecord, WindowBatch

MOST_WAITING = 16_384
"""Requests that wait for their window; further ones are counted and left out."""
_MOST_NOTES = 256
"""Canary runs and releases that wait for theirs; the oldest are left out."""


class Observer:
    """Makes observed windows.  Not safe from threads."""

    def __init__(
        self, features: tuple[str, ...] = DRIFT_FEATURES, window_ns: int = 60_000_000_000, first_number: int = 0,
        *, requests: int = 0, book: DocumentBook | None = None, workers_due_ns: int | None = None,
    ) -> None:
        """Begin with window *first_number*; what comes of earlier ones is late.

        *requests*: windows close when so many requests have ended; 0: by the clock.  *book* is what an earlier life knew of
        documents.  *workers_due_ns*: see :class:`~headwatch.drift.telemetry.TelemetryMeter`.
        """
        self._window_ns = window_ns
        self._assembler = Assembler(features, window_ns, first_number - 1, requests=requests)
        self._meter = TelemetryMeter(workers_due_ns)
        self.book = book if book is not None else DocumentBook()
        """What is known of documents from earlier windows."""
        self._records: list[tuple[int, RequestRecord]] = []
        self._canaries: deque[CanaryExhibit] = deque(maxlen=_MOST_NOTES)
        self._deploys: deque[DeployEvent] = deque(maxlen=_MOST_NOTES)
        self._own: Counter[str] = Counter()

    @property
    def counters(self) -> Counter[str]:
        """Return ``late_windows duplicate_windows other_shape future_windows requests_left_out``."""
        return self._assembler.counters + self._own

    def add_window(self, batch: WindowBatch) -> None:
        """Take one engine's window."""
        self._assembler.add(batch)

    def add_requests(self, records: Sequence[RequestRecord]) -> None:
        """Take requests that have ended."""
        for record in records:
            number = record.window if record.window >= 0 else record.ended_ns // self._window_ns
            if len(self._records) >= MOST_WAITING:
                self._own["requests_left_out"] += 1
                continue
            self._records.append((number, record))
            self._assembler.ended(number, record.ended_ns)

    def health(self, health: Health) -> None:
        """Look at the state of the pair; as often as it is known."""
        self._meter.add(health)
        self._assembler.alive(health.time_ns)

    def canary(self, exhibit: CanaryExhibit) -> None:
        """Take a canary run that has ended."""
        self._canaries.append(exhibit)

    def deploy(self, event: DeployEvent) -> None:
        """Take a release that was marked."""
        self._deploys.append(event)

    def release(self, now_ns: int, *, everything: bool = False) -> Iterator[ObservedWindow]:
        """Yield the windows that are complete at *now_ns*, or all, oldest first."""
        for window in self._assembler.release(now_ns, everything=everything):
            yield self._observed(window)

    def _observed(self, window: Assembled) -> ObservedWindow:
        records = [record for number, record in self._records if number <= window.number]
        self._records = [(number, record) for number, record in self._records if number > window.number]
        signals = signals_of(records, self.book)
        canaries = tuple(item for item in self._canaries if item.time_ns < window.end_ns)
        deploys = tuple(item for item in self._deploys if item.time_ns < window.end_ns)
        self._canaries = deque((item for item in self._canaries if item.time_ns >= window.end_ns), _MOST_NOTES)
        self._deploys = deque((item for item in self._deploys if item.time_ns >= window.end_ns), _MOST_NOTES)
        strata = {
            stratum: StratumWindow(rounded(seen.values), seen.rows, seen.covariates, seen.heads)
            for stratum, seen in window.strata.items()
        }
        return ObservedWindow(
            number=window.number, start_ns=window.start_ns, end_ns=window.end_ns, strata=strata, signals=signals,
            traffic=traffic_of(records), telemetry=self._meter.window(), requests=examples_of(records, book=self.book),
            canaries=canaries, deploys=deploys,
        )  # fmt: skip
