"""Other ways to label the units, of which the one that was observed is as good as any where nothing differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def labellings(first: int, second: int, count: int, seed: int) -> NDArray[np.float64]:
    """Return *count* ways to label the units, [count, first + second], the observed one first: 0 first side, 1 second."""
    observed = np.repeat([0.0, 1.0], [first, second])
    drawn = np.random.default_rng(seed).permuted(np.tile(observed, (count, 1)), axis=1)
    drawn[0] = observed
    return drawn
