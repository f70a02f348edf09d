"""Where the summaries of one step are written: arrays in wire order, allocated once a step, bounded by its plan.

Kernels write each layer's results into their slot, and the sending thread takes the arrays as they are; nothing is
stacked or transposed in between.  8 rows of 30 layers, 9 heads and 12 spans take 160 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headwatch.model import FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headwatch.capture.output.detail_buffer import DetailBuffer


@dataclass(slots=True)
class SummaryBuffer:
    """One step's summaries of the layers that have the same number of heads.

    R rows, Q = the spans of all rows in turn (one more than the prompt's for each row), L layers, H heads.
    """

    layers: tuple[int, ...]
    """Global layer numbers, ascending, one for each slot."""
    features: NDArray[np.float32]  # [R, L, H, len(FEATURES)]; NaN where undefined
    span_mass: NDArray[np.float32]  # [Q, L, H]
    value_mass: NDArray[np.float32] | None  # [Q, L, H]
    output_norm: NDArray[np.float32] | None  # [R, L, H]
    detail: DetailBuffer | None = None
    """None below detail 2."""
    centroid: NDArray[np.float32] | None = None  # [R, L, H]
    """Of cross-attention only."""
    written: set[int] = field(default_factory=set)
    """Slots whose layer may be exported."""
    pending: Callable[[], None] | None = None
    """Set by kernels that leave their results on a device: brings them into the arrays, and waits for that."""

    def fetch(self) -> None:
        """Make the arrays hold what kernels have written so far.  Waits for a device: not on the engine's thread."""
        if self.pending is not None:
            self.pending()

    @property
    def heads(self) -> int:
        """Return the number of heads in each of these layers."""
        return int(self.features.shape[2])

    @property
    def size_bytes(self) -> int:
        """Return what the arrays take."""
        columns = (self.features, self.span_mass, self.value_mass, self.output_norm, self.centroid)
        size = sum(column.nbytes for column in columns if column is not None)
        return size + (self.detail.size_bytes if self.detail is not None else 0)

    def slots(self) -> list[int]:
        """Return the written slots, ascending."""
        return sorted(self.written)


@dataclass(slots=True)
class LayerSlot:
    """The place of one layer in a buffer.  Not frozen, for the same reason as ``LayerCall``."""

    buffer: SummaryBuffer
    index: int


def allocate(
    layers: tuple[int, ...], heads: int, rows: int, spans: int, *, values: bool, centroid: bool = False
) -> SummaryBuffer:
    """Return an empty buffer for *rows* rows whose spans are *spans* in all."""
    return SummaryBuffer(
        layers=layers,
        features=np.empty((rows, len(layers), heads, len(FEATURES)), np.float32),
        span_mass=np.empty((spans, len(layers), heads), np.float32),
        value_mass=np.empty((spans, len(layers), heads), np.float32) if values else None,
        output_norm=np.empty((rows, len(layers), heads), np.float32) if values else None,
        centroid=np.empty((rows, len(layers), heads), np.float32) if centroid else None,
    )
