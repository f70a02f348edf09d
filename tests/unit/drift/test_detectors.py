"""Laws that every family of detectors keeps: what a window, a missing one, a restart, a reset may do."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.drift import evalue
from headwatch.drift.saved import from_bytes, to_bytes
from headwatch.drift.shiryaev_roberts import CEILING, ShiryaevRoberts
from headwatch.drift.stratum import StratumBaseline, StratumMonitor, learn_stratum
from headwatch.errors import DriftStateError

from .scenes import FEATURES, HEADS, LAYER, WINDOWS, baseline, healthy, rows

ROWS = rows(1)[0]


@pytest.fixture(scope="module")
def learned() -> StratumBaseline:
    return baseline()


def fed(learned: StratumBaseline, values: np.ndarray, first: int = WINDOWS) -> StratumMonitor:
    monitor = StratumMonitor(learned)
    for number, window in enumerate(values, first):
        monitor.step(number, window, ROWS)
    return monitor


def evidence(monitor: StratumMonitor) -> np.ndarray:
    return np.stack(list(monitor.evidence().values()))


def test_a_short_baseline_has_no_family_that_it_cannot_know(learned) -> None:
    """152 windows hold 19 blocks of 8, which are too few for a scale of their own."""
    assert learned.families == ("heads.mean", "heads.spread", "level.1", "energy.1", "energy.8", "lasting.8")
    shorter = learn_stratum(FEATURES, LAYER, np.arange(152), 60.0, healthy(152, 1), np.tile(ROWS, (152, 1)))
    assert shorter.families == ("heads.mean", "heads.spread", "level.1", "energy.1")


def test_healthy_windows_gather_little_evidence(learned) -> None:
    assert evidence(fed(learned, healthy(500, 2))).max() < 1000.0


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("heads.mean", lambda values: values + 0.03 * (np.arange(HEADS) == 5)),
        ("heads.spread", lambda values: values + 3.0 * (values - np.linspace(0.2, 0.8, HEADS))),
        ("level.1", lambda values: values + 0.006),
        ("energy.8", lambda values: values + 0.006 * (-1.0) ** np.arange(HEADS)),
        ("lasting.8", lambda values: values + 0.006 * (-1.0) ** np.arange(HEADS)),
    ],
)
def test_each_family_finds_the_change_that_it_is_for(learned, family, change) -> None:
    before = fed(learned, healthy(64, 3)).evidence()[family].max()
    after = fed(learned, change(healthy(64, 3))).evidence()[family].max()
    assert before < 100.0
    assert after > 1e4


def test_a_change_of_one_feature_leaves_the_other_alone(learned) -> None:
    values = healthy(64, 3)
    values[:, 0] += 0.02
    found = fed(learned, values).evidence()["level.1"]
    assert found[0] > 1e6
    assert found[1] < 100.0


def test_missing_windows_leave_the_evidence_of_heads_as_it_is(learned) -> None:
    monitor = fed(learned, healthy(16, 4))
    before = monitor.evidence()
    for number in range(WINDOWS + 16, WINDOWS + 24):
        monitor.step(number, np.full((len(FEATURES), HEADS), np.nan), np.zeros(len(FEATURES)))
    for name in before:
        np.testing.assert_array_equal(monitor.evidence()[name], before[name])


def test_windows_that_are_left_out_count_as_missing(learned) -> None:
    """A stratum without traffic sends no window at all; that must be the same as windows without a value."""
    values = healthy(60, 4)
    empty, left_out = fed(learned, values[:20]), fed(learned, values[:20])
    for number in range(WINDOWS + 20, WINDOWS + 45):
        empty.step(number, np.full((len(FEATURES), HEADS), np.nan), np.zeros(len(FEATURES)))
    for number, window in enumerate(values[45:], WINDOWS + 45):
        empty.step(number, window, ROWS)
        left_out.step(number, window, ROWS)
    np.testing.assert_allclose(evidence(empty), evidence(left_out), rtol=1e-9)


def test_one_undefined_head_does_not_spoil_the_others(learned) -> None:
    values = healthy(32, 5)
    values[:, :, 3] = np.nan
    found = fed(learned, values)
    assert np.isfinite(evidence(found)).all()
    assert (found.heads.mean.evidence[:, :, 3] == 0).all()


def test_a_restart_goes_on_exactly(learned) -> None:
    values = healthy(60, 6) + 0.004
    whole = fed(learned, values)
    first = fed(learned, values[:37])
    second = StratumMonitor(learned)
    second.restore(from_bytes(to_bytes(first.save())))
    for number, window in enumerate(values[37:], WINDOWS + 37):
        second.step(number, window, ROWS)
    np.testing.assert_array_equal(evidence(second), evidence(whole))


def test_a_reset_forgets_the_evidence_and_nothing_else(learned) -> None:
    monitor = fed(learned, healthy(40, 7) + 0.01)
    foreseen = monitor.heads.filter.state.copy()
    monitor.reset()
    assert (evidence(monitor) == 0).all()
    np.testing.assert_array_equal(monitor.heads.filter.state, foreseen)


def test_a_window_of_few_rows_says_less(learned) -> None:
    many, few = StratumMonitor(learned), StratumMonitor(learned)
    for number, window in enumerate(healthy(8, 8) + 0.02, WINDOWS):
        many.step(number, window, ROWS)
        few.step(number, window, ROWS / 10.0)
    assert few.evidence()["heads.mean"].max() < many.evidence()["heads.mean"].max() / 100.0


def test_evidence_stays_finite_however_long_a_change_lasts(learned) -> None:
    monitor = fed(learned, healthy(400, 9) + 0.2)
    assert evidence(monitor).max() <= CEILING


@pytest.mark.parametrize("bets", [evalue.MEAN, evalue.SPREAD])
def test_e_values_of_a_normal_stream_average_to_one(bets) -> None:
    """The costs of the bets are those of a standard normal: log E exp(lambda v) minus cost is zero."""
    w = np.random.default_rng(1).standard_normal(2_000_000)
    v = w if bets is evalue.MEAN else w**2 - 1.0
    for bet, cost in zip(bets.lambdas, bets.normal, strict=True):
        assert np.mean(np.exp(bet * v - cost)) == pytest.approx(1.0, abs=0.01)


def test_tails_of_the_baseline_are_paid_for() -> None:
    skewed = np.random.default_rng(2).standard_exponential((5000, 1, 1)) - 1.0
    costs = evalue.costs(evalue.MEAN, skewed)
    assert costs[evalue.MEAN.lambdas.index(1.0), 0, 0] > 0.7  # a normal would cost 0.5
    assert costs[evalue.MEAN.lambdas.index(-1.0), 0, 0] == 0.5


def test_shiryaev_roberts_grows_by_one_a_window_where_windows_say_nothing() -> None:
    detector = ShiryaevRoberts((2, 1, 3))
    seen = np.array([[True, True, False]])
    for _ in range(5):
        detector.step(np.zeros((2, 1, 3)), seen)
    np.testing.assert_array_equal(detector.mixture(), [[5.0, 5.0, 0.0]])


def test_a_block_counts_the_windows_that_it_stands_for() -> None:
    detector = ShiryaevRoberts((1, 1, 1))
    detector.step(np.zeros((1, 1, 1)), np.array([[True]]), elapsed=64)
    assert detector.mixture()[0, 0] == 64.0


@pytest.mark.parametrize("damaged", [b"", b"nonsense", to_bytes({"a": np.arange(9)})[:-40]])
def test_damaged_state_is_one_clear_error(damaged) -> None:
    with pytest.raises(DriftStateError, match="bytes of drift state cannot be read"):
        from_bytes(damaged)


def test_state_with_objects_in_it_is_refused() -> None:
    import io

    archive = io.BytesIO()
    np.savez(archive, a=np.array([{}], dtype=object))
    with pytest.raises(DriftStateError, match="cannot be read"):
        from_bytes(archive.getvalue())


def test_features_learned_one_by_one_are_those_learned_together(learned, monkeypatch) -> None:
    monkeypatch.setattr("headwatch.drift.stratum._VALUES_AT_ONCE", 1)
    apart = baseline()
    assert apart.families == learned.families
    for values in (healthy(30, 10), healthy(30, 11) + 0.01):
        np.testing.assert_allclose(evidence(fed(apart, values)), evidence(fed(learned, values)), rtol=1e-9)
