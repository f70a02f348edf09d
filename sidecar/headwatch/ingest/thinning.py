"""What ingest leaves out when more arrives than it can aggregate, and how it comes back.

The rule, by how full the backlog of frames is:

- above a half, one row in 2 is kept; then, every tenth of a second in which it did not become less, one in 4, 8, 16;
- below a tenth for a second, half as many are left out.

A row is kept by a hash of its request and position, so every rank and every replay keeps the same rows, and stands for as many
rows more as were left out: means, histograms and shares stay unbiased and only get noisier.  Rows of canaries, and rows of
detail 2 and more, which somebody asked for, are always kept; so is the news that a request has ended.  What was left out is
counted exactly.

A frame of which nothing is kept is decoded and no more: its numbers are never looked at.

Cost: a microsecond a row while rows are left out, nothing else.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from headwatch.wire.columns import named_rows
from headwatch.wire.detail_columns import BLOCK_PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headwatch.model import SummaryBatch

MOST = 16
"""A frame costs about a twentieth of its rows before any row is looked at: leaving out more rows would hardly make room."""
HIGH, LOW = 0.5, 0.1
HARDER_SECONDS, EASIER_SECONDS = 0.1, 1.0


class Thinning:
    """The factor in force.  Not safe from threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.factor = 1
        """One row in so many is kept."""
        self._clock = clock
        self._looked, self._fill = clock(), 0.0
        """When the backlog was last found above a half, and how full it was then."""
        self._calm: float | None = None
        """Since when the backlog has been low; None while it is not."""

    def adjust(self, fill: float) -> None:
        """Follow how full the backlog is."""
        now = self._clock()
        if fill >= LOW:
            self._calm = None
            if fill > HIGH and now - self._looked >= HARDER_SECONDS:
                if fill >= self._fill and self.factor < MOST:
                    self.factor *= 2
                self._looked, self._fill = now, fill
        elif self.factor > 1:
            if self._calm is None:
                self._calm = now
            elif now - self._calm >= EASIER_SECONDS:
                self.factor, self._calm = self.factor // 2, now

    def kept(self, batch: SummaryBatch) -> tuple[list[int], NDArray[np.float32]] | None:
        """Return the rows of *batch* that are kept and how many each one stands for; None where all of them are.

        Raises:
            WireError: The frame's rows do not fit each other.
        """
        if self.factor == 1 or batch.detail >= BLOCK_PROFILE:
            return None
        request, position = named_rows(batch)
        whole = [bool(context.canary) or context.full for context in batch.requests]
        names = [context.engine_id for context in batch.requests]
        limit = (1 << 64) // self.factor
        numbers = request.tolist()
        kept = [
            row
            for row, (number, place) in enumerate(zip(numbers, position.tolist(), strict=True))
            if whole[number] or _draw(names[number], place) < limit
        ]
        return kept, np.array([1 if whole[numbers[row]] else self.factor for row in kept], np.float32)


def _draw(engine_id: str, position: int) -> int:
    """Return a number of 64 bits that the row's name alone decides."""
    name = f"{position}|{engine_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=8, person=b"hw-thin").digest(), "big")
