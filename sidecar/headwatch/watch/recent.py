"""The last windows, and what they say for certain: faults of headwatch itself, failed canaries, another mix of questions.

Certain means by stated bounds instead of by evidence that adds up: such findings have no false-alarm interval, and need none.
A canary's threshold is learned with its fingerprint; a fault of telemetry is counted, not estimated; traffic pages nobody.
One bad window is an accident: a fault of telemetry, and a change of traffic, must last for :data:`LASTING_WINDOWS`.

Everything here follows from the windows that are kept in the history, so a restart knows what it knew before; but for how long
what is there now has been there, which may be longer than :data:`WINDOWS`: that is saved with the state of detection.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

import msgspec

from headwatch.drift.telemetry import telemetry_evidence
from headwatch.drift.traffic import traffic_evidence
from headwatch.findings import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from headwatch.drift.telemetry import TelemetryBaseline
    from headwatch.drift.traffic_baseline import TrafficBaseline
    from headwatch.findings import CanaryExhibit, DriftEvent
    from headwatch.observed import ObservedWindow

WINDOWS = 64
LASTING_WINDOWS = 2
_TRAFFIC_WINDOWS = 5
"""Windows that are held against the baseline's traffic where no event says since when."""


class Recent:
    """The last :data:`WINDOWS` windows.

    *usual* returns what traffic and telemetry are like in the baseline in force; *lasting* is what :attr:`lasting` was after
    the last of *windows*.
    """

    def __init__(
        self, windows: Iterable[ObservedWindow], usual: Callable[[], tuple[TrafficBaseline, TelemetryBaseline]],
        lasting: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self._usual = usual
        self._windows: deque[ObservedWindow] = deque(maxlen=WINDOWS)
        self._faults: deque[dict[str, Evidence]] = deque(maxlen=WINDOWS)
        """Of each window: its faults of telemetry by name."""
        self._asked: deque[dict[str, Evidence]] = deque(maxlen=WINDOWS)
        """Of each window: in what traffic differs from the baseline's, by name."""
        self.model = ""
        """The model that was seen last: what headwatch's own state is filed under."""
        self.lasting: dict[str, int] = {}
        """Since when each thing that is there has been in every window, or canary run; by kind and name."""
        for window in windows:
            self.add(window)
        if lasting is not None:
            self.lasting = dict(lasting)

    def add(self, window: ObservedWindow) -> None:
        """Take the next window."""
        self._windows.append(window)
        self.model = max((stratum.model for stratum in window.strata), default=self.model)
        traffic, telemetry = self._usual()
        faults = telemetry_evidence(window.telemetry, telemetry, window.start_ns, self.model)
        self._faults.append({one.name: one for one in faults})
        asked = traffic_evidence(self._last(_TRAFFIC_WINDOWS), traffic, self.model)
        self._asked.append({one.name: one for one in asked})
        self.lasting = self._lasting_now(window)

    def since(self, evidence: Evidence) -> int:
        """Return since when *evidence*, which is there now, has been there; of a canary: since its first failed run."""
        return self.lasting.get(f"{evidence.kind}:{evidence.name}", evidence.seen_ns or evidence.since_ns)

    def _lasting_now(self, window: ObservedWindow) -> dict[str, int]:
        """Return :attr:`lasting` after *window*; where it was not looked, it does not say that something was away."""
        looked = {"telemetry": bool(window.telemetry), "traffic": window.traffic.get("requests", 0.0) > 0.0}
        there = {name: since for name, since in self.lasting.items() if not looked.get(name.partition(":")[0], False)}
        for kind, found in (("telemetry", self._faults[-1]), ("traffic", self._asked[-1])):
            there |= {name: self.lasting.get(name, window.start_ns) for name in (f"{kind}:{one}" for one in found)}
        for run in window.canaries:
            if run.failed:
                there.setdefault(f"canary:{run.prompt}", run.time_ns)
            else:
                there.pop(f"canary:{run.prompt}", None)
        return there

    @property
    def windows(self) -> tuple[ObservedWindow, ...]:
        """Return the windows, the oldest first."""
        return tuple(self._windows)

    def faults(self, least: int = LASTING_WINDOWS) -> tuple[Evidence, ...]:
        """Return the faults of the last *least* windows alike, each since the window in which it began."""
        return _lasting(self._faults, least)

    def faults_since(self, time_ns: int) -> tuple[Evidence, ...]:
        """Return the faults of the windows from *time_ns* on that were seen more than once, as they were first seen."""
        found: dict[str, Evidence] = {}
        seen: Counter[str] = Counter()
        for window, faults in zip(self._windows, self._faults, strict=True):
            if window.end_ns > time_ns:
                found = {**faults, **found}
                seen.update(faults.keys())
        return tuple(one for name, one in found.items() if seen[name] >= LASTING_WINDOWS)

    def asked(self, least: int = LASTING_WINDOWS) -> tuple[Evidence, ...]:
        """Return in what the traffic of the last *least* windows alike differs from the baseline's."""
        return _lasting(self._asked, least)

    def asked_since(self, time_ns: int) -> tuple[Evidence, ...]:
        """Return in what the traffic of the windows from *time_ns* on differs from the baseline's."""
        traffic, _ = self._usual()
        return traffic_evidence([one for one in self._windows if one.end_ns > time_ns], traffic, self.model)

    def canaries(self) -> dict[str, CanaryExhibit]:
        """Return the latest run of each canary prompt."""
        return {run.prompt: run for window in self._windows for run in window.canaries}

    def canary(self, without: Collection[str] = ()) -> CanaryExhibit | None:
        """Return the run that says most: of the latest of each prompt, the failed one that deviates most, else the latest.

        *without*: prompts that are left out.
        """
        runs = [run for run in self.canaries().values() if run.prompt not in without]
        return max(runs, key=lambda run: (run.failed, _deviation(run) if run.failed else 0.0, run.time_ns), default=None)

    def unheard_ns(self) -> int:
        """Return how much time of the windows kept has passed since the last canary run ended.

        Time in which nobody looked is no time without canaries: a sidecar that was away has its first run before it.
        """
        latest = max((run.time_ns for window in self._windows for run in window.canaries), default=0)
        return sum(one.end_ns - max(one.start_ns, latest) for one in self._windows if one.end_ns > latest)

    def failed_canaries(self) -> tuple[Evidence, ...]:
        """Return the canary prompts whose latest run failed."""
        return tuple(
            Evidence(
                "canary", run.prompt, self.model, "", "", 0.0, 0.0, run.deviation, _deviation(run),
                since_ns, heads=run.heads, note=run.note, seen_ns=seen_ns,
            )
            for run in self.canaries().values()
            if run.failed
            for since_ns, seen_ns in (self._began(run),)
        )  # fmt: skip

    def over(self, event: DriftEvent, windows: int) -> bool:
        """Return whether all that is certain in *event* is over: canaries pass, and the last *windows* show no such fault."""
        if not self._windows or self._windows[-1].start_ns < event.time_ns:
            return False
        runs = self.canaries()
        for one in event.evidence:
            if one.kind == "canary":
                run = runs.get(one.name)
                if run is None or run.failed or run.time_ns <= event.time_ns:
                    return False
            elif one.kind in {"telemetry", "traffic"}:
                days = list(self._faults if one.kind == "telemetry" else self._asked)[-windows:]
                if len(days) < windows or any(one.name in found for found in days):
                    return False
        return True

    def _began(self, failed: CanaryExhibit) -> tuple[int, int]:
        """Return when the prompt of *failed* passed for the last time before, and failed for the first time since.

        The change lies between the two.  Where no pass is kept, both are the first failure.
        """
        runs = [run for window in self._windows for run in window.canaries if run.prompt == failed.prompt]
        passed = [run.time_ns for run in runs if not run.failed]
        failures = [run.time_ns for run in runs if run.failed and run.time_ns > max(passed, default=0)]
        seen_ns = min(failures, default=failed.time_ns)
        return max(passed, default=seen_ns), seen_ns

    def _last(self, count: int) -> list[ObservedWindow]:
        return list(self._windows)[-count:]


def _lasting(series: deque[dict[str, Evidence]], least: int) -> tuple[Evidence, ...]:
    if len(series) < least:
        return ()
    found = []
    latest = list(series)[::-1]
    for name, evidence in latest[0].items():
        lasted = next((count for count, one in enumerate(latest) if name not in one), len(latest))
        if lasted >= least:
            since = min(evidence.since_ns, latest[lasted - 1][name].since_ns)
            found.append(msgspec.structs.replace(evidence, since_ns=since))
    return tuple(found)


def _deviation(run: CanaryExhibit) -> float:
    """Return the deviation of *run* over what its fingerprint allows; where it allows nothing, the deviation itself."""
    return run.deviation / run.threshold if run.threshold > 0 else run.deviation
