"""What changes in the delay cells of ``bench drift``: mean, spread, or a slow ramp, in some share of the heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAMP_WINDOWS = 240


@dataclass(frozen=True, slots=True)
class Shift:
    """A change of *size* standard deviations in *share* of the heads.

    ``mean``: each changed head moves up or down, by a toss of a coin, since heads do not move in one direction when a model
    changes.  ``ramp``: the same, growing over four hours.  ``spread``: deviations grow by the factor 1 + size.
    """

    kind: Literal["mean", "spread", "ramp"]
    size: float
    share: float

    def applied(self, replicas: int, heads: int, seed: int) -> Applied:
        """Return the change for R replicas, each with heads and directions of its own."""
        random = np.random.default_rng(seed)
        count = max(1, round(self.share * heads))
        signs = np.zeros((replicas, heads))
        for replica in range(replicas):
            chosen = random.choice(heads, count, replace=False)
            signs[replica, chosen] = random.choice((-1.0, 1.0), count)
        return Applied(self, signs)


@dataclass(frozen=True, slots=True)
class Applied:
    """A change and the heads that it meets."""

    shift: Shift
    signs: NDArray[np.float64]  # [R, K] -1, 0 or 1

    def __call__(self, since: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return *values* [R, K] as they are *since* windows after the change."""
        if self.shift.kind == "spread":
            return values * (1.0 + self.shift.size * np.abs(self.signs))
        grown = min(1.0, (since + 1) / RAMP_WINDOWS) if self.shift.kind == "ramp" else 1.0
        return values + grown * self.shift.size * self.signs
