"""From the histograms of a window that closes to the columns of a :class:`~headwatch.records.WindowBatch`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from headwatch.aggregate.histogram import BUCKETS, HistogramBlock
from headwatch.model import VALUE_FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.aggregate.carried import CarriedCell
    from headwatch.records import WindowBatch


class HistogramColumns(TypedDict):
    """The columns of :class:`~headwatch.records.WindowBatch` that come from histograms, [S, F, L, H] and [S, F, L, H, B]."""

    count: NDArray[np.uint32]
    weight: NDArray[np.uint64]
    total: NDArray[np.float64]
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    zero_count: NDArray[np.uint32]
    buckets: NDArray[np.uint32]


def stacked(blocks: Sequence[HistogramBlock], shape: tuple[int, ...]) -> HistogramColumns:
    """Return the columns of *blocks*, one for each stratum, as arrays of *shape* [S, F, L, H]."""
    return HistogramColumns(
        count=np.stack([block.count for block in blocks]).reshape(shape),
        weight=np.stack([block.weight for block in blocks]).reshape(shape),
        total=np.stack([block.total for block in blocks]).reshape(shape),
        minimum=np.stack([block.minimum for block in blocks]).reshape(shape),
        maximum=np.stack([block.maximum for block in blocks]).reshape(shape),
        zero_count=np.stack([block.zero_count for block in blocks]).reshape(shape),
        buckets=np.stack([block.buckets for block in blocks]).reshape(*shape, BUCKETS),
    )


def with_carried(window: WindowBatch, cells: Sequence[CarriedCell | None]) -> WindowBatch:
    """Return *window* with what the heads of each stratum moved; as it is where no stratum has any."""
    if not any(cells):
        return window
    strata, _, layers, heads = window.count.shape
    shape = (strata, len(VALUE_FEATURES), layers, heads)
    nothing = HistogramBlock(len(VALUE_FEATURES) * layers * heads)
    more = stacked([nothing if cell is None else cell.block for cell in cells], shape)
    norms = [np.full((layers, heads), np.nan, np.float32) if cell is None else cell.norm_mean() for cell in cells]
    return replace(
        window,
        features=window.features + VALUE_FEATURES,
        count=np.concatenate([window.count, more["count"]], axis=1),
        weight=np.concatenate([window.weight, more["weight"]], axis=1),
        total=np.concatenate([window.total, more["total"]], axis=1),
        minimum=np.concatenate([window.minimum, more["minimum"]], axis=1),
        maximum=np.concatenate([window.maximum, more["maximum"]], axis=1),
        zero_count=np.concatenate([window.zero_count, more["zero_count"]], axis=1),
        buckets=np.concatenate([window.buckets, more["buckets"]], axis=1),
        output_norm=np.stack(norms),
    )
