"""ADWIN and KSWIN of river, one detector a head, as they come; page where any head says drift.

River's detectors run one value of one stream at a time: some microseconds (ADWIN) to some hundred (KSWIN) for each head
and window, so they watch fewer windows than the others.  Their own parameter is their significance: ADWIN's delta (0.002) and
KSWIN's alpha (0.005) as river sets them; tuned, they are made smaller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.drift.peers.standard import Standard

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headwatch.bench.drift.streams import Block


class RiverStreams:
    """One river detector for each replica and head."""

    def __init__(self, make: Callable[[], object]) -> None:
        """*make* returns a fresh detector."""
        self._make = make
        self._standard: Standard | None = None
        self._detectors: list[list[object]] = []

    def learn(self, baseline: Block) -> None:
        """Let every detector see the last day of the baseline."""
        self._standard = Standard(baseline)
        z = np.nan_to_num(self._standard.z(baseline.values[-1440:]))
        self._detectors = [[self._make() for _ in range(z.shape[2])] for _ in range(z.shape[1])]
        for window in z:
            self._update(window)

    def step(self, number: int, values: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG002 - the contestant's signature
        """Return 1 where a head has drifted, else 0, [R]."""
        assert self._standard is not None  # it has learned
        return self._update(np.nan_to_num(self._standard.z(values)))

    def reset(self, replicas: NDArray[np.bool_]) -> None:
        """Do nothing: river's detectors start again by themselves."""

    def _update(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.zeros(len(z))
        for replica, (row, detectors) in enumerate(zip(z.tolist(), self._detectors, strict=True)):
            for value, detector in zip(row, detectors, strict=True):
                detector.update(value)  # type: ignore[attr-defined]  # river has no types
                if detector.drift_detected:  # type: ignore[attr-defined]  # river has no types
                    found[replica] = 1.0
        return found
