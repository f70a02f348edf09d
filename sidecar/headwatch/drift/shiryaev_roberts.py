"""Mixture e-SR: the evidence that something changed at some window, not known which, in some direction, not known how much.

For each bet the Shiryaev-Roberts recursion sums the evidence of a change at every earlier window::

    M_t = e_t (M_{t-1} + 1)        mixture: the mean of M over the bets

While nothing has changed M_t - t is a supermartingale whatever the streams have to do with each other, and so is any average
of several M with weights fixed beforehand.  By optional stopping the mean time until such an average reaches 1/alpha is at
least 1/alpha windows.  That is the whole promise; :mod:`headwatch.drift.clock` makes it once for all streams.

A missing window leaves M as it is.  After a page M starts again at zero.

Cost: an exponential, an addition and a multiplication a bet, stream and window; 8 bytes of state a bet and stream.
Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors", arXiv 2203.03532; A. N. Shiryaev 1963; S. W. Roberts 1966; M. Pollak,
"Optimal detection of a change in distribution", Annals of Statistics 1985.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CEILING = 1e15
"""M is held below: beyond it every promise has been kept, and sums stay exact."""


class ShiryaevRoberts:
    """M of B bets on F x K streams."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.evidence = np.zeros(shape)
        """[B, F, K]."""

    def step(self, log_e: NDArray[np.float64], seen: NDArray[np.bool_], elapsed: float = 1.0) -> None:
        """Take the evidence *log_e* [B, F, K] of the streams that are *seen* [F, K]; the others stay as they are.

        *elapsed* windows have passed since the last step (a stream that has one value in sixteen windows says 16).
        """
        moved = np.exp(log_e) * (self.evidence + elapsed)
        self.evidence = np.where(seen, np.minimum(moved, CEILING), self.evidence)

    def mixture(self) -> NDArray[np.float64]:
        """Return the mean of M over the bets, [F, K]."""
        mean: NDArray[np.float64] = self.evidence.mean(axis=0)
        return mean

    def reset(self, features: NDArray[np.bool_]) -> None:
        """Start again at zero, for the features marked [F]."""
        self.evidence[:, features] = 0.0
