"""What ingest leaves out when more arrives than it can aggregate, and how it comes back.

The rule, by how full the backlog of frames is:

- above a half, one row in 2 is kept; then, every tenth of a second that it stays above, one in 4, 8, … :data:`MOST`;
- below a tenth for a second, half as many are left out.

A row is kept by a hash of its request and position, so every rank and every replay keeps the same rows, and stands for as many
rows more as were left out: means, histograms and shares stay unbiased and only get noisier.  Rows of canaries, and rows of
detail 2 and more, which somebody asked for, are always kept; so is the news that a request has ended.  What was left out is
counted exactly.

Cost: a microsecond a row while rows are left out, nothing else.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.model import SummaryBatch
    from headwatch.wire.columns import Columns

MOST = 64
HIGH, LOW = 0.5, 0.1
HARDER_SECONDS, EASIER_SECONDS = 0.1, 1.0


class Thinning:
    """The factor in force.  Not safe from threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.factor = 1
        """One row in so many is kept."""
        self._clock = clock
        self._harder = clock()
        """When the factor last rose."""
        self._calm: float | None = None
        """Since when the backlog has been low; None while it is not."""

    def adjust(self, fill: float) -> None:
        """Follow how full the backlog is."""
        now = self._clock()
        if fill >= LOW:
            self._calm = None
            if fill > HIGH and self.factor < MOST and now - self._harder >= HARDER_SECONDS:
                self.factor, self._harder = self.factor * 2, now
        elif self.factor > 1:
            if self._calm is None:
                self._calm = now
            elif now - self._calm >= EASIER_SECONDS:
                self.factor, self._calm = self.factor // 2, now

    def thinned(self, batch: SummaryBatch, columns: Columns) -> Columns:
        """Return *columns* with the rows that are kept, each weighing what it now stands for."""
        if self.factor == 1 or columns.detail is not None:
            return columns
        whole = [bool(context.canary) or context.full for context in batch.requests]
        names = [context.engine_id for context in batch.requests]
        limit = (1 << 64) // self.factor
        kept = [
            row
            for row, (request, position) in enumerate(zip(columns.request.tolist(), columns.position.tolist(), strict=True))
            if whole[request] or _draw(names[request], position) < limit
        ]
        standing = np.array([1 if whole[columns.request[row]] else self.factor for row in kept], np.float32)
        return columns.taking(kept, standing)


def _draw(engine_id: str, position: int) -> int:
    """Return a number of 64 bits that the row's name alone decides."""
    name = f"{position}|{engine_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=8, person=b"hw-thin").digest(), "big")
