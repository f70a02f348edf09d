"""Units are long enough to be exchanged, and what dependence is left is counted in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headwatch.compare.batches import dependence_of, enough, inflation, joined, joined_until_independent

from .scenes import Scene, side


def test_independent_windows_stay_units():
    first, second, dependence = joined_until_independent(side(Scene(seed=1)), side(Scene(seed=2)), 0.02)
    assert (first.length, second.length, first.units) == (1, 1, 30)
    assert dependence.largest < 0.3


def test_windows_that_say_much_of_the_next_one_become_longer_units():
    scenes = Scene(seed=1, memory=0.7, windows=120), Scene(seed=2, memory=0.7, windows=120)
    first, second, dependence = joined_until_independent(*map(side, scenes), 0.02)
    assert first.length == second.length >= 4
    assert first.units == -(-120 // first.length)
    assert dependence.largest < max(dependence_of(*map(side, scenes)).features)


def test_units_are_not_joined_below_what_can_be_compared():
    slow = Scene(seed=1, memory=0.95, windows=16), Scene(seed=2, memory=0.95, windows=16)
    first, second, dependence = joined_until_independent(*map(side, slow), 0.02)
    assert enough(first.units, second.units, 0.02)
    assert inflation(dependence.largest) > 1.5, "what is left is counted in"


def test_the_correlation_of_a_short_series_is_not_taken_for_smaller_than_it_is():
    """Sixteen windows of an AR(1) series with 0.5: the plain estimate is 0.31 on average."""
    sides = [side(Scene(seed=seed, memory=0.5, windows=16)) for seed in range(60)]
    found = [dependence_of(first, second).features for first, second in zip(sides[::2], sides[1::2], strict=True)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_a_joined_unit_is_what_one_longer_window_would_have_been():
    one = side(Scene(seed=3, windows=4))
    two = joined(one)
    cell, heads = next(iter(one.cells.items()))
    rows = heads.rows[:2, 0]
    expected = (heads.values[0, 0] * rows[0] + heads.values[1, 0] * rows[1]) / rows.sum()
    np.testing.assert_allclose(two.cells[cell].values[0, 0], expected, rtol=1e-5)
    assert two.cells[cell].rows[0, 0] == rows.sum()
    assert two.traffic["requests"][0] == one.traffic["requests"][:2].sum()
    name, series = next(iter(one.signals.items()))
    weights = series.requests[:2]
    assert two.signals[name].values[0] == pytest.approx((series.values[:2] * weights).sum() / weights.sum())


def test_units_of_different_runs_are_never_joined():
    one = replace(side(Scene(seed=3, windows=5)), runs=np.array([0, 0, 0, 1, 1]))
    two = joined(one)
    assert two.runs.tolist() == [0, 0, 1]
    assert two.traffic["requests"][1] == one.traffic["requests"][2], "the one that is left over stays alone"


@pytest.mark.parametrize(("first", "second", "right"), [(7, 7, True), (4, 45, True), (5, 5, False), (1, 2000, False)])
def test_how_many_units_are_enough(first, second, right):
    assert enough(first, second, 0.02) is right
