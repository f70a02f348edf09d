"""Bytes of a frame as arrays, and what may be wrong with them."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.errors import WireError
from headwatch.native.frames import frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.model import Column

LARGEST_SHARE = 1.01
"""Rounding may carry a share a little beyond 1."""


def array(name: str, column: Column, dtype: str) -> NDArray[Any]:
    """Return a read-only view of *column*.

    Raises:
        WireError: It is no whole number of values.
    """
    kind = np.dtype(dtype)
    if len(column) % kind.itemsize:
        raise WireError("shape", f"{name} of {len(column)} bytes is no whole number of {kind.itemsize}-byte values")
    return np.frombuffer(column, kind)


def ragged(name: str, flat: NDArray[Any], counts: Sequence[int], layers: int, heads: int) -> tuple[NDArray[Any], ...]:
    """Return *flat* as one view [count, layers, heads] for each row of *counts*.

    Raises:
        WireError: It does not have as many values as the rows need.
    """
    needed = sum(counts) * layers * heads
    if len(flat) != needed:
        raise WireError("shape", f"{len(flat)} values of {name}, but its rows need {needed}")
    whole = flat.reshape(-1, layers, heads) if needed else flat.reshape(0, layers, heads)
    return tuple(whole[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True))


def within_shares(values: NDArray[np.float32]) -> bool:
    """Return whether no one of *values* [N] is over 1 or under -1, but for rounding.  NaN means "undefined" and is neither."""
    fast = frames()
    if fast is not None:
        return fast.within(values, LARGEST_SHARE)
    return not len(values) or not (np.fmax.reduce(values) > LARGEST_SHARE or np.fmin.reduce(values) < -LARGEST_SHARE)


def refuse_no_shares(name: str, values: NDArray[Any]) -> None:
    """Refuse *values* of which one is negative or over 1.  NaN means "undefined" and passes.

    Raises:
        WireError: With reason ``value``.
    """
    if (values < 0).any() or (values > LARGEST_SHARE).any():
        raise WireError("value", f"{name} is no share: shares lie between 0 and 1")


def refuse_no_amounts(name: str, values: NDArray[Any]) -> None:
    """Refuse *values* of which one is negative or infinite.  NaN means "undefined" and passes.

    Raises:
        WireError: With reason ``value``.
    """
    if (values < 0).any() or np.isinf(values).any():
        raise WireError("value", f"{name} is no amount: amounts are finite and not negative")
