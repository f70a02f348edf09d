"""Where the columns of detail levels 2 to 4 of one step are written, in wire order, allocated once a step.

Rows differ in length, so what belongs to a row is found by its first entry.  One row of 2,048 tokens, 30 layers and 9 heads
takes 34 KiB of blocks of 16 tokens, 17 KiB of 8 top positions, 1.1 MiB whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.wire.detail_columns import BLOCK_PROFILE, FULL_ROWS, TOP_POSITIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.config import CaptureConfig

_TOP_BYTES = 8
"""A position and a weight."""
_FULL_BYTES = 2


@dataclass(frozen=True, slots=True)
class DetailBuffer:
    """R rows, L layers, H heads; B blocks and N positions of all rows in turn; K top positions."""

    block_tokens: int
    block_start: NDArray[np.int64]  # [R + 1]
    block_profile: NDArray[np.uint8]  # [B, L, H]
    top_position: NDArray[np.int32] | None  # [R, L, H, K]
    top_weight: NDArray[np.float32] | None  # [R, L, H, K]
    full_start: NDArray[np.int64]  # [R + 1]
    full_weight: NDArray[np.float16] | None  # [N, L, H]

    @property
    def size_bytes(self) -> int:
        """Return what the arrays take."""
        columns = (self.block_profile, self.top_position, self.top_weight, self.full_weight)
        return sum(column.nbytes for column in columns if column is not None)


def allocate_detail(
    positions: NDArray[np.int64], layers: int, heads: int, detail: int, config: CaptureConfig
) -> DetailBuffer:
    """Return an empty buffer of level *detail* (at least 2) for rows at *positions* [R]."""
    rows = len(positions)
    blocks = _starts(-(-(positions + 1) // config.block_tokens))
    tokens = _starts(positions + 1)
    top = (rows, layers, heads, config.top_k) if detail >= TOP_POSITIONS else None
    return DetailBuffer(
        block_tokens=config.block_tokens,
        block_start=blocks,
        block_profile=np.empty((blocks[-1], layers, heads), np.uint8),
        top_position=np.empty(top, np.int32) if top else None,
        top_weight=np.empty(top, np.float32) if top else None,
        full_start=tokens,
        full_weight=np.empty((tokens[-1], layers, heads), np.float16) if detail >= FULL_ROWS else None,
    )


def row_bytes(position: int, cells: int, detail: int, config: CaptureConfig) -> int:
    """Return what a row at *position* takes at level *detail* beyond level 1, with *cells* heads in all its layers."""
    size = 0
    if detail >= BLOCK_PROFILE:
        size += -(-(position + 1) // config.block_tokens)
    if detail >= TOP_POSITIONS:
        size += _TOP_BYTES * config.top_k
    if detail >= FULL_ROWS:
        size += _FULL_BYTES * (position + 1)
    return size * cells


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
