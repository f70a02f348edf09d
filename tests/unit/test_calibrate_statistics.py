"""Laws of the scores and of their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headwatch.calibrate import statistics
from headwatch.calibrate.statistics import auroc, auroc_estimate, mean_estimate

VALUES = st.integers(-5, 5).map(float)
SIDES = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda sizes: st.tuples(*(arrays.arrays(np.float64, size, elements=VALUES) for size in sizes))
)


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(SIDES)
def test_auroc_of_exchanged_sides_is_the_rest_to_one(sides):
    """AUROC(wrong, right) = 1 - AUROC(right, wrong), ties included."""
    right, wrong = sides
    assert auroc(right, wrong) == pytest.approx(1 - auroc(wrong, right))
    assert 0 <= auroc(right, wrong) <= 1


@given(SIDES)
def test_auroc_looks_at_order_alone(sides):
    """A strictly increasing function changes nothing; a decreasing one exchanges the sides."""
    right, wrong = sides
    assert auroc(np.exp(right), np.exp(wrong)) == pytest.approx(auroc(right, wrong))
    assert auroc(-right, -wrong) == pytest.approx(1 - auroc(right, wrong))


def test_auroc_counts_pairs():
    """One where every right value is higher, one half for ties, three of four where one pair is out of order."""
    assert auroc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1.0
    assert auroc(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.5
    assert auroc(np.array([1.5, 3.0]), np.array([1.0, 2.0])) == 0.75


def test_what_is_undefined_is_left_out_and_nothing_is_no_score():
    """A request whose head defines no lookback does not count; a head without any has no AUROC."""
    assert auroc(np.array([2.0, np.nan]), np.array([1.0])) == 1.0
    assert np.isnan(auroc(np.array([np.nan]), np.array([1.0])))
    estimate = auroc_estimate(np.array([[2.0, np.nan]] * 6), np.array([[1.0, 1.0]] * 6), seeded())
    assert estimate.value[0] == 1.0
    assert np.isnan([estimate.value[1], estimate.low[1], estimate.high[1]]).all()


def test_each_head_is_scored_by_itself(monkeypatch: pytest.MonkeyPatch):
    """Many heads at once, in pieces or not, give what one at a time gives."""
    right, wrong = seeded(1).normal(0.3, 1, (14, 3, 4)), seeded(2).normal(0, 1, (14, 3, 4))
    together = auroc_estimate(right, wrong, seeded())
    monkeypatch.setattr(statistics, "CHUNK_ELEMENTS", 5 * 14 * 14)
    pieces = auroc_estimate(right, wrong, seeded())
    single = auroc_estimate(right[:, 2, 1], wrong[:, 2, 1], seeded())
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(getattr(pieces, name), getattr(together, name), rtol=1e-12)
        assert getattr(single, name) == pytest.approx(getattr(together, name)[2, 1])
    assert together.value[2, 1] == auroc(right[:, 2, 1], wrong[:, 2, 1])
    assert (together.low <= together.value).all()
    assert (together.value <= together.high).all()


def test_intervals_hold_what_they_promise():
    """Of 200 samples the 95 % interval of an AUROC and of a mean holds the truth in 90 % and more."""
    source, truth = seeded(7), 0.7602  # P(N(1, 1) > N(0, 1)) = Φ(1/√2)
    right, wrong = source.normal(1, 1, (40, 200)), source.normal(0, 1, (40, 200))
    area, mean = auroc_estimate(right, wrong, seeded()), mean_estimate(right, seeded())
    assert ((area.low <= truth) & (truth <= area.high)).mean() >= 0.9
    assert ((mean.low <= 1) & (mean.high >= 1)).mean() >= 0.9
    assert (area.high - area.low).mean() < 0.25, "an interval that always holds the truth may be too wide to say anything"


def test_complete_separation_is_not_certainty():
    """Ten of ten questions apart do not prove that all are: the interval reaches down to 0.69."""
    apart = auroc_estimate(np.arange(10.0) + 20, np.arange(10.0), seeded())
    assert (apart.value, apart.high) == (1.0, 1.0)
    assert apart.low == pytest.approx(0.025 ** (1 / 10))
    reverse = auroc_estimate(np.arange(10.0), np.arange(10.0) + 20, seeded())
    assert reverse.high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_questions_are_drawn_whole():
    """Where each question shifts both of its requests, pairs drawn whole give a narrower interval than pairs torn apart."""
    shift = seeded(3).normal(0, 1, 30)
    right, wrong = shift + 0.2 + seeded(4).normal(0, 0.1, 30), shift + seeded(5).normal(0, 0.1, 30)
    whole = auroc_estimate(right, wrong, seeded())
    torn = auroc_estimate(right, seeded(6).permutation(wrong), seeded())
    assert whole.value == torn.value
    assert whole.high - whole.low < 0.6 * (torn.high - torn.low)


def test_same_seed_same_interval():
    """Another seed moves the ends of an interval, never the score."""
    right, wrong = seeded(1).normal(0.3, 1, 20), seeded(2).normal(0, 1, 20)
    one, again, other = (auroc_estimate(right, wrong, seeded(seed)) for seed in (5, 5, 6))
    assert (one.low, one.high) == (again.low, again.high)
    assert (one.low, one.high) != (other.low, other.high)
    assert one.value == other.value
