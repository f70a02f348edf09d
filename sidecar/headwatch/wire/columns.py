"""Views of a summary frame's columns as arrays.

Nothing is copied: the arrays are read-only views of the frame's bytes.  The shapes are checked against each other first,
because a frame comes from outside: whatever passes :func:`view` can be indexed without a further thought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.errors import WireError
from headwatch.model import FEATURES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.model import SummaryBatch

_I4 = np.dtype("<i4")
_F4 = np.dtype("<f4")
_LARGEST = 1.01
"""Rounding may carry a share a little beyond 1."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The arrays of one frame.  R rows, L layers, H heads, F features."""

    request: NDArray[np.int32]  # [R]
    position: NDArray[np.int32]  # [R]
    features: NDArray[np.float32]  # [R, L, H, F]
    span_mass: tuple[NDArray[np.float32], ...]  # R arrays [spans + 1, L, H]; the last span is the generated text


def view(batch: SummaryBatch) -> Columns:
    """Return the columns of *batch*.

    Raises:
        WireError: Lengths do not fit each other, or an index leaves its table.
    """
    request = np.frombuffer(_whole(batch.row_request, _I4), _I4)
    position = np.frombuffer(_whole(batch.row_position, _I4), _I4)
    rows, layers, heads = len(request), len(batch.layers), batch.heads
    if heads < 0 or batch.head_offset < 0:
        raise WireError("shape", f"heads {heads} and head_offset {batch.head_offset} must not be negative")
    if len(position) != rows:
        raise WireError("shape", f"{rows} row requests, but {len(position)} row positions")
    if rows and (request.min() < 0 or request.max() >= len(batch.requests) or position.min() < 0):
        raise WireError("shape", "a row names a request that the frame does not carry, or a negative position")
    features = np.frombuffer(_whole(batch.features, _F4), _F4)
    if len(features) != rows * layers * heads * len(FEATURES):
        raise WireError("shape", f"{len(features)} features for {rows} rows, {layers} layers, {heads} heads")
    flat = np.frombuffer(_whole(batch.span_mass, _F4), _F4)
    for values in (features, flat):
        if (np.abs(values) > _LARGEST).any():  # NaN is not: it means "undefined"
            raise WireError("value", "a feature or a mass is no share: shares lie between 0 and 1")
    if not len(flat) and rows:  # detail 0: no span masses
        return Columns(request, position, features.reshape(rows, layers, heads, len(FEATURES)), ())
    spans = np.array([len(item.spans) + 1 for item in batch.requests], np.int64)[request]
    ends = np.cumsum(spans * (layers * heads))
    if len(flat) != (ends[-1] if rows else 0):
        raise WireError("shape", f"{len(flat)} span masses, but the spans of the rows need {ends[-1] if rows else 0}")
    masses = tuple(
        flat[end - count * layers * heads : end].reshape(count, layers, heads)
        for count, end in zip(spans.tolist(), ends.tolist(), strict=True)
    )
    return Columns(request, position, features.reshape(rows, layers, heads, len(FEATURES)), masses)


def _whole(column: bytes, dtype: np.dtype[np.int32] | np.dtype[np.float32]) -> bytes:
    if len(column) % dtype.itemsize:
        raise WireError("shape", f"a column of {len(column)} bytes is no whole number of {dtype.itemsize}-byte values")
    return column
