"""From the buffers of a step to the frames on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.capture.plan.parts import SPAN_MASSES
from headwatch.model import SummaryBatch, WorkerIdentity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.capture.output.buffer import SummaryBuffer
    from headwatch.capture.plan.step import RequestRows
    from headwatch.model import AttentionKind


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
    tensor_rank: int = 0
    """Which part of each layer's heads this worker has."""
    attention: AttentionKind = "self"

    def __call__(self) -> SummaryBatch:
        """Return the frame."""
        if self.buffer is None or not self.rows:
            return self._frame([], [], 0, {"features": b"", "span_mass": b""})
        self.buffer.fetch()
        slots = self.buffer.slots()
        holes = slots if len(slots) < len(self.buffer.layers) else None  # layers that were refused leave holes
        return self._frame(
            self.rows,
            [self.buffer.layers[slot] for slot in slots],
            self.buffer.heads,
            _columns(self.buffer, self.detail, holes),
        )

    def _frame(
        self, rows: list[RequestRows], layers: list[int], heads: int, columns: dict[str, Any]
    ) -> SummaryBatch:
        index = [np.full(len(item.positions), number, "<i4") for number, item in enumerate(rows)]
        return SummaryBatch(
            worker=self.worker,
            sequence=self.sequence,
            time_ns=self.time_ns,
            layers=layers,
            heads=heads,
            head_offset=self.tensor_rank * heads,
            requests=[item.request.context for item in rows],
            row_request=np.concatenate(index).tobytes() if rows else b"",
            row_position=np.concatenate([item.positions for item in rows]).astype("<i4").tobytes() if rows else b"",
            row_weight=_row_weight(rows),
            finished=self.finished,
            detail=self.detail,
            attention=self.attention,
            **columns,
        )


def _columns(buffer: SummaryBuffer, detail: int, slots: list[int] | None) -> dict[str, Any]:
    """Return the columns that *buffer* holds, of the layers in *slots* (None: all)."""

    def column(values: NDArray[Any] | None) -> bytes:
        if values is None:
            return b""
        return values.tobytes() if slots is None else values[:, slots].tobytes()

    columns: dict[str, Any] = {
        "features": column(buffer.features),
        "span_mass": column(buffer.span_mass) if detail >= SPAN_MASSES else b"",
        "value_mass": column(buffer.value_mass),
        "output_norm": column(buffer.output_norm),
        "centroid": column(buffer.centroid),
    }
    if buffer.detail is not None:
        columns |= {
            "block_tokens": buffer.detail.block_tokens,
            "block_profile": column(buffer.detail.block_profile),
            "top_k": 0 if buffer.detail.top_position is None else buffer.detail.top_position.shape[-1],
            "top_position": column(buffer.detail.top_position),
            "top_weight": column(buffer.detail.top_weight),
            "full_weight": column(buffer.detail.full_weight),
        }
    return columns


def _row_weight(rows: list[RequestRows]) -> bytes:
    """Return how many rows each row stands for; empty where that is 1 for all."""
    weights = np.concatenate([item.weights for item in rows]) if rows else np.ones(0)
    return b"" if (weights == 1.0).all() else weights.astype("<f4").tobytes()
