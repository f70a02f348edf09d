"""When baselines are learned: the course that a deployment takes from its first window on.

* The first one as soon as ``drift.min_baseline_windows`` windows are there that are under no suspicion, from all of them; but
  without the last ``drift.learning_lag_windows`` where any of those is suspicious.
* A learned one is learned anew when twice as many windows can be had, and from then on once in ``drift.max_baseline_windows``,
  always without the latest ``drift.learning_lag_windows``.  Seldom, because each time the evidence starts again at zero.  Never
  while an incident is open, while evidence is high, or soon after a page.  One that would differ from the one in force by more
  than :data:`CREEP` standard deviations is kept and not put in force: a slow drift must not become normal by itself.
* A stratum or scope that is new joins the baseline in force, on the clock's reserve, once it has been seen in
  ``drift.min_baseline_windows`` windows.
* A pinned or imported baseline stays in force until a person changes it; newcomers join it too.

Everything is decided by window numbers, so that a replay decides the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headwatch.drift.learning import Span

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from headwatch.config import DriftConfig
    from headwatch.drift.kept import BaselineEntry
    from headwatch.drift.parts import Key
    from headwatch.history.file import History

CREEP = 0.5
"""Root mean square over streams, in standard deviations."""
QUIET = 0.1
"""Of the interval: what the clock must be below for a baseline to be learned."""
EMPTY = "empty"
"""Why a window without any value teaches nothing; it arouses no suspicion of its neighbours."""
_MOST_CANDIDATES = 512


class Candidate(msgspec.Struct):
    """A stratum or scope that is not in the baseline."""

    first: int
    last: int
    windows: int = 1


class Course(msgspec.Struct):
    """Where it stands; plain JSON by msgspec."""

    since: int = 0
    """The first window that may be learned from: the last known change."""
    tried: int = -1
    """The window at which something was last learned, or found not to be good enough."""
    paged: int = -1
    promoted: int = -1
    """The window after which a person put a baseline in force."""
    candidates: dict[str, Candidate] = {}

    def note(self, number: int, seen: Iterable[Key], known: Collection[Key]) -> None:
        """Count the parts *seen* in window *number* that are not *known*."""
        joined = {key.text for key in known}
        self.candidates = {text: candidate for text, candidate in self.candidates.items() if text not in joined}
        for key in seen:
            if key in known:
                continue
            candidate = self.candidates.get(key.text)
            if candidate is None:
                if len(self.candidates) >= _MOST_CANDIDATES:
                    del self.candidates[min(self.candidates, key=lambda text: self.candidates[text].last)]
                self.candidates[key.text] = Candidate(number, number)
            else:
                candidate.last, candidate.windows = number, candidate.windows + 1


def first_span(
    history: History, config: DriftConfig, since: int, number: int, suspect: dict[int, str]
) -> tuple[Span | None, int]:
    """Return what a first baseline learns from after window *number*, and how many windows are still wanted until it can."""
    lag = config.learning_lag_windows
    recent = any(why != EMPTY and at > number - lag for at, why in suspect.items())
    last = number - lag if recent else number
    numbers = [at for at in history.numbers(max(since, last - config.max_baseline_windows + 1), last) if at not in suspect]
    missing = config.min_baseline_windows - len(numbers)
    if missing > 0:
        return None, missing
    return Span(history, numbers[0], numbers[-1], frozenset(suspect)), 0


def next_span(
    history: History, config: DriftConfig, course: Course, number: int, entry: BaselineEntry, suspect: dict[int, str]
) -> Span | None:
    """Return what the baseline after *entry* learns from after window *number*; None where it is not time."""
    last = number - config.learning_lag_windows
    wanted = min(2 * entry.windows, config.max_baseline_windows)
    fresh = wanted if 2 * entry.windows > config.max_baseline_windows else wanted - entry.windows
    if number < course.tried + max(fresh // 4, 1) or last - max(entry.last_window, course.promoted) < fresh:
        return None
    if entry.origin != "learned" or 0 <= last <= course.paged:
        return None
    numbers = [at for at in history.numbers(max(course.since, last - wanted + 1), last) if at not in suspect]
    enough = numbers and 10 * len(numbers) >= 9 * wanted
    return Span(history, numbers[0], numbers[-1], frozenset(suspect)) if enough else None
