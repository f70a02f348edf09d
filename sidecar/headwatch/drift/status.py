"""Where detection stands after a window: what exporters and the console show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from headwatch.findings import DriftStatus, Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

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
        log10 = np.log10(np.maximum(evidence, 1.0)).tolist()
        known = ~np.isnan(levels)
        before, after, effect = (_means(values, known) for values in (part.streams.mean, view.values, levels))
        for index in np.flatnonzero(known.any(axis=1)).tolist():
            yield Evidence(
                part.kind, part.names[index], part.model, part.route, part.label, log10[index],
                before[index], after[index], effect[index], window.start_ns,
            )  # fmt: skip


def _means(values: NDArray[np.float64], known: NDArray[np.bool_]) -> list[float]:
    """Return the mean of each feature's *values* [F, K] where they are *known* [F, K]; 0 where none is."""
    if known.all():
        found: list[float] = values.mean(axis=1).tolist()
        return found
    return [float(own[seen].mean()) if seen.any() else 0.0 for own, seen in zip(values, known, strict=True)]
