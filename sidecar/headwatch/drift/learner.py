"""Learns what it is time to learn: a first baseline, the next one, a part that is new.

When that is, is said in :mod:`headwatch.drift.course`; how, in :mod:`headwatch.drift.learning`.  Nothing is kept or put in
force here: the engine does that, in the transaction of the window that decided it.

Cost: a few milliseconds a window while a first baseline is awaited; seconds where something is learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headwatch.drift.codec import loads
from headwatch.drift.course import CREEP, first_span, next_span
from headwatch.drift.learning import Span, learn
from headwatch.drift.parts import Key, Part
from headwatch.drift.versions import creep, learned
from headwatch.observed import closed_by_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.config import DriftConfig
    from headwatch.drift.course import Course
    from headwatch.drift.kept import BaselineEntry, NewBaseline
    from headwatch.history.file import History
    from headwatch.observed import ObservedWindow

_RETRIES = 20
"""Where no part could be learned, it is tried again after this part of the windows that a baseline needs."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A baseline, and whether it may come into force."""

    baseline: NewBaseline
    parts: dict[Key, Part]
    accepted: bool


class Learner:
    """Reads the history; *window_seconds* is the nominal length of a window."""

    def __init__(self, config: DriftConfig, window_seconds: float, history: History) -> None:
        self._config = config
        self._window_seconds = window_seconds
        self._history = history

    def first(self, window: ObservedWindow, course: Course, suspect: dict[int, str]) -> Learned | None:
        """Return a first baseline after *window*, where there are windows enough."""
        if window.number < course.tried + max(self._config.min_baseline_windows // _RETRIES, 1):
            return None
        span, _ = first_span(self._history, self._config, course.since, window.number, suspect)
        return self._learned(span, window, course, {}, "") if span is not None else None

    def following(
        self, window: ObservedWindow, course: Course, suspect: dict[int, str], entry: BaselineEntry, parts: Mapping[Key, Part]
    ) -> Learned | None:
        """Return the baseline after *entry*, whose *parts* are in force, where it is time."""
        span = next_span(self._history, self._config, course, window.number, entry, suspect)
        return self._learned(span, window, course, parts, f"version {entry.version}") if span is not None else None

    def newcomer(self, window: ObservedWindow, course: Course, suspect: dict[int, str]) -> Part | None:
        """Return a part that has been seen for long enough; one a window, since a fit takes its time."""
        lag = self._config.learning_lag_windows
        for text, candidate in course.candidates.items():
            if candidate.windows < self._config.min_baseline_windows + lag:
                continue
            last = window.number - lag
            first = max(candidate.first, last - self._config.max_baseline_windows + 1)
            candidate.first, candidate.windows = window.number, 0  # where it is too rare, count anew
            key = Key.of(text)
            span = Span(self._history, first, last, frozenset(suspect))
            found = learn(span, self._config, self._cycle_seconds(window), {key})
            return next((part for part in found if part.key == key), None)
        return None

    def pages_from_ns(self, window: ObservedWindow, course: Course, suspect: dict[int, str]) -> int:
        """Return when the first baseline will be long enough at the windows' pace; 0 where that cannot be told."""
        _, wanted = first_span(self._history, self._config, course.since, window.number, suspect)
        numbers, times = self._history.span(), self._history.times()
        if numbers is None or times is None:
            return 0
        length_ns = (times[1] - times[0]) / (numbers[1] - numbers[0] + 1)
        return window.end_ns + int(max(wanted, 1) * length_ns)

    def _learned(
        self, span: Span, window: ObservedWindow, course: Course, before: Mapping[Key, Part], name: str
    ) -> Learned | None:
        course.tried = window.number
        new = learned(span, self._config, self._cycle_seconds(window), window.end_ns)
        if new is None:
            return None
        parts = {part.key: part for part in (loads(content, Part) for content in new.parts.values())}
        crept = creep(before, parts)
        if crept <= CREEP:
            return Learned(new, parts, accepted=True)
        note = f"not put in force: {crept:.2f} standard deviations away from {name}"
        return Learned(replace(new, note=note), parts, accepted=False)

    def _cycle_seconds(self, window: ObservedWindow) -> float:
        """Return the length of a window where its number tells the time of the day, or 0."""
        return 0.0 if closed_by_count(window, self._window_seconds) else self._window_seconds
