"""What is watched, and a clock over it.

There are two clocks at most: the pager's, and that of the families in shadow, which shows what they would do and pages nobody.
Both make the same promise in the same way.  Each reads and resets the evidence of its own families alone, so that neither can
hasten or delay the other; what is foreseen of the streams they share.

Cost: the evidence of each family once a reading: a few hundred microseconds for 5,120 heads x 6 features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.drift.clock import combined, feature_evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from headwatch.drift.parts import Key, Monitor, Part
    from headwatch.drift.weights import Weights


@dataclass(frozen=True, slots=True)
class Watched:
    """One part and its monitor."""

    part: Part
    monitor: Monitor


class Clock:
    """One clock; its weights stay as they are while evidence adds up."""

    def __init__(self, weights: Weights, evidence_from: int = 0) -> None:
        self._weights = weights
        self.evidence_from = evidence_from
        """The earliest window that evidence can be from."""
        self._parts: dict[Key, float] = {}
        self._features: dict[Key, NDArray[np.float64] | None] = {}

    @property
    def families(self) -> tuple[str, ...]:
        """Return the families that count here."""
        return tuple(name for own in self._weights.families.values() for name in own)

    def put_on(self, parts: Mapping[Key, Part], orders: Mapping[Key, int]) -> None:
        """Give *parts* their weights; *orders* says for each 0, or in which order (1, 2, …) it came later."""
        self._parts = self._weights.of_parts(orders, {key: part.route for key, part in parts.items()})
        self._features = {key: self._weights.of_features(part.names) for key, part in parts.items()}

    def evidence(self, item: Watched) -> NDArray[np.float64]:
        """Return the evidence of each feature or signal of a part, [F]; zero where no family of it has a weight here."""
        weights = self._weights.families[item.part.kind]
        known = set(item.part.families) & weights.keys()
        found = {name: value for name, value in item.monitor.evidence().items() if name in known}
        if not sum(weights[name] for name in found):
            return np.zeros(len(item.part.names))
        return feature_evidence(found, weights)

    def shares(self, item: Watched, evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each feature's *evidence* [F] adds to what the clock shows, [F]."""
        features, weight = self._features[item.part.key], self._parts[item.part.key]
        shares: NDArray[np.float64] = weight * evidence / len(evidence) if features is None else weight * features * evidence
        return shares

    def shows(self, watched: Iterable[Watched]) -> float:
        """Return what the clock shows of all that is watched."""
        read = {}
        for item in watched:
            evidence, features = self.evidence(item), self._features[item.part.key]
            read[item.part.key.text] = float(evidence.mean() if features is None else evidence @ features)
        return combined(read, {key.text: weight for key, weight in self._parts.items()})

    def reset(self, watched: Iterable[Watched], number: int) -> None:
        """Start again at zero with the window after *number*."""
        for item in watched:
            item.monitor.reset(families=self.families)
        self.evidence_from = number + 1
