"""From probe scores to classes, and to the head map.

Induction, local and sink heads share one rule: the whole interval says that at least half of the head's attention rests
where the class says.  So a head is in one of them because of what it does with most of its attention, and no threshold is
tuned.  Retrieval heads are chosen together (:mod:`headwatch.calibrate.select`), because it is their average that counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.head_map import MappedHead, Score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.aggregate.head_map import HeadClass, Probe
    from headwatch.calibrate.select import Choice
    from headwatch.calibrate.statistics import Estimate

    Scores = Mapping[Probe, Estimate]
    """The estimates of each probe, [L, H]."""

MAJORITY = 0.5
DECIDES: dict[HeadClass, Probe] = {"induction": "induction", "local": "local", "sink": "sink"}
"""Class to the probe whose score must reach :data:`MAJORITY`."""
_DIGITS = 4


def mapped_heads(scores: Scores, choice: Choice) -> tuple[MappedHead, ...]:
    """Return every head that some probe measured, by layer and head, with its classes."""
    layers, heads = next(iter(scores.values())).value.shape
    found = []
    for layer in range(layers):
        for head in range(heads):
            place = (layer, head)
            measured = {probe: score(item, place) for probe, item in scores.items() if np.isfinite(item.value[place])}
            if measured:
                found.append(MappedHead(layer, head, _classes(scores, choice, place), measured))
    return tuple(found)


def score(estimate: Estimate, place: tuple[int, ...] = ()) -> Score:
    """Return the estimate at *place*, rounded: the digits that are left out are noise of the arithmetic."""
    return Score(*(round(float(part[place]), _DIGITS) for part in (estimate.value, estimate.low, estimate.high)))


def _classes(scores: Scores, choice: Choice, place: tuple[int, int]) -> tuple[HeadClass, ...]:
    classes: list[HeadClass] = ["retrieval"] if place in choice.heads else []
    classes += [kind for kind, probe in DECIDES.items() if scores[probe].low[place] >= MAJORITY]
    return tuple(classes)
