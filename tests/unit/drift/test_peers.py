"""Peers for all heads at once do what their libraries do for one; where a library is absent, its test is skipped and says so.

``make bench-peers`` runs these with all of them, in an environment of their own.
"""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.bench.drift.peers import adwin, evidently, kswin, nannyml, psi
from headwatch.bench.drift.peers.page_hinkley import PageHinkley

BREAK = 900


def stream(heads: int = 6) -> np.ndarray:
    """Return values [1500, heads] that shift at :data:`BREAK`, each head by another amount."""
    values = np.random.default_rng(5).standard_normal((1500, heads))
    values[BREAK:] += np.linspace(0.4, 2.0, heads)
    return values


def test_page_hinkley_pages_where_river_does() -> None:
    river = pytest.importorskip("river.drift", reason="river is not installed: make bench-peers")
    values = stream()
    ours = PageHinkley(50.0)
    ours.begin((values.shape[1],))
    passed = np.stack([ours.excursion(z) for z in values]) > 50.0
    for head in range(values.shape[1]):
        theirs = river.PageHinkley()
        first = next(n for n, z in enumerate(values[:, head]) if theirs.update(float(z)) or theirs.drift_detected)
        assert passed[:, head].argmax() == first


def test_adwin_cuts_where_river_does() -> None:
    river = pytest.importorskip("river.drift", reason="river is not installed: make bench-peers")
    values = stream()
    window = adwin.AdaptiveWindow(values.shape[1])
    surprise = np.zeros(values.shape)
    for number, z in enumerate(values):
        window.add(z)
        if window.ticks % 32 == 0:
            surprise[number] = window.surprise()
    for head in range(values.shape[1]):
        theirs = river.ADWIN()
        first = next(n for n, z in enumerate(values[:, head]) if theirs.update(float(z)) or theirs.drift_detected)
        assert (surprise[:, head] > adwin.Adwin.customary).argmax() == first


def test_kswin_has_the_distance_and_the_p_value_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed: make bench-peers")
    random = np.random.default_rng(2)
    one, other = random.standard_normal((3, 30, 5)), random.standard_normal((3, 30, 5)) + 0.7
    steps = kswin.distance(one, other)
    for place in np.ndindex(3, 5):
        expected = stats.ks_2samp(one[place[0], :, place[1]], other[place[0], :, place[1]], method="exact")
        assert steps[place] / 30 == pytest.approx(expected.statistic)
        assert kswin.p_values(30)[steps[place]] == pytest.approx(expected.pvalue)


def test_p_values_of_kswin_fall_from_one_to_the_chance_of_one_order_in_all() -> None:
    found = kswin.p_values(3)
    assert found.tolist() == pytest.approx([1.0, 1.0, 0.6, 0.1])
    assert (np.diff(kswin.p_values(30)) <= 0).all()


def test_distances_are_those_that_evidently_calls_drift() -> None:
    pytest.importorskip("evidently", reason="evidently is not installed: make bench-peers")
    import pandas as pd
    from evidently.legacy.calculations.stattests.registry import get_stattest
    from evidently.legacy.core import ColumnType

    random = np.random.default_rng(3)
    baseline, recent = random.standard_normal((1440, 1, 4)), random.standard_normal((60, 1, 4)) + 0.3
    ours = evidently.wasserstein(evidently.quantile_function(baseline), recent)[0] / np.std(baseline[:, 0], axis=0)
    for head in range(4):
        reference, current = pd.Series(baseline[:, 0, head]), pd.Series(recent[:, 0, head])
        test = get_stattest(reference, current, ColumnType.Numerical, None)
        assert test.name == "wasserstein"
        result = test(reference, current, ColumnType.Numerical, test.default_threshold)
        assert ours[head] == pytest.approx(result.drift_score, abs=0.01)
        assert test.default_threshold == evidently.Evidently.customary


def test_jensen_shannon_is_that_of_nannyml() -> None:
    pytest.importorskip("nannyml", reason="nannyml is not installed: make bench-peers")
    import pandas as pd
    from nannyml.drift.univariate.methods import ContinuousJensenShannonDistance

    random = np.random.default_rng(4)
    reference, chunk = random.standard_normal(1440), random.standard_normal(60) * 1.5 + 0.3
    theirs = ContinuousJensenShannonDistance(chunker=None, threshold=None)
    theirs._fit(pd.Series(reference))
    edges = np.histogram_bin_edges(reference, bins="doane")
    shares = np.histogram(reference, bins=edges)[0] / len(reference)
    assert nannyml.jensen_shannon(edges, shares, chunk) == pytest.approx(theirs._calculate(pd.Series(chunk)), abs=1e-9)


def test_a_stable_population_has_an_index_of_nearly_nothing() -> None:
    edges = np.arange(1, 10)[:, None, None] / 10.0
    even = (np.arange(60)[:, None, None] + 0.5) / 60.0
    assert psi.stability(edges, even)[0, 0] == pytest.approx(0.0, abs=1e-9)
    assert psi.stability(edges, even / 10.0)[0, 0] > 2.0
