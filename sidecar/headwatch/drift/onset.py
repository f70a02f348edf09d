"""When a change began, as well as the values tell.

A page comes some windows after the change, and people look for a cause at its start.  The most likely start, if the means of
the streams changed once and stayed, is the window from which on the sum over streams of ``(sum of levels)² / windows`` is
largest (the generalised likelihood ratio of a change in unknown directions).  It is an estimate: slow noise moves it, and a
slow drift has no start.  Nothing is tested with it.

Cost: a sum over some hundred windows and at most :data:`STREAMS` streams, once a page.
Source: Lai, "Information bounds and quick detection of parameter changes in stochastic systems", 1998.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STREAMS = 32
_CLIP = 8.0


def began(levels: NDArray[np.float64]) -> int:
    """Return the place in *levels* [N, K], standard deviations from the baseline, at which their change most likely began.

    NaN is a missing value.  The last window is the latest answer.
    """
    known = ~np.isnan(levels)
    values = np.where(known, np.clip(levels, -_CLIP, _CLIP), 0.0)[::-1]
    sums, counts = np.cumsum(values, axis=0), np.cumsum(known[::-1], axis=0)
    gain = (sums**2 / np.maximum(counts, 1)).sum(axis=1)
    return len(levels) - 1 - int(gain.argmax())
