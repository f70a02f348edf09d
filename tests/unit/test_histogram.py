"""Laws of the exponential histograms."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headwatch.aggregate.histogram import BUCKETS, OFFSET, SCALE, HistogramBlock, bucket_index, slot_middles

VALUES = st.one_of(st.floats(0, 1, width=32), st.just(float("nan")))
MATRIX = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(4)), elements=VALUES)


def block(values: np.ndarray) -> HistogramBlock:
    made = HistogramBlock(values.shape[1])
    made.observe(values, np.ones(len(values), np.int64))
    return made


def same(a: HistogramBlock, b: HistogramBlock) -> bool:
    return (
        np.array_equal(a.count, b.count)
        and np.array_equal(a.weight, b.weight)
        and np.array_equal(a.buckets, b.buckets)
        and np.array_equal(a.zero_count, b.zero_count)
        and np.array_equal(a.minimum, b.minimum, equal_nan=True)
        and np.array_equal(a.maximum, b.maximum, equal_nan=True)
        and np.allclose(a.total, b.total)
    )


def floats_at(bound: int) -> st.SearchStrategy[float]:
    """Draw a float32 that is as near to the lower bound of bucket *bound* as one can be, on either side."""
    nearest = np.float32(2.0 ** ((bound + OFFSET) / (1 << SCALE)))
    return st.sampled_from([float(np.nextafter(nearest, np.float32(side))) for side in (0, nearest, 2)])


@given(st.one_of(st.floats(2.0**-16, 1.0, width=32, exclude_min=True), st.integers(1, BUCKETS - 1).flatmap(floats_at)))
def test_a_value_lies_in_the_bucket_that_opentelemetry_says(value: float) -> None:
    """To the last bit: bounds are roots of powers of two, so both sides are raised before they are compared."""
    index = int(bucket_index(np.array([value], np.float32))[0]) + OFFSET
    raised = Fraction(value) ** (1 << SCALE)
    assert Fraction(2) ** index < raised <= Fraction(2) ** (index + 1)


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.0, -1), (-1e-9, -1), (2.0**-17, -1), (1.0, BUCKETS - 1), (1.0001, BUCKETS - 1)]
)
def test_the_ends_of_the_range(value: float, bucket: int) -> None:
    assert bucket_index(np.array([value], np.float32))[0] == bucket


def test_the_middle_of_a_slot_lies_in_it() -> None:
    middles = slot_middles()
    assert bucket_index(middles.astype(np.float32)).tolist() == list(range(-1, BUCKETS))


@given(st.floats(2.0**-15, 1.0, width=32))
def test_the_middle_of_a_bucket_is_within_five_per_cent_of_each_of_its_values(value: float) -> None:
    slot = int(bucket_index(np.array([value], np.float32))[0]) + 1
    assert slot_middles()[slot] == pytest.approx(value, rel=0.0453)


@given(MATRIX)
def test_every_defined_value_is_counted_once(values: np.ndarray) -> None:
    made = block(values)
    assert np.array_equal(made.count, (~np.isnan(values)).sum(0))
    assert np.array_equal(made.buckets.sum(1) + made.zero_count, made.count)
    assert np.allclose(made.total, np.nansum(values, 0), atol=1e-5)


@given(MATRIX, MATRIX, MATRIX)
def test_merge_is_associative_commutative_and_equals_observing_all(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = block(a), block(b), block(c)
    assert same(x.merge(y), y.merge(x))
    assert same(x.merge(y).merge(z), x.merge(y.merge(z)))
    assert same(x.merge(y), block(np.concatenate([a, b])))
    assert same(x, block(a)), "merge leaves its arguments alone"


def test_blocks_of_different_size_do_not_merge() -> None:
    with pytest.raises(ValueError, match="3 and 4"):
        HistogramBlock(3).merge(HistogramBlock(4))


@given(MATRIX, st.data())
def test_a_weight_counts_as_often_as_it_says(values: np.ndarray, data: st.DataObject) -> None:
    """Observing with weights is observing repeatedly, but for the number of values seen."""
    weights = np.array(data.draw(st.lists(st.integers(1, 9), min_size=len(values), max_size=len(values))), np.int64)
    made = HistogramBlock(values.shape[1])
    made.observe(values, weights)
    often = block(np.repeat(values, weights, axis=0))
    assert np.array_equal(made.count, (~np.isnan(values)).sum(0))
    assert np.array_equal(made.weight, often.count)
    assert np.array_equal(made.weight, made.buckets.sum(1) + made.zero_count)
    assert np.array_equal(made.buckets, often.buckets)
    assert np.allclose(made.total, often.total)
