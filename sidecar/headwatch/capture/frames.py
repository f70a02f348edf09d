"""From the buffers of a step to the frames on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.model import SummaryBatch, WorkerIdentity

if TYPE_CHECKING:
    from headwatch.capture.buffer import SummaryBuffer
    from headwatch.capture.plan import RequestRows


@dataclass(frozen=True, slots=True)
class FrameBuilder:
    """Builds one frame when it is called, which is on the sending thread."""

    worker: WorkerIdentity
    sequence: int
    time_ns: int
    rows: list[RequestRows]
    buffer: SummaryBuffer | None
    """None: the frame only says which requests have ended."""
    detail: int
    finished: list[str]

    def __call__(self) -> SummaryBatch:
        """Return the frame."""
        if self.buffer is None:
            return self._frame([], [], 0, b"", b"")
        slots = self.buffer.slots()
        features, mass = self.buffer.features, self.buffer.span_mass
        if len(slots) < len(self.buffer.layers):  # layers that were refused leave holes
            features, mass = features[:, slots], mass[:, slots]
        return self._frame(
            self.rows,
            [self.buffer.layers[slot] for slot in slots],
            self.buffer.heads,
            features.tobytes(),
            mass.tobytes() if self.detail >= 1 else b"",
        )

    def _frame(
        self, rows: list[RequestRows], layers: list[int], heads: int, features: bytes, mass: bytes
    ) -> SummaryBatch:
        index = [np.full(len(item.positions), number, "<i4") for number, item in enumerate(rows)]
        return SummaryBatch(
            worker=self.worker,
            sequence=self.sequence,
            time_ns=self.time_ns,
            layers=layers,
            heads=heads,
            head_offset=self.worker.rank * heads if heads < self.worker.heads else 0,
            requests=[item.request.context for item in rows],
            row_request=np.concatenate(index).tobytes() if rows else b"",
            row_position=np.concatenate([item.positions for item in rows]).astype("<i4").tobytes() if rows else b"",
            features=features,
            span_mass=mass,
            finished=self.finished,
        )
