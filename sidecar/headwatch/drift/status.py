"""Where detection stands after a window: what exporters and the console show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from headwatch.findings import DriftStatus, Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwatch.drift.parts import Key, View
    from headwatch.drift.watched import Clock, Watched
    from headwatch.observed import ObservedWindow

State = Literal["off", "warming_up", "watching", "shadow"]
_SHOWN = 24


def status_of(
    window: ObservedWindow, state: State, pages_from_ns: int, clock: float, interval: float,
    shown: Iterable[Evidence] = (), shadow: float | None = None,
) -> DriftStatus:
    """Return the status after *window*, with the largest of the evidence that is *shown*.

    *clock* is what the pager's clock shows, *shadow* that of families in shadow; None: there are none.
    """
    largest = sorted(shown, key=lambda evidence: -evidence.log10_evidence)[:_SHOWN]
    return DriftStatus(
        window.end_ns, window.number, state, pages_from_ns, float(np.log10(max(clock, 1.0))), float(np.log10(interval)),
        tuple(largest), None if shadow is None else float(np.log10(max(shadow, 1.0))),
    )  # fmt: skip


def standing(
    watched: Mapping[Key, Watched], views: Mapping[Key, View], clock: Clock, window: ObservedWindow
) -> Iterable[Evidence]:
    """Yield for each feature and signal what *clock* has against it after *window*: means over heads, without names.

    Effects are of this one window, whose values are *views*.
    """
    numbers = np.array([window.number])
    for key, item in watched.items():
        view = views.get(key)
        if view is None:
            continue
        part = item.part
        levels = part.levels(numbers, [view])[0]  # [F, K]
        evidence = clock.evidence(item)
        for index, name in enumerate(part.names):
            known = ~np.isnan(levels[index])
            if known.any():
                yield Evidence(
                    part.kind, name, part.model, part.route, part.label, float(np.log10(max(evidence[index], 1.0))),
                    float(part.streams.mean[index][known].mean()), float(view.values[index][known].mean()),
                    float(levels[index][known].mean()), window.start_ns,
                )  # fmt: skip
