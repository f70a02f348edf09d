"""Views of a summary frame's columns as arrays.

Nothing is copied: the arrays are read-only views of the frame's bytes.  The shapes are checked against each other first,
because a frame comes from outside: whatever passes :func:`view` can be indexed without a further thought.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.errors import WireError
from headwatch.model import FEATURES
from headwatch.wire.arrays import array, ragged, refuse_no_amounts, within_shares
from headwatch.wire.detail_columns import DetailColumns, view_detail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.model import SummaryBatch

MAX_HEADS = 1 << 16
MAX_TOKENS = 1 << 31
MAX_TIME_NS = 1 << 62
LARGEST_WEIGHT = np.float32(1 << 20)
"""A row that claims to stand for more counts as this many."""
_ONES = np.ones(256, np.float32)
"""Weights of rows that stand for themselves: to make such an array costs more than to look at it."""
_ONES.flags.writeable = False
ROW_BYTES = 4
"""Of each entry of ``row_request``."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The arrays of one frame.  R rows, L layers, H heads, F features."""

    request: NDArray[np.int32]  # [R]
    position: NDArray[np.int32]  # [R]
    weight: NDArray[np.float32]  # [R]: how many rows each one stands for
    features: NDArray[np.float32]  # [R, L, H, F]
    span_mass: tuple[NDArray[np.float32], ...]
    """R arrays [spans + 1, L, H], the last span is the generated text; empty at detail 0."""
    value_mass: tuple[NDArray[np.float32], ...]
    """Shaped as ``span_mass``; empty where the frame carries no value masses."""
    output_norm: NDArray[np.float32] | None
    """[R, L, H]; None where the frame carries no value masses."""
    detail: DetailColumns | None
    """None below detail 2."""
    centroid: NDArray[np.float32] | None
    """[R, L, H] in a frame of cross-attention; None in others."""

    def taking(self, rows: list[int]) -> Columns:
        """Return the *rows* alone.  Not for detail 2 and more."""
        return replace(
            self,
            request=self.request[rows],
            position=self.position[rows],
            weight=self.weight[rows],
            features=self.features[rows],
            span_mass=tuple(self.span_mass[row] for row in rows) if self.span_mass else (),
            value_mass=tuple(self.value_mass[row] for row in rows) if self.value_mass else (),
            output_norm=None if self.output_norm is None else self.output_norm[rows],
            centroid=None if self.centroid is None else self.centroid[rows],
        )


def view(batch: SummaryBatch) -> Columns:
    """Return the columns of *batch*.

    Raises:
        WireError: Lengths do not fit each other, an index leaves its table, or a value cannot be what it claims to be.
    """
    request, position = named_rows(batch)
    rows, layers, heads = len(request), len(batch.layers), batch.heads
    features = array("features", batch.features, "<f4")
    if len(features) != rows * layers * heads * len(FEATURES):
        raise WireError("shape", f"{len(features)} features for {rows} rows, {layers} layers, {heads} heads")
    detail = view_detail(batch, position, layers, heads)
    masses = array("span_mass", batch.span_mass, "<f4")
    if not (within_shares(features) and within_shares(masses)):
        raise WireError("value", "a feature or a mass is no share: shares lie between 0 and 1")
    counts = [len(item.spans if batch.attention == "self" else item.encoder_spans) + 1 for item in batch.requests]
    spans = [counts[number] for number in request.tolist()]
    value_mass, output_norm = _values(batch, spans, layers, heads)
    return Columns(
        request=request,
        position=position,
        weight=_weights(batch, rows),
        features=features.reshape(rows, layers, heads, len(FEATURES)),
        span_mass=ragged("span_mass", masses, spans, layers, heads) if len(masses) or not rows else (),
        value_mass=value_mass,
        output_norm=output_norm,
        detail=detail,
        centroid=_centroid(batch, (rows, layers, heads)),
    )


def without_rows(batch: SummaryBatch) -> SummaryBatch:
    """Return *batch* without any row: what it says of requests that have ended."""
    return msgspec.structs.replace(
        batch, row_request=b"", row_position=b"", features=b"", span_mass=b"", row_weight=b"", value_mass=b"", output_norm=b"",
        centroid=b"",
    )  # fmt: skip


def named_rows(batch: SummaryBatch) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the request and the position of each row, [R] each.

    Raises:
        WireError: They do not fit each other, or name a request that the frame does not carry.
    """
    if not 0 <= batch.heads <= MAX_HEADS or batch.head_offset < 0:
        raise WireError("shape", f"heads {batch.heads} and head_offset {batch.head_offset} must not be negative, "
                                 f"nor heads over {MAX_HEADS}")
    if not 0 <= batch.time_ns < MAX_TIME_NS:
        raise WireError("value", f"a time of {batch.time_ns} ns")
    request = array("row_request", batch.row_request, "<i4")
    position = array("row_position", batch.row_position, "<i4")
    if len(request) and not (batch.heads and batch.layers):
        raise WireError("shape", f"{len(request)} rows of no head")
    if len(position) != len(request):
        raise WireError("shape", f"{len(request)} row requests, but {len(position)} row positions")
    named = request.tolist()  # few: lists are faster than arrays
    if named and (min(named) < 0 or max(named) >= len(batch.requests) or min(position.tolist()) < 0):
        raise WireError("shape", "a row names a request that the frame does not carry, or a negative position")
    return request, position


def _weights(batch: SummaryBatch, rows: int) -> NDArray[np.float32]:
    """Return the weight of each row."""
    for context in batch.requests:
        if not 0.0 <= context.weight < math.inf:  # also refuses NaN
            raise WireError("value", f"a request stands for {context.weight} requests")
        if not 0 <= context.prompt_tokens < MAX_TOKENS:
            raise WireError("value", f"a prompt of {context.prompt_tokens} tokens")
    if not batch.row_weight:
        return _ONES[:rows] if rows <= len(_ONES) else np.ones(rows, np.float32)
    weight = array("row_weight", batch.row_weight, "<f4")
    if len(weight) != rows:
        raise WireError("shape", f"{rows} rows, but {len(weight)} row weights")
    if not ((weight >= 0) & (weight < np.inf)).all():
        raise WireError("value", "a row weight is negative or not finite")
    bounded: NDArray[np.float32] = np.minimum(weight, LARGEST_WEIGHT)
    return bounded


def _centroid(batch: SummaryBatch, shape: tuple[int, int, int]) -> NDArray[np.float32] | None:
    """Return where each head looks in its encoder's input."""
    if batch.attention == "self":
        return None
    centroid = array("centroid", batch.centroid, "<f4")
    if len(centroid) != math.prod(shape):
        raise WireError("shape", f"{len(centroid)} centroids for {shape} rows, layers and heads")
    if not within_shares(centroid):
        raise WireError("value", "a centroid lies outside of its encoder's input")
    return centroid.reshape(shape)


def _values(
    batch: SummaryBatch, spans: list[int], layers: int, heads: int
) -> tuple[tuple[NDArray[np.float32], ...], NDArray[np.float32] | None]:
    """Return what the heads carried: value masses and output norms."""
    if not batch.value_mass and not batch.output_norm:
        return (), None
    mass, norm = array("value_mass", batch.value_mass, "<f4"), array("output_norm", batch.output_norm, "<f4")
    if len(norm) != len(spans) * layers * heads:
        raise WireError("shape", f"{len(norm)} output norms for {len(spans)} rows, {layers} layers, {heads} heads")
    refuse_no_amounts("value_mass", mass)
    refuse_no_amounts("output_norm", norm)
    return ragged("value_mass", mass, spans, layers, heads), norm.reshape(len(spans), layers, heads)
