"""Recordings made anew from the frames that were kept with them: for a signal that is added or mended, without an engine.

The frames of the tape go the way that the sidecar's went, into the same aggregator and observer, with the times at which they
arrived as the clock.  What did not come over the wire is taken from the recordings that are there: canary runs, and where one
recording ends and the next begins.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.aggregate.head_map import load_head_map
from headwatch.aggregate.windows import Aggregator
from headwatch.bench.triage import recording, tape
from headwatch.bench.triage.stage import IDLE_SECONDS, WINDOW_REQUESTS
from headwatch.config import WindowConfig
from headwatch.demo.run import packaged_head_map
from headwatch.drift.observe import Observer
from headwatch.errors import CommandError, WireError
from headwatch.health import Health
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import StatusFrame, SummaryBatch
from headwatch.wire import codec, columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headwatch.bench.triage.recording import Recording
    from headwatch.findings import CanaryExhibit
    from headwatch.observed import ObservedWindow

_TICK_NS = 500_000_000
_AFTER_NS = 2 * 60 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    recording: Recording

    @property
    def end_ns(self) -> int:
        return max(window.end_ns for window in self.recording.windows)  # the last one to close need not end last


def observe_again(source: Path, target: Path) -> int:
    """Write to *target* the recordings of *source* as today's code observes them, and return how many.

    Raises:
        CommandError: The frames were not kept, or there are no recordings.
        HeadwatchError: A recording cannot be read or written.
    """
    if not (source / tape.TAPE).is_file():
        how = "`headwatch bench triage --record DIR --keep-frames`"
        raise CommandError(f"{source} has no {tape.TAPE}: frames are kept by {how}")
    paths = sorted(source.glob(f"*{recording.SUFFIX}"))
    places = [_Place(path.name, found) for path in paths if (found := recording.read(path)).windows]
    if not places:
        raise CommandError(f"{source} holds no recordings")
    places.sort(key=lambda place: place.end_ns)
    canaries = sorted(
        (run for place in places for window in place.recording.windows for run in window.canaries), key=lambda run: run.time_ns
    )
    target.mkdir(parents=True, exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kept: dict[str, list[ObservedWindow]] = {place.name: [] for place in places}
    for window in observed(source / tape.TAPE, canaries):
        place = _place_of(window, places)
        if place is not None:
            kept[place.name].append(window)
    on_tape = [place for place in places if kept[place.name]]  # of others the frames are on no tape here: they stay as they are
    for place in on_tape:
        recording.write(target / place.name, kept[place.name], place.recording.meta | {"observed_again": now})
    return len(on_tape)


def observed(path: Path, canaries: Sequence[CanaryExhibit]) -> Iterator[ObservedWindow]:
    """Yield the windows of the frames in the tape at *path*, in which *canaries* ended."""
    head_map = packaged_head_map()
    maps = {loaded.model: loaded.mask()} if head_map and (loaded := load_head_map(str(head_map))) else {}
    aggregator = Aggregator(WindowConfig(requests=WINDOW_REQUESTS, request_idle_seconds=IDLE_SECONDS), maps)
    observer, registry, waiting = Observer(requests=WINDOW_REQUESTS), WorkerRegistry(), list(canaries)

    def tick(now_ns: int) -> Iterator[ObservedWindow]:
        while waiting and waiting[0].time_ns <= now_ns:
            observer.canary(waiting.pop(0))
        windows, requests = aggregator.collect(now_ns)
        for batch in windows:
            observer.add_window(batch)
        observer.add_requests(requests)
        observer.health(Health(now_ns, registry.health(), dict(aggregator.counters), {}))
        yield from observer.release(now_ns)

    now_ns = 0
    for time_ns, payload in tape.frames(path):
        now_ns = now_ns or time_ns
        while time_ns - now_ns >= _TICK_NS:
            now_ns += _TICK_NS
            yield from tick(now_ns)
        try:
            frame = codec.decode(payload)
            if isinstance(frame, SummaryBatch):
                aggregator.add(frame, columns.view(frame))
                registry.summary(frame.worker, frame.sequence, time_ns)
            elif isinstance(frame, StatusFrame):
                registry.status(frame, time_ns)
        except WireError:
            continue
    yield from tick(now_ns + _AFTER_NS)


def _place_of(window: ObservedWindow, places: Sequence[_Place]) -> _Place | None:
    """Return the recording in whose time *window* ended; None for one between recordings.

    A worker's clock that was set ahead lays a recording over those that followed it: of several the one counts that had a
    window which ended at about that time.
    """
    within = [
        place for place in places
        if place.recording.windows[0].start_ns < window.end_ns <= place.end_ns + _TICK_NS
    ]  # fmt: skip
    return min(within, key=lambda place: min(abs(one.end_ns - window.end_ns) for one in place.recording.windows), default=None)
