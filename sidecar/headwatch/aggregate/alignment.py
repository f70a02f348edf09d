"""Whether a decoder walks through its encoder's input from start to end: alignment of one request, head by head.

The centroid of a head's attention over the input, in [0, 1], moves forward as speech is written down.  A *break* is a step
back by more than the tolerance from one sampled row to the next: the decoder repeats a passage, or has lost its
place (transcripts that loop, or go on where nobody speaks).  Heads that align are few, and tell themselves apart by how far
they come: see :attr:`Alignment.progress`.  Normalised positions make no difference between 2 s and 30 s of sound.

Needs two floats and two counts for each head of an open request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.records import Alignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.places import Places

TOLERANCE = 0.05
"""Of the input: 1.5 s where it has 30 s.  Less is the jitter of a head that attends to a whole word."""


class AlignmentTracker:
    """The running state of one request.  Rows of a head must come in the order of their positions."""

    def __init__(self, layers: int, heads: int) -> None:
        shape = (layers, heads)
        self._first = np.full(shape, np.nan, np.float32)
        self._last = np.full(shape, np.nan, np.float32)
        self._position = np.full(shape, -1, np.int64)
        self._rows = np.zeros(shape, np.uint32)
        self._breaks = np.zeros(shape, np.uint32)

    def add(self, position: int, centroid: NDArray[np.float32], places: Places) -> None:
        """Take the *centroid* [L, H] of the row at *position*; a row that comes late or is undefined is left out."""
        rows = places.layers, places.heads
        last = self._last[rows]
        fresh = (position > self._position[rows]) & ~np.isnan(centroid)
        self._breaks[rows] += fresh & (centroid < last - TOLERANCE)
        self._first[rows] = np.where(fresh & np.isnan(last), centroid, self._first[rows])
        self._last[rows] = np.where(fresh, centroid, last)
        self._position[rows] = np.where(fresh, position, self._position[rows])
        self._rows[rows] += fresh

    def result(self) -> Alignment:
        """Return what the request came to."""
        return Alignment(rows=self._rows, breaks=self._breaks, progress=self._last - self._first)
