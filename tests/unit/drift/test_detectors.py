"""Laws that every family of detectors keeps: what a window, a missing one, a restart, a reset may do to heads and signals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from headwatch.drift import evalue
from headwatch.drift.clock import DEFAULT_FAMILIES
from headwatch.drift.saved import from_bytes, to_bytes
from headwatch.drift.shiryaev_roberts import CEILING, ShiryaevRoberts
from headwatch.drift.stratum import learn_stratum
from headwatch.drift.weights import SIGNAL_FAMILIES
from headwatch.errors import DriftStateError

from . import subjects
from .scenes import FEATURES, HEADS, LAYER, WINDOWS, baseline, healthy, rows
from .subjects import foreseen

if TYPE_CHECKING:
    from headwatch.drift.parts import Monitor

    from .subjects import Subject

KINDS = ("heads", "signals")
SEED = 12
FINDS = {
    "heads.mean": lambda values: values + 0.03 * (np.arange(HEADS) == 5),
    "heads.spread": lambda values: values + 3.0 * (values - np.linspace(0.2, 0.8, HEADS)),
    "level.1": lambda values: values + 0.006,
    "energy.1": lambda values: values + 1.0 * (values - np.linspace(0.2, 0.8, HEADS)),
    "energy.8": lambda values: values + 0.006 * (-1.0) ** np.arange(HEADS),
    "lasting.8": lambda values: values + 0.006 * (-1.0) ** np.arange(HEADS),
    "signals.mean": lambda values: values + 0.02,
    "signals.spread": lambda values: values + 3.0 * (values - np.linspace(0.3, 0.6, 3)[:, None]),
}
"""The change that each family is for: one head or signal, a spread, all heads alike, or each in a direction of its own."""


@pytest.fixture(scope="module")
def known() -> dict[str, Subject]:
    return {"heads": subjects.heads(), "signals": subjects.signals()}


@pytest.fixture(params=KINDS)
def subject(known, request) -> Subject:
    """Heads, then signals: whatever is said of one monitor holds of the other."""
    return known[request.param]


def evidence(monitor: Monitor) -> np.ndarray:
    return np.stack(list(monitor.evidence().values()))


def test_each_family_has_its_laws(known) -> None:
    assert set(FINDS) == {*DEFAULT_FAMILIES, *SIGNAL_FAMILIES}
    assert [*known["heads"].baseline.families, *known["signals"].baseline.families] == [*FINDS]


def test_a_short_baseline_has_no_family_that_it_cannot_know() -> None:
    """152 windows hold 19 blocks of 8, which are too few for a scale of their own."""
    rows_ = np.tile(rows(1)[0], (152, 1))
    shorter = learn_stratum(FEATURES, LAYER, np.arange(152), 60.0, healthy(152, 1), rows_)
    assert shorter.families == ("heads.mean", "heads.spread", "level.1", "energy.1")


@pytest.mark.parametrize("family", FINDS)
def test_each_family_finds_the_change_that_it_is_for(known, family) -> None:
    subject = known["signals" if family in SIGNAL_FAMILIES else "heads"]
    before = subject.fed(subject.healthy(64, SEED)).evidence()[family].max()
    after = subject.fed(FINDS[family](subject.healthy(64, SEED))).evidence()[family].max()
    assert before < 100.0
    assert after > 1e4


def test_healthy_windows_gather_little_evidence(subject) -> None:
    assert evidence(subject.fed(subject.healthy(500, 2))).max() < 1000.0


def test_a_change_of_one_feature_leaves_the_others_alone(subject) -> None:
    values = subject.healthy(64, SEED)
    still = subject.fed(values).evidence()
    values[:, 0] += 0.03
    found = subject.fed(values).evidence()
    assert found[subject.mean][0] > 1e6
    for family in found:
        np.testing.assert_array_equal(found[family][1:], still[family][1:])


def test_missing_windows_leave_the_evidence_as_it_is(subject) -> None:
    monitor = subject.fed(subject.healthy(16, 4))
    before = monitor.evidence()
    for number in range(WINDOWS + 16, WINDOWS + 24):
        monitor.step(number, subject.nothing, np.zeros(len(subject.rows)))
    for name in before:
        np.testing.assert_array_equal(monitor.evidence()[name], before[name])


def test_windows_that_are_left_out_count_as_missing(subject) -> None:
    """What has no traffic sends no window at all; that must be the same as windows without a value."""
    values = subject.healthy(60, 4)
    empty, left_out = subject.fed(values[:20]), subject.fed(values[:20])
    for number in range(WINDOWS + 20, WINDOWS + 45):
        empty.step(number, subject.nothing, np.zeros(len(subject.rows)))
    for number, window in enumerate(values[45:], WINDOWS + 45):
        empty.step(number, window, subject.rows)
        left_out.step(number, window, subject.rows)
    np.testing.assert_allclose(evidence(empty), evidence(left_out), rtol=1e-9)


def test_one_undefined_head_does_not_spoil_the_others(known) -> None:
    values = known["heads"].healthy(32, 5)
    values[:, :, 3] = np.nan
    found = known["heads"].fed(values)
    assert np.isfinite(evidence(found)).all()
    assert (found.heads.mean.evidence[:, :, 3] == 0).all()


def test_one_undefined_signal_does_not_spoil_the_others(known) -> None:
    values = known["signals"].healthy(32, 5)
    still = evidence(known["signals"].fed(values))
    values[:, 1] = np.nan
    found = evidence(known["signals"].fed(values))
    assert (found[:, 1] == 0).all()
    np.testing.assert_array_equal(found[:, [0, 2]], still[:, [0, 2]])


@pytest.mark.parametrize("after", [1, 8, 37])
def test_a_restart_goes_on_exactly(subject, after) -> None:
    """At the end of a block and within one."""
    values = subject.healthy(60, 6) + 0.004
    whole = subject.fed(values)
    second = subject.make(subject.baseline)
    second.restore(from_bytes(to_bytes(subject.fed(values[:after]).save())))
    for number, window in enumerate(values[after:], WINDOWS + after):
        second.step(number, window, subject.rows)
    np.testing.assert_array_equal(evidence(second), evidence(whole))
    first, other = whole.save(), second.save()
    assert first.keys() == other.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], other[name])


def test_a_reset_forgets_the_evidence_and_nothing_else(subject) -> None:
    monitor = subject.fed(subject.healthy(40, 7) + 0.01)
    state = foreseen(monitor).state.copy()
    assert (evidence(monitor) > 0).all(), "there is something to forget of every family"
    monitor.reset()
    assert (evidence(monitor) == 0).all()
    np.testing.assert_array_equal(foreseen(monitor).state, state)


def test_a_reset_of_one_feature_leaves_the_others(subject) -> None:
    monitor = subject.fed(subject.healthy(40, 7) + 0.01)
    before = evidence(monitor)
    monitor.reset(np.arange(len(subject.rows)) == 1)
    after = evidence(monitor)
    assert (after[:, 1] == 0).all()
    np.testing.assert_array_equal(np.delete(after, 1, axis=1), np.delete(before, 1, axis=1))


def test_a_window_of_few_rows_says_less(subject) -> None:
    many, few = subject.make(subject.baseline), subject.make(subject.baseline)
    for number, window in enumerate(subject.healthy(8, 8) + 0.02, WINDOWS):
        many.step(number, window, subject.rows)
        few.step(number, window, subject.rows / 10.0)
    assert few.evidence()[subject.mean].max() < many.evidence()[subject.mean].max() / 100.0


def test_evidence_stays_finite_however_long_a_change_lasts(subject) -> None:
    found = evidence(subject.fed(subject.healthy(400, 9) + 0.2))
    assert np.isfinite(found).all()
    assert found.max() <= CEILING


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


def test_features_learned_one_by_one_are_those_learned_together(known, monkeypatch) -> None:
    together = known["heads"]
    monkeypatch.setattr("headwatch.drift.stratum._VALUES_AT_ONCE", 1)
    apart = replace(together, baseline=baseline())
    assert apart.baseline.families == together.baseline.families
    for values in (healthy(30, 10), healthy(30, 11) + 0.01):
        np.testing.assert_allclose(evidence(apart.fed(values)), evidence(together.fed(values)), rtol=1e-9)
