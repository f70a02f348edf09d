"""Exponential histograms of values in [0, 1], for many cells at once.

Every feature of headwatch is a share, so the buckets are fixed: scale 3 (each bucket 9 % wider than the one below) from
2⁻¹⁶ to 1, 128 buckets; smaller values are counted as zero.  Fixed bounds make every histogram mergeable by addition, which
is associative, commutative and exact.  Sum, weight, minimum and maximum are kept beside it and are exact, so means carry no
bucket error; a quantile errs by less than 4.5 % of its value.

An observation counts as often as its weight says: how many values it stands for, a whole number
(:mod:`headwatch.aggregate.weights`).  So buckets, sum and weight belong together as OpenTelemetry wants them, and what was
sampled unequally adds up right.  How many values were really seen is counted beside it, for whoever wants a standard error.

Memory: 568 bytes a cell (one head and feature of one stratum).
Source: OpenTelemetry data model, exponential histogram, "base-2 exponential buckets".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.native import frames as native

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALE = native.SCALE
BUCKETS = native.BUCKETS
OFFSET = -BUCKETS
"""Index of the first bucket; the last, -1, ends at 1 inclusive."""
_CELLS_AT_ONCE = 1024
"""Cells that are counted together: with some 64 rows, what is computed on the way stays in the cache."""


def _added_by_upper_half() -> NDArray[np.int32]:
    """Return what :func:`bucket_index` adds to the bits of a float32, by its upper 16 bits, [65536].

    No more than one bound lies between two floats that have the same upper half; the carry from the lower half says
    on which side of it a value is.
    """
    exponents = np.arange(127 + OFFSET // (1 << SCALE), 127)
    bounds = ((exponents[:, None] << 23) + native.lower_ends()).reshape(-1)  # the last float that is not above each bound
    first = np.arange(1 << 16, dtype=np.int64) << 16
    passed = np.searchsorted(bounds, first)
    to_next = np.append(bounds, 1 << 40)[passed] - first
    table = ((passed - 1) << 16) + (0xFFFF - np.minimum(to_next, 0xFFFF)) - first
    negative = first >= 1 << 31
    table[negative] = (-1 << 16) - first[negative]
    added: NDArray[np.int32] = table.astype(np.uint32).view(np.int32)
    return added


_ADDED_BY_UPPER_HALF = _added_by_upper_half()


def bucket_index(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the bucket 0 … BUCKETS-1 of each value, or -1 for "zero".  Values above 1 (rounding) count as 1.

    Exact, by the bits of the values: a table and no logarithm.  *values* must not be NaN.
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    index: NDArray[np.int32] = _ADDED_BY_UPPER_HALF.take((bits >> 16).astype(np.intp))  # take converts other kinds slower
    index += bits.view(np.int32)
    index >>= 16
    return index


def slot_middles() -> NDArray[np.float64]:
    """Return the value that stands for each slot, [BUCKETS + 1]: zero, then the geometric middle of each bucket."""
    middles: NDArray[np.float64] = np.exp2((np.arange(BUCKETS) + OFFSET + 0.5) / (1 << SCALE))
    return np.concatenate([np.zeros(1), middles])


class HistogramBlock:
    """Histograms of C cells, filled from matrices of observations."""

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self.count = np.zeros(cells, np.uint32)
        """[C]: values seen."""
        self.weight = np.zeros(cells, np.uint64)
        """[C]: values that they stand for."""
        self.total = np.zeros(cells, np.float64)
        """[C]: weighted sum of the values."""
        self.minimum = np.full(cells, np.nan, np.float32)
        self.maximum = np.full(cells, np.nan, np.float32)
        self._slots = np.zeros((cells, BUCKETS + 1), np.uint32)  # slot 0 is "zero"
        self._first_slot = np.arange(cells) * (BUCKETS + 1) + 1

    @property
    def zero_count(self) -> NDArray[np.uint32]:
        """Return the weight of each cell's values below the first bucket, [C]."""
        return self._slots[:, 0]

    @property
    def buckets(self) -> NDArray[np.uint32]:
        """Return the weights in the buckets, [C, BUCKETS]."""
        return self._slots[:, 1:]

    def observe(self, values: NDArray[np.float32], weights: NDArray[np.int64], first: int = 0) -> None:
        """Add the observations *values* [N, C'] of the cells from *first* on, with *weights* [N].

        NaN means "undefined" and is not counted.
        """
        fast = native.frames()
        if fast is not None:
            block = self.count, self.weight, self.total, self.minimum, self.maximum, self._slots
            fast.observe(np.ascontiguousarray(values), weights, first, block)
            return
        for start in range(0, values.shape[1], _CELLS_AT_ONCE):
            some = values[:, start : start + _CELLS_AT_ONCE]
            self._observe(slice(first + start, first + start + some.shape[1]), some, weights)

    def _observe(self, cells: slice, values: NDArray[np.float32], weights: NDArray[np.int64]) -> None:
        """Add *values* of *cells*, few enough for what is computed on the way to stay in the cache."""
        self.minimum[cells] = np.fmin(self.minimum[cells], np.fmin.reduce(values, axis=0))
        self.maximum[cells] = np.fmax(self.maximum[cells], np.fmax.reduce(values, axis=0))
        there = ~np.isnan(values)
        defined = None if there.all() else there  # None is the rule, and a third cheaper
        if defined is not None:
            values = np.where(defined, values, np.float32(0))
        seen = len(values) if defined is None else defined.sum(0, dtype=np.uint32)
        self.count[cells] += np.uint32(seen)
        slot = bucket_index(values) + self._first_slot[cells]
        spread: NDArray[np.uint32] | np.uint32 = np.uint32(1)
        if (weights == 1).all():
            self.weight[cells] += np.uint64(seen)
            self.total[cells] += values.sum(0, dtype=np.float64)
        else:
            weight = weights.astype(np.float64)
            total = weight.sum() if defined is None else weight @ defined.astype(np.float64)
            self.weight[cells] += np.uint64(total)  # exact below 2**53
            self.total[cells] += weight @ values.astype(np.float64)
            spread = np.broadcast_to(weights.astype(np.uint32)[:, None], values.shape)
            spread = spread.reshape(-1) if defined is None else spread[defined]
        chosen = slot.reshape(-1) if defined is None else slot[defined]
        np.add.at(self._slots.reshape(-1), chosen, spread)  # touches only the slots that it fills

    def merge(self, other: HistogramBlock) -> HistogramBlock:
        """Return the histograms of the observations of both; neither is changed."""
        if other.cells != self.cells:
            raise ValueError(f"blocks of {self.cells} and {other.cells} cells cannot be merged")
        merged = HistogramBlock(self.cells)
        merged.count = self.count + other.count
        merged.weight = self.weight + other.weight
        merged.total = self.total + other.total
        merged.minimum = np.fmin(self.minimum, other.minimum)
        merged.maximum = np.fmax(self.maximum, other.maximum)
        merged._slots = self._slots + other._slots
        return merged
