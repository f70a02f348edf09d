"""Paired ratios and their intervals: laws, and how often an interval is right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headwatch.bench.statistics import Interval, paired_ratio, percentile_ratio


def test_equal_arms_have_ratio_one_and_no_width():
    assert paired_ratio([[1.0, 1.0, 1.0]]) == Interval(1.0, 1.0, 1.0, 3)


def test_a_ratio_and_its_inverse_are_inverse():
    ratios = [0.8, 0.95, 1.1, 0.9]
    there, back = paired_ratio([ratios]), paired_ratio([[1 / ratio for ratio in ratios]])
    assert there.value * back.value == pytest.approx(1.0)
    assert there.low * back.high == pytest.approx(1.0, rel=0.02)  # the resamples are the same, their percentiles nearly


def test_strata_weigh_the_same_however_many_pairs_they_have():
    found = paired_ratio([[0.5] * 9, [2.0]])
    assert found.value == pytest.approx(1.0)
    assert found.pairs == 10


def test_one_pair_has_no_width_and_says_so():
    assert paired_ratio([[0.9]]) == Interval(0.9, 0.9, 0.9, 1)


def test_what_both_arms_of_a_pair_share_does_not_widen_the_interval():
    """A machine that is twice as slow in every second pair gives the same interval as a steady one."""
    random = np.random.default_rng(0)
    plain = random.normal(1.0, 0.01, 12) * np.tile([1.0, 2.0], 6)
    arm = 0.9 * plain
    found = paired_ratio([(arm / plain).tolist()])
    assert (found.low, found.high) == pytest.approx((0.9, 0.9))


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = sum(
        paired_ratio([np.exp(random.normal(math.log(0.97), 0.02, 10)).tolist()]).holds(0.97) for _ in range(200)
    )
    assert 0.88 <= hits / 200 <= 0.99


def test_the_same_measurements_always_give_the_same_interval():
    ratios = [[0.93, 0.97, 1.01], [0.9, 0.95]]
    assert paired_ratio(ratios) == paired_ratio(ratios)


@pytest.mark.parametrize("ratios", [[], [[]], [[1.0, 0.0]], [[float("nan")]], [[-1.0]]])
def test_what_is_no_ratio_is_refused(ratios: list[list[float]]):
    with pytest.raises(ValueError, match="positive ratios"), np.errstate(divide="ignore", invalid="ignore"):
        paired_ratio(ratios)


def test_a_percentile_sees_what_a_median_does_not():
    """Every fiftieth step takes three times as long: p99 shows it, p50 does not."""
    random = np.random.default_rng(2)
    plain = [random.normal(50.0, 0.5, 100) for _ in range(8)]
    arm = [cycle.copy() for cycle in plain]
    for cycle in arm:
        cycle[::50] *= 3
    late = percentile_ratio(arm, plain, 99)
    assert late.value > 1.5
    assert late.low > 1.05
    assert percentile_ratio(arm, plain, 50).value == pytest.approx(1.0, abs=0.002)


def test_percentiles_need_the_same_cycles_of_both_arms():
    with pytest.raises(ValueError, match="same cycles"):
        percentile_ratio([np.ones(3)], [np.ones(3), np.ones(3)], 99)
