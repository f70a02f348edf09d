"""The pager's engine: window after window against the baseline in force, on one clock.

The promise: while nothing changes, the mean time between pages is at least the interval that was configured, whatever strata,
features and families depend on each other (docs/method.md says where that ends).  A page takes the evidence with it: the clock
starts again at zero.  Families in shadow have a clock of their own, which makes the same promise, pages nobody, stops no
learning and marks no window.  Weights are kept with the state: where they are others than before, evidence begins anew.

One window goes ``history → step → (incident) → save``, in this order, and each is idempotent, so a kill at any instant leads
to the same pages: a window that was kept and not saved is stepped again from the state before it.  Windows that are late or
come twice change nothing.  What is decided by itself (learning, newcomers) is decided by window numbers and not by the clock
on the wall, and is saved in the transaction of the window that decided it.

Windows under suspicion (a telemetry fault) count as missing: they give no evidence and teach nothing.  While frozen (an
incident is open) evidence is still gathered, but nothing is learned.

Cost: the monitors' update; one transaction a window, which writes some 160 bytes a stratum, feature and head.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from headwatch.drift import resolve
from headwatch.drift.codec import dumps
from headwatch.drift.course import EMPTY, QUIET, Course
from headwatch.drift.explain import LOOK_BACK, Explainer
from headwatch.drift.kept import NONE, BaselineEntry, Changes, NewBaseline
from headwatch.drift.learner import Learned, Learner
from headwatch.drift.parts import Key, Part, sources
from headwatch.drift.saved import from_bytes, to_bytes
from headwatch.drift.status import standing, status_of
from headwatch.drift.telemetry import is_suspect
from headwatch.drift.versions import read_parts, usual
from headwatch.drift.watched import Clock, Watched
from headwatch.drift.weights import clocks
from headwatch.errors import DriftStateError
from headwatch.observed import DRIFT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headwatch.config import DriftConfig
    from headwatch.drift.keeper import Keeper
    from headwatch.drift.parts import Source, View
    from headwatch.drift.status import State
    from headwatch.drift.telemetry import TelemetryBaseline
    from headwatch.drift.traffic_baseline import TrafficBaseline
    from headwatch.drift.weights import Weights
    from headwatch.findings import DriftEvent, DriftStatus
    from headwatch.history.file import History
    from headwatch.observed import ObservedWindow

logger = logging.getLogger("headwatch.drift")

DAY_SECONDS = 86_400.0
TELEMETRY = "telemetry"
"""Why a window counts as missing."""
_CALM_REACH = 8
"""Times as many windows as must be calm are looked through for them, where some are missing."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one window came to."""

    status: DriftStatus
    event: DriftEvent | None
    """The page, where the clock reached the interval; also in shadow mode."""
    in_shadow: DriftEvent | None = None
    """What families in shadow would have paged; never sent."""


def interval_windows(config: DriftConfig, window_seconds: float) -> float:
    """Return the promised mean time between false alarms, in windows."""
    return max(config.interval_windows or config.false_alarm_days * DAY_SECONDS / window_seconds, 1.0)


class DriftEngine:
    """Detection for all that reports to one sidecar.  Not safe from threads."""

    def __init__(self, config: DriftConfig, window_seconds: float, keeper: Keeper, history: History) -> None:
        """Go on where *keeper* says that the last window was saved.  *window_seconds* is the nominal length of a window.

        Raises:
            ConfigError: A setting of weights, or ``drift.shadow_families``, names what there is not, or nothing could page.
        """
        self._config = config
        self._window_seconds = window_seconds
        self._keeper = keeper
        self._history = history
        self._learner = Learner(config, window_seconds, history)
        self.interval = interval_windows(config, window_seconds)
        self.window = keeper.window()
        """The last window that was taken; -1 before the first."""
        facts = keeper.facts()
        self._course = msgspec.convert(facts.get("course", {}), Course)
        self._frozen = bool(facts.get("frozen"))
        pager, shadow = clocks(config)
        self._weights = _plain(pager, shadow)
        self._pager = Clock(pager, facts.get("evidence_from", 0))
        self._shadow = Clock(shadow, facts.get("shadow_from", 0)) if shadow is not None else None
        self._marked: dict[int, str] = {}
        self._newcomers: dict[str, tuple[int, bytes]] = {}
        self._learned: NewBaseline | None = None
        self._promote = False
        self._last: Step | None = None
        self._promotion, self._version = 0, NONE
        self._entry: BaselineEntry | None = None
        self._orders: dict[Key, int] = {}
        self._watched: dict[Key, Watched] = {}
        self._in_force(*keeper.in_force())
        if keeper.saved_for() == self._promotion:
            self._restore(keeper.states())
        if self.window >= 0 and facts.get("weights", _before_weights_were_kept(config)) != self._weights:
            logger.warning("weights or families in shadow are others than before: evidence begins anew")
            for clock in self._clocks:
                clock.reset(self._watched.values(), self.window)

    @property
    def version(self) -> int:
        """Return the version of the baseline in force; 0 where none is."""
        return self._version

    @property
    def parts(self) -> dict[Key, Part]:
        """Return what is watched."""
        return {key: watched.part for key, watched in self._watched.items()}

    @property
    def frozen(self) -> bool:
        """Return whether nothing is learned at present."""
        return self._frozen

    @property
    def normal_since(self) -> int:
        """Return from which window on what is seen is the normal: after the last change that was accepted."""
        return self._course.since

    def usual(self) -> tuple[TrafficBaseline, TelemetryBaseline]:
        """Return what traffic and telemetry were like in the baseline in force; empty baselines where none is."""
        return usual(self._entry.facts if self._entry is not None else {})

    def begin(self, number: int) -> None:
        """Leave aside what came before window *number*: nothing is learned from it or shown of it."""
        self._course.since = max(self._course.since, number)
        self._gather_from(number)

    def missed(self) -> Iterator[ObservedWindow]:
        """Yield the windows that were kept in the history and not saved here: those to step first after a kill."""
        if self.window >= 0:
            yield from self._history.read(self.window + 1)

    def step(self, window: ObservedWindow) -> Step:
        """Take *window*.  Nothing of it is lasting before :meth:`save`.

        Raises:
            HistoryError: The window cannot be kept.
        """
        if window.number <= self.window:
            return Step(self._last.status if self._last is not None else self._status(window, {}), None)
        if not self._history.read_only:
            self._history.append(window)
        self._notice()
        self.window = window.number
        found = sources(window, DRIFT_FEATURES)
        why = self._suspicion(window, found)
        if why:
            self._marked[window.number] = why
        views: dict[Key, View] = {}
        if why != TELEMETRY:
            views = {key: view for key, item in self._watched.items() if (view := item.part.view(found)) is not None}
            for key, view in views.items():
                self._watched[key].monitor.step(window.number, view.values, view.rows, view.covariates)
        status = self._status(window, views) if self._watched else None
        event = self._page(window)
        in_shadow = self._page_in_shadow(window)
        self._course.note(window.number, found if not why else (), self._concerned())
        self._learn(window)
        if status is None or self._promote:
            status = self._status(window, {})
        self._last = Step(status, event, in_shadow)
        return self._last

    def save(self, further: Mapping[str, object] = MappingProxyType({})) -> None:
        """Make the windows that were taken lasting, with *further* facts about them, all or nothing."""
        facts = {
            "course": msgspec.to_builtins(self._course), "frozen": self._frozen,
            "weights": self._weights, "evidence_from": self._pager.evidence_from,
            "shadow_from": self._shadow.evidence_from if self._shadow is not None else 0,
            "status": msgspec.to_builtins(self._last.status) if self._last is not None else None,
        }  # fmt: skip
        states = {key.text: to_bytes(item.monitor.save()) for key, item in self._watched.items()}
        promotion, version = self._keeper.save(Changes(
            window=self.window, promotion=self._promotion, version=self._version, facts={**further, **facts}, states=states,
            suspect=self._marked, newcomers=self._newcomers, baseline=self._learned, promote=self._promote,
        ))  # fmt: skip
        if self._promote:
            self._promotion, self._version = promotion, version
            self._entry = self._keeper.baseline(version) if version != NONE else None
        self._marked, self._newcomers, self._learned, self._promote = {}, {}, None, False

    def calm(self, event: DriftEvent) -> bool:
        """Return whether the change of *event* is over: its effects were back inside for ``drift.resolve_windows`` windows."""
        wanted = self._config.resolve_windows
        first = max(self.window - _CALM_REACH * wanted, 0)
        suspect = self._suspects(first, self.window)
        windows = [window for window in self._history.read(first, self.window) if suspect.get(window.number) != TELEMETRY]
        windows = [window for window in windows if window.start_ns >= event.time_ns and (window.strata or window.signals)]
        if len(windows) < wanted:
            return False
        pieces = resolve.shifted(event)
        if pieces:
            return resolve.over(pieces, windows[-wanted:], self.parts)
        clock = self._shadow if event.shadow_families and self._shadow is not None else self._pager
        return clock.shows(self._watched.values()) < QUIET * self.interval

    def freeze(self, *, on: bool) -> None:
        """Stop learning, of everything that is watched, or let it go on.

        Windows that pass in the meantime teach nothing, later on either.
        """
        self._frozen = on

    def rebase(self, since_number: int) -> None:
        """Accept what is seen from window *since_number* on as the new normal: no baseline is in force until one is learned."""
        self._course.since = max(since_number, self._course.since)
        self._course.candidates.clear()
        self._marked = {at: why for at, why in self._marked.items() if at < since_number or why in {TELEMETRY, EMPTY}}
        self._keeper.pardon(since_number, self.window)
        self._learned, self._promote, self._newcomers = None, True, {}
        self._in_force(self._promotion, NONE)

    def pardon(self, event: DriftEvent) -> None:
        """Let baselines learn from the windows of *event* after all: it was a false page."""
        numbers = self._history.between(event.since_ns, event.time_ns)
        if numbers:
            self._keeper.pardon(numbers[0], numbers[-1])

    def _restore(self, states: Mapping[str, bytes]) -> None:
        """Go on from *states*; a part whose state another version of headwatch left begins without evidence."""
        for key, item in self._watched.items():
            if key.text not in states:
                continue
            try:
                item.monitor.restore(from_bytes(states[key.text]))
            except (KeyError, ValueError, DriftStateError) as error:
                logger.warning("evidence of %s begins anew: its state cannot be read (%r)", key.text, error)
                self._watched[key] = replace(item, monitor=item.part.monitor())

    @property
    def in_force(self) -> tuple[int, BaselineEntry | None]:
        """Return the number of the promotion that holds, and the baseline; None where none is in force."""
        return self._promotion, self._entry

    def _notice(self) -> None:
        """Go over to what a command has put in force since the last window."""
        if self._promote or self._learned is not None:
            return  # ours comes first: it is saved with this window
        promotion, version = self._keeper.in_force()
        if promotion != self._promotion:
            self._in_force(promotion, version)
            self._course.promoted = self.window
            self._gather_from(self.window + 1)

    def _in_force(self, promotion: int, version: int) -> None:
        """Hold windows against *version*; one that cannot be read is as good as none, and is learned anew."""
        parts: dict[Key, Part] = {}
        orders: dict[Key, int] = {}
        entry = None
        if version != NONE:
            try:
                (parts, orders), entry = read_parts(self._keeper, version), self._keeper.baseline(version)
            except DriftStateError as error:
                logger.warning("baseline %d cannot be used, another one is learned: %s", version, error)
        self._promotion, self._version, self._entry = promotion, version if entry is not None else NONE, entry
        self._watch(parts, orders)

    def _watch(self, parts: Mapping[Key, Part], orders: Mapping[Key, int]) -> None:
        """Begin without evidence against *parts*; those that are watched already go on where their part is the same object."""
        before = {id(item.part): item.monitor for item in self._watched.values()}
        self._orders = dict(orders)
        self._watched = {key: Watched(part, before.get(id(part)) or part.monitor()) for key, part in parts.items()}
        for clock in self._clocks:
            clock.put_on(parts, orders)

    @property
    def _clocks(self) -> tuple[Clock, ...]:
        return (self._pager,) if self._shadow is None else (self._pager, self._shadow)

    def _gather_from(self, number: int) -> None:
        """Show nothing of windows before *number*."""
        for clock in self._clocks:
            clock.evidence_from = max(clock.evidence_from, number)

    def _suspicion(self, window: ObservedWindow, found: Mapping[Key, Source]) -> str:
        """Return why *window* teaches nothing; empty where it does."""
        if is_suspect(window.telemetry):
            return TELEMETRY
        if not found:
            return EMPTY
        return "incident" if self._frozen else ""

    def _suspects(self, first: int, last: int) -> dict[int, str]:
        return {**self._keeper.suspects(first, last), **{at: why for at, why in self._marked.items() if first <= at <= last}}

    def _page(self, window: ObservedWindow) -> DriftEvent | None:
        event = self._reached(self._pager, window)
        if event is not None:
            self._course.paged = window.number
            self._marked |= dict.fromkeys(self._history.between(event.since_ns, window.end_ns), "page")
        return event

    def _page_in_shadow(self, window: ObservedWindow) -> DriftEvent | None:
        if self._shadow is None:
            return None
        event = self._reached(self._shadow, window)
        return None if event is None else msgspec.structs.replace(event, shadow_families=self._shadow.families)

    def _reached(self, clock: Clock, window: ObservedWindow) -> DriftEvent | None:
        """Return what there is where *clock* has reached its limit, and start it again at zero."""
        shown = clock.shows(self._watched.values())
        if shown < self.interval:
            return None
        explainer = Explainer(self._watched, clock, self.interval, self._window_seconds)
        suspect = self._suspects(window.number - LOOK_BACK, window.number)
        missing = {number for number, why in suspect.items() if why == TELEMETRY}
        event = explainer.event(window, self._history, shown, missing)
        clock.reset(self._watched.values(), window.number)
        return event

    def _concerned(self) -> set[Key]:
        return {key for item in self._watched.values() for key in item.part.concerns()}

    def _learn(self, window: ObservedWindow) -> None:
        """Learn what it is time to learn after *window*."""
        if self._promote or self._frozen:
            return
        suspect = self._suspects(self._reach(), window.number)
        if self._entry is None:
            self._take_over(self._learner.first(window, self._course, suspect))
        elif self._pager.shows(self._watched.values()) < QUIET * self.interval:
            found = self._learner.following(window, self._course, suspect, self._entry, self.parts)
            self._take_over(found)
            newcomer = self._learner.newcomer(window, self._course, suspect) if found is None else None
            if newcomer is not None:
                order = 1 + max(self._orders.values(), default=0)
                self._newcomers[newcomer.key.text] = (order, dumps(newcomer))
                self._watch({**self.parts, newcomer.key: newcomer}, {**self._orders, newcomer.key: order})

    def _take_over(self, found: Learned | None) -> None:
        """Keep what was learned with this window, and go over to it where it is accepted."""
        if found is not None:
            self._learned, self._promote = found.baseline, found.accepted
        if found is not None and found.accepted:
            self._watch(found.parts, dict.fromkeys(found.parts, 0))
            self._gather_from(self.window + 1)

    def _reach(self) -> int:
        """Return the earliest window that anything may be learned from."""
        return max(self._course.since, self.window - 2 * self._config.max_baseline_windows)

    def _status(self, window: ObservedWindow, views: Mapping[Key, View]) -> DriftStatus:
        if self._watched:
            evidence = standing(self._watched, views, self._pager, window)
            shown, *shadow = (clock.shows(self._watched.values()) for clock in self._clocks)
            state: State = "shadow" if self._config.shadow else "watching"
            return status_of(window, state, 0, shown, self.interval, evidence, *shadow)
        from_ns = 0
        if not self._frozen:
            from_ns = self._learner.pages_from_ns(window, self._course, self._suspects(self._reach(), window.number))
        return status_of(window, "warming_up", from_ns, 0.0, self.interval)


def _before_weights_were_kept(config: DriftConfig) -> dict[str, object]:
    """Return the weights of a state that does not say them: those of families were all that could be set."""
    plain = msgspec.structs.replace(config, shadow_families=(), route_weights={}, feature_weights={})
    return _plain(*clocks(plain))


def _plain(pager: Weights, shadow: Weights | None) -> dict[str, object]:
    return {"pager": msgspec.to_builtins(pager), "shadow": msgspec.to_builtins(shadow)}
