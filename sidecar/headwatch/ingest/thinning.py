"""What ingest leaves out when more arrives than it can aggregate, and how it comes back.

The rule, by how full the backlog of frames is:

- above a half, one request in 2 is kept; then, every tenth of a second in which it did not become less, one in 4, 8, 16;
- below a tenth for a second, half as many are left out.

A request is kept by a hash of its id, with all of its rows, and stands for as many more as are left out: means, histograms,
counts and shares stay unbiased, of rows and of requests alike, and only get noisier.  (By row, requests with many rows would
be kept more often than those with few.)  Every rank and every replay keeps the same ones, and whoever is kept at one factor is
kept at every smaller one.  A request that is under way while the factor changes is taken in part.  Canaries, requests that ask
for every row, and rows of detail 2 and more are always kept; so is the news that a request has ended.  What was left out is
counted exactly.

A frame of which nothing is kept is decoded and no more: its numbers are never looked at.

Cost: some microseconds a frame while requests are left out, nothing else.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from headwatch.wire.columns import named_rows
from headwatch.wire.detail_columns import BLOCK_PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.model import SummaryBatch

MOST = 16
"""A frame costs about a twentieth of its rows before any row is looked at: leaving out more would hardly make room."""
HIGH, LOW = 0.5, 0.1
HARDER_SECONDS, EASIER_SECONDS = 0.1, 1.0


class Thinning:
    """The factor in force.  Not safe from threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.factor = 1
        """One request in so many is kept."""
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
                self._fill = 0.0

    def kept(self, batch: SummaryBatch) -> tuple[list[int], SummaryBatch] | None:
        """Return the rows of *batch* that are kept, and *batch* with requests that say what they stand for; None: all are kept.

        Raises:
            WireError: The frame's rows do not fit each other.
        """
        if self.factor == 1 or batch.detail >= BLOCK_PROFILE:
            return None
        request, _ = named_rows(batch)
        limit = (1 << 64) // self.factor
        whole = [bool(context.canary) or context.full for context in batch.requests]
        drawn = [asked or _draw(context.engine_id) < limit for asked, context in zip(whole, batch.requests, strict=True)]
        requests = [
            context if asked else msgspec.structs.replace(context, weight=context.weight * self.factor)
            for asked, context in zip(whole, batch.requests, strict=True)
        ]
        kept = [row for row, number in enumerate(request.tolist()) if drawn[number]]
        return kept, msgspec.structs.replace(batch, requests=requests)


def _draw(engine_id: str) -> int:
    """Return a number of 64 bits that the request's name alone decides."""
    name = engine_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=8, person=b"hw-thin").digest(), "big")
