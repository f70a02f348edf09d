"""The filter foresees what is slow, and the fit finds how slow it is."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.bench.drift.streams import source
from headwatch.drift import slow_noise


def lag_one(w: np.ndarray) -> float:
    return float((w[1:] * w[:-1]).mean() / (w**2).mean())


@pytest.mark.parametrize(
    ("family", "phi", "share"),
    [("independent", None, 0.0), ("AR .9", 0.9, 1.0), ("AR .6", 0.6, 1.0), ("AR .9 with sampling noise", 0.9, 0.5)],
)
def test_innovations_are_white_and_of_unit_variance(family, phi, share) -> None:
    block = source(family, 1, 16, np.random.default_rng(3)).take(0, 1500)
    dilution = np.ones((1500, 1))
    noise = slow_noise.fit(block.values, dilution)
    assert noise.share[0] == pytest.approx(share, abs=0.16)
    if phi is not None:
        assert noise.phi[0] == pytest.approx(phi, abs=0.06)
    filters = slow_noise.Filter(noise.phi, noise.share, 16)
    w = np.stack([filters.step(y, np.ones((1, 1))) for y in block.values])
    assert abs(lag_one(w)) < 0.06
    assert w.var() == pytest.approx(1.0, abs=0.12)


def test_lag_one_prewhitening_would_not_do() -> None:
    """The reason for the filter: subtracting phi times the last value leaves a slow signal with noise correlated."""
    y = source("AR .9 with sampling noise", 1, 16, np.random.default_rng(3)).take(0, 4000).values
    naive = y[1:] - lag_one(y) * y[:-1]
    later = sum((naive[lag:] * naive[:-lag]).mean() for lag in range(1, 12)) / (naive**2).mean()
    assert later > 0.25


@pytest.mark.parametrize(("family", "phi", "share"), [("independent", 0.0, 0.0), ("AR .9", 0.9, 1.0),
                                                       ("AR .9 with sampling noise", 0.9, 0.5)])  # fmt: skip
def test_the_mean_of_windows_that_follow_each_other_slowly_is_worth_fewer_of_them(family, phi, share) -> None:
    values = source(family, 1, 64, np.random.default_rng(5)).take(0, 4000).values[:, 0]
    noise = slow_noise.fit(values[:, None], np.ones((len(values), 1)))
    known = slow_noise.SlowNoise(np.array([phi]), np.array([share]), noise.sampled_least, noise.sampled_most, noise.fewest)
    for windows in (1, 8, 20):
        means = values.reshape(-1, windows, 64).mean(axis=1) if 4000 % windows == 0 else None
        assert known.error(windows)[0] == pytest.approx(means.std() / values.std(), rel=0.05)


def test_a_gap_makes_the_filter_less_certain_and_not_wrong() -> None:
    filters = slow_noise.Filter(np.array([0.9]), np.array([1.0]), 1)
    filters.step(np.array([[2.0]]), np.ones((1, 1)))
    assert filters.state[0, 0] == pytest.approx(1.8)
    for _ in range(60):
        assert np.isnan(filters.step(np.array([[np.nan]]), np.ones((1, 1)))).all()
    assert abs(filters.state[0, 0]) < 0.01
    assert filters.variance[0, 0] == pytest.approx(1.0, abs=1e-3)


def test_an_outlier_is_clipped_and_moves_the_state_no_further() -> None:
    near, far = (slow_noise.Filter(np.array([0.9]), np.array([0.5]), 1) for _ in range(2))
    assert near.step(np.array([[4.0]]), np.ones((1, 1)))[0, 0] == slow_noise.CLIP
    assert far.step(np.array([[1e6]]), np.ones((1, 1)))[0, 0] == slow_noise.CLIP
    assert near.state[0, 0] == far.state[0, 0]


def varied(sampled: float, windows: int = 700, streams: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return white values [N, 1, K] of which *sampled* is sampling, and typical rows over rows, 1/4 to 4."""
    random = np.random.default_rng(9)
    ratio = random.choice([0.25, 1.0, 4.0], (windows, 1))
    spread = np.sqrt(1.0 - sampled + sampled * ratio)
    return random.standard_normal((windows, 1, streams)) * spread[:, :, None], ratio


@pytest.mark.parametrize("sampled", [0.0, 0.5, 1.0])
def test_how_much_is_sampling_is_told_where_rows_vary(sampled) -> None:
    noise = slow_noise.fit(*varied(sampled))
    assert noise.sampled_least[0] <= sampled <= noise.sampled_most[0]
    assert noise.sampled_most[0] - noise.sampled_least[0] <= 0.5


def test_where_rows_never_vary_it_may_be_anything_and_the_larger_variance_is_taken() -> None:
    values, _ = varied(0.0)
    noise = slow_noise.fit(values, np.ones((len(values), 1)))
    assert (noise.sampled_least[0], noise.sampled_most[0]) == (0.0, 1.0)
    for rows_over_typical, expected in ((4.0, 1.0), (0.25, 4.0)):
        dilution, doubt = noise.dilution(np.array([1.0 / rows_over_typical]))
        assert dilution[0] == pytest.approx(expected)
        assert doubt[0] > 1.5, "values may be steadier than that"


def test_at_typical_rows_nothing_is_in_doubt() -> None:
    noise = slow_noise.fit(*varied(0.5))
    dilution, doubt = noise.dilution(np.ones(1))
    assert dilution[0] == 1.0
    assert doubt[0] == pytest.approx(1.0)
    assert noise.margin(dilution)[0] == 0.0
    assert noise.margin(np.array([4.0]))[0] > 0.0


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_candidates_are_weighed_as_a_filter_of_each_would(missing: float) -> None:
    """Minus twice the log likelihood of all candidates at once is that of one filter after the other."""
    random = np.random.default_rng(8)
    series, ratio = random.standard_normal((60, 2, 5)), np.exp(0.3 * random.standard_normal((60, 2)))
    series[random.random(series.shape) < missing] = np.nan
    phi, share, sampled = (random.random((2, 7)) for _ in range(3))
    share[0, 0], phi[0, 0], share[1, 0] = 0.0, 0.0, 1.0
    found = slow_noise._misfit(series, ratio, phi, share, sampled)
    for feature in range(2):
        for candidate in range(7):
            one = slow_noise.Filter(phi[feature, [candidate]], share[feature, [candidate]], 5)
            expected = 0.0
            for y, at in zip(series[:, feature], ratio[:, feature], strict=True):
                diluted = 1.0 + sampled[feature, candidate] * (at - 1.0)
                total = one.variance + (1.0 - share[feature, candidate]) * diluted
                innovation = one.step(y[None], np.array([[diluted]]))
                expected += np.nansum(np.log(total) + innovation**2)
            assert found[feature, candidate] == pytest.approx(expected, rel=1e-9)
