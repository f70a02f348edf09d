"""Laws of the effect sizes: PSI, Jensen-Shannon, Wasserstein."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headwatch.drift.effects.jensen_shannon import jensen_shannon
from headwatch.drift.effects.psi import psi
from headwatch.drift.effects.wasserstein import wasserstein
from headwatch.errors import IncompatibleHistograms

BUCKETS = 7
MIDDLES = np.linspace(0.05, 0.95, BUCKETS)
COUNTS = hnp.arrays(np.uint32, (3, BUCKETS), elements=st.integers(0, 500))


def w1(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return wasserstein(a, b, MIDDLES)


ALL = pytest.mark.parametrize("effect", [psi, jensen_shannon, w1])


@ALL
@given(a=COUNTS, b=COUNTS)
def test_an_effect_does_not_depend_on_the_order_and_is_never_negative(effect, a, b) -> None:
    np.testing.assert_allclose(effect(a, b), effect(b, a), equal_nan=True)
    assert not (effect(a, b) < 0).any()


@ALL
@given(a=COUNTS)
def test_a_distribution_has_no_distance_from_itself(effect, a) -> None:
    found = effect(a, a)
    assert np.allclose(found[~np.isnan(found)], 0.0, atol=1e-7)


@ALL
def test_histograms_of_other_buckets_are_refused(effect) -> None:
    with pytest.raises(IncompatibleHistograms, match="7 buckets"):
        effect(np.ones((1, 7), np.uint32), np.ones((1, 6), np.uint32))


def test_jensen_shannon_is_one_where_nothing_is_shared_and_much_was_seen() -> None:
    a, b = np.zeros((1, BUCKETS), np.uint32), np.zeros((1, BUCKETS), np.uint32)
    a[0, 0] = b[0, 6] = 10**8
    assert jensen_shannon(a, b)[0] == pytest.approx(1.0, abs=1e-3)


def test_wasserstein_is_the_distance_that_everything_moved() -> None:
    a, b = np.zeros((1, BUCKETS), np.uint32), np.zeros((1, BUCKETS), np.uint32)
    a[0, 2], b[0, 4] = 12, 3
    assert w1(a, b)[0] == pytest.approx(MIDDLES[4] - MIDDLES[2])


def test_wasserstein_of_nothing_is_not_zero_but_unknown() -> None:
    assert np.isnan(w1(np.zeros((1, BUCKETS), np.uint32), np.ones((1, BUCKETS), np.uint32))).all()


def test_one_more_value_in_an_empty_bucket_does_not_make_the_index_explode() -> None:
    a = np.array([[50, 50, 0]], np.uint32)
    b = np.array([[50, 49, 1]], np.uint32)
    assert psi(a, b)[0] < 0.1
