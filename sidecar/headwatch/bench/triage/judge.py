"""What the product would have told an engineer of each recorded run.

Every run is watched as a sidecar watches: the baseline is learned from its recording, the run's windows follow, and the first
page is held against what was done.  Nothing is simplified: it is :class:`headwatch.watch.watch.Watch`, with its files, on the
windows that a real sidecar observed.  A page before the change is a false one, whatever it says.

Cost: a second or two a run, most of it detection over a few dozen windows.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch.bench.triage import recording
from headwatch.bench.triage.canaries import EVERY, Canaries
from headwatch.config import Config, DriftConfig, IncidentConfig, WindowConfig
from headwatch.drift.telemetry import is_suspect
from headwatch.errors import CommandError
from headwatch.watch.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwatch.bench.triage.recording import Run
    from headwatch.findings import Incident
    from headwatch.observed import ObservedWindow

INTERVAL_WINDOWS = 1000.0
"""The promise: one false page in so many windows, all strata, features and families together."""
_RESTED_NS = 1_000_000_000


class Page(msgspec.Struct, frozen=True):
    """One page of one run."""

    drift_class: str
    cause: str
    confidence: float
    runner_up: str | None
    sentence: str
    windows: int
    """From the change on, the page's own included; 0 and less: before the change."""


class Outcome(msgspec.Struct, frozen=True):
    """What one run came to."""

    scenario: str
    run: int
    split: str
    """``development`` or ``report``."""
    expected: str
    pages: list[Page]
    notices: list[str]
    """Causes of incidents that paged nobody: changes of traffic."""
    windows: int
    """Windows watched from the change on."""

    @property
    def paged(self) -> str:
        """Return the class of the first page; empty where there is none."""
        return self.pages[0].drift_class if self.pages else ""

    @property
    def false_page(self) -> bool:
        """Return whether somebody was woken for nothing."""
        return any(self.expected == "innocent" or page.windows <= 0 for page in self.pages)

    @property
    def right(self) -> bool:
        """Return whether an engineer was told what happened: the right class first, or nothing where nothing happened."""
        if self.false_page:
            return False
        return self.paged == ("" if self.expected == "innocent" else self.expected)


@dataclass(slots=True)
class _Followed:
    pages: list[Page] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def see(self, incident: Incident, windows: int) -> None:
        verdict = incident.verdict
        if incident.paged and incident.id not in self.known:
            self.known.add(incident.id)
            self.pages.append(Page(verdict.drift_class, verdict.cause, verdict.confidence, verdict.runner_up, verdict.sentence,
                                   windows))  # fmt: skip
        elif not incident.paged and verdict.cause not in self.notices:
            self.notices.append(verdict.cause)


def config_of(baseline: Sequence[ObservedWindow], interval_windows: float = INTERVAL_WINDOWS) -> Config:
    """Return the settings that runs are judged with: the defaults, but for a baseline of minutes, learned from all of it."""
    sound = sum(not is_suspect(window.telemetry) for window in baseline)
    return Config(
        drift=DriftConfig(
            interval_windows=interval_windows, min_baseline_windows=sound, max_baseline_windows=len(baseline),
            learning_lag_windows=0,
        ),
        window=WindowConfig(seconds=mean_seconds(baseline), requests=1),
        incident=IncidentConfig(route="none"),
    )  # fmt: skip


def mean_seconds(windows: Sequence[ObservedWindow]) -> float:
    """Return the mean length of *windows*."""
    return max(sum(window.end_ns - window.start_ns for window in windows) / max(len(windows), 1) / 1e9, 1e-3)


def judged(
    folder: Path, names: Sequence[str], expected: Callable[[str], str], interval_windows: float = INTERVAL_WINDOWS
) -> Iterator[Outcome]:
    """Yield what each of the recordings *names* in *folder* came to; *expected* says what a scenario should be told as.

    Raises:
        CommandError: No baseline can be learned from the recording.
        HeadwatchError: A recording cannot be read.
    """
    baseline = recording.joined(recording.read(folder / f"{recording.BASELINE}{recording.SUFFIX}").windows)
    config = config_of(baseline, interval_windows)
    with tempfile.TemporaryDirectory(prefix="headwatch-triage-") as work:
        learned = Path(work) / "learned"
        _learn(config, learned, baseline)
        for name in names:
            run = recording.run_of(folder, name)
            place = Path(work) / "run"
            shutil.copytree(learned, place)
            try:
                yield _watched(config, place, baseline, run, expected(run.scenario))
            finally:
                shutil.rmtree(place)


def _learn(config: Config, folder: Path, baseline: Sequence[ObservedWindow]) -> None:
    watch = Watch(config, folder, lambda: baseline[-1].end_ns)
    try:
        for window in baseline:
            watch.take(window)
        if not watch.engine.parts:
            raise CommandError(f"no baseline could be learned from {len(baseline)} windows")
    finally:
        watch.close()


def _watched(config: Config, folder: Path, baseline: Sequence[ObservedWindow], run: Run, expected: str) -> Outcome:
    *_, last = baseline
    windows = recording.joined(baseline, run.windows)[len(baseline) :]
    shift = last.end_ns + _RESTED_NS - windows[0].start_ns
    now, found = last.end_ns, _Followed()
    canaries = Canaries(since=run.number % EVERY)
    watch = Watch(config, folder, lambda: now, ask_canary=canaries.ask)
    try:
        for number, window in enumerate(recording.shifted(item, shift) for item in windows):
            now = window.end_ns
            for change in watch.take(canaries.passed(window)).changes:
                found.see(change.incident, number + 1 - run.lead)
    finally:
        watch.close()
    return Outcome(run.scenario, run.number, run.split, expected, found.pages, found.notices, len(windows) - run.lead)
