"""Views of the columns that only frames of detail levels 2 to 4 carry: block profiles, top positions, full rows.

As in :mod:`headwatch.wire.columns` nothing is copied, and everything is checked before it can be indexed: a frame has
exactly the columns of its level, as long as its positions say, positions lie in the row's past, weights are shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.errors import WireError
from headwatch.wire.arrays import array, ragged, refuse_no_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.model import SummaryBatch

BLOCK_PROFILE, TOP_POSITIONS, FULL_ROWS = 2, 3, 4
"""The detail levels, each with all that the lower ones have."""
MAX_TOP_K = 256
MAX_BLOCK_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class DetailColumns:
    """The arrays of one frame of detail 2 or more.  R rows, L layers, H heads, K top positions."""

    block_tokens: int
    block_profile: tuple[NDArray[np.uint8], ...]
    """R arrays [blocks, L, H] of codes (:mod:`headwatch.wire.mass_code`)."""
    top_position: NDArray[np.int32] | None
    """[R, L, H, K], largest weight first; -1: no further position has a weight.  None below detail 3."""
    top_weight: NDArray[np.float32] | None  # [R, L, H, K]
    full_weight: tuple[NDArray[np.float16], ...]
    """R arrays [position + 1, L, H]; empty below detail 4."""


def view_detail(batch: SummaryBatch, position: NDArray[np.int32], layers: int, heads: int) -> DetailColumns | None:
    """Return the detail columns of *batch*, whose rows are at *position* [R]; None where its level has none.

    Raises:
        WireError: ``shape`` or ``value``: the columns are not those of the frame's level, or do not fit its rows.
    """
    level = batch.detail
    if not 0 <= level <= FULL_ROWS:
        raise WireError("shape", f"detail {level} is none of 0 to {FULL_ROWS}")
    for lowest, name in _FIRST_LEVEL:
        if level < lowest and getattr(batch, name):
            raise WireError("shape", f"a frame of detail {level} carries {name}, which comes with {lowest}")
    if level < BLOCK_PROFILE:
        return None
    if batch.attention != "self":
        raise WireError("shape", f"rows of {batch.attention} attention have no detail above 1")
    if not 0 < batch.block_tokens <= MAX_BLOCK_TOKENS:
        raise WireError("shape", f"blocks of {batch.block_tokens} tokens")
    visible = position.astype(np.int64) + 1
    blocks = (-(-visible // batch.block_tokens)).tolist()
    profile = ragged("block_profile", array("block_profile", batch.block_profile, "<u1"), blocks, layers, heads)
    if level < TOP_POSITIONS:
        return DetailColumns(batch.block_tokens, profile, None, None, ())
    top_position, top_weight = _top(batch, position, layers, heads)
    full: tuple[NDArray[np.float16], ...] = ()
    if level >= FULL_ROWS:
        flat = array("full_weight", batch.full_weight, "<f2")
        refuse_no_shares("full_weight", flat)
        full = ragged("full_weight", flat, visible.tolist(), layers, heads)
    return DetailColumns(batch.block_tokens, profile, top_position, top_weight, full)


def _top(
    batch: SummaryBatch, position: NDArray[np.int32], layers: int, heads: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    if not 0 < batch.top_k <= MAX_TOP_K:
        raise WireError("shape", f"top_k {batch.top_k} is none of 1 to {MAX_TOP_K}")
    shape = (len(position), layers, heads, batch.top_k)
    places = array("top_position", batch.top_position, "<i4")
    weights = array("top_weight", batch.top_weight, "<f4")
    for name, values in (("top_position", places), ("top_weight", weights)):
        if len(values) != len(position) * layers * heads * batch.top_k:
            raise WireError("shape", f"{len(values)} values of {name} for {shape}")
    places, weights = places.reshape(shape), weights.reshape(shape)
    if (places < -1).any() or (places > position[:, None, None, None]).any():
        raise WireError("value", "a top position lies outside what its row can see")
    refuse_no_shares("top_weight", weights)
    return places, weights


_FIRST_LEVEL = (
    (BLOCK_PROFILE, "block_tokens"), (BLOCK_PROFILE, "block_profile"),
    (TOP_POSITIONS, "top_k"), (TOP_POSITIONS, "top_position"), (TOP_POSITIONS, "top_weight"),
    (FULL_ROWS, "full_weight"),
)  # fmt: skip
