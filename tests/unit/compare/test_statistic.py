"""The statistic is a partial regression coefficient over a standard error: held against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.compare.labels import labellings
from headwatch.compare.statistic import shift_of
from headwatch.compare.streams import prepared

NO_CAUSES = np.zeros((24, 0))
LABELS = np.repeat([0.0, 1.0], 12)


def drawn(seed=0, streams=5):
    return np.random.default_rng(seed).normal(size=(24, streams))


def test_without_causes_and_with_equal_rows_it_is_the_difference_of_means():
    values = drawn()
    streams = prepared(values, np.full(24, 8.0), NO_CAUSES, LABELS)
    shift = shift_of(streams, LABELS[None])
    difference = values[12:].mean(axis=0) - values[:12].mean(axis=0)
    np.testing.assert_allclose(shift.score[0] / shift.information[0] * streams.scale, difference, rtol=1e-5)
    spread = np.sqrt((values[:12].var(axis=0, ddof=1) + values[12:].var(axis=0, ddof=1)) / 12)
    np.testing.assert_allclose(shift.t[0], difference / spread, rtol=0.05)


def test_what_length_explains_is_no_difference():
    """The second side has longer contexts, and the value follows the length alone."""
    length = np.concatenate([np.linspace(8.0, 9.0, 12), np.linspace(8.6, 9.6, 12)])
    values = 0.5 * length[:, None] + 0.01 * drawn(1)
    plain = shift_of(prepared(values, np.full(24, 8.0), NO_CAUSES, LABELS), LABELS[None])
    held = shift_of(prepared(values, np.full(24, 8.0), length[:, None], LABELS), LABELS[None])
    assert np.abs(plain.t).min() > 3
    assert np.abs(held.t).max() < 3


def test_the_coefficient_is_that_of_a_weighted_regression():
    random = np.random.default_rng(4)
    length, rows = random.normal(9, 0.3, 24), random.integers(1, 30, 24).astype(float)
    values = drawn(5) + LABELS[:, None]
    streams = prepared(values, rows, length[:, None], LABELS)
    root = np.sqrt(streams.weights)[:, None]
    design = np.stack([np.ones(24), length, LABELS], axis=1)
    expected = np.linalg.lstsq(root * design, root * values, rcond=None)[0][2]
    shift = shift_of(streams, LABELS[None])
    np.testing.assert_allclose(shift.score[0] / shift.information[0] * streams.scale, expected, rtol=1e-4)


def test_a_unit_without_rows_changes_nothing():
    values, rows = drawn(), np.full(24, 8.0)
    fewer = shift_of(prepared(values[:-1], rows[:-1], NO_CAUSES[:-1], LABELS[:-1]), LABELS[None, :-1])
    values[-1], rows[-1] = 100.0, 0.0
    more = shift_of(prepared(values, rows, NO_CAUSES, LABELS), LABELS[None])
    np.testing.assert_allclose(more.t, fewer.t, rtol=1e-5)


def test_a_missing_value_of_one_head_is_left_out():
    values = drawn()
    values[:, 0] = np.nan
    values[3, 1] = np.nan
    shift = shift_of(prepared(values, np.full(24, 8.0), NO_CAUSES, LABELS), LABELS[None])
    assert shift.t[0, 0] == 0.0
    assert np.isfinite(shift.t).all()


def test_a_side_with_two_units_is_not_compared():
    rows = np.full(24, 8.0)
    rows[14:] = 0.0
    assert prepared(drawn(), rows, NO_CAUSES, LABELS) is None


def test_labellings_keep_the_sizes_of_the_sides_and_begin_with_what_was_observed():
    drawn_labels = labellings(5, 9, 200, seed=1)
    assert drawn_labels[0].tolist() == [0.0] * 5 + [1.0] * 9
    assert (drawn_labels.sum(axis=1) == 9).all()
    assert len(np.unique(drawn_labels, axis=0)) > 150
    np.testing.assert_array_equal(drawn_labels, labellings(5, 9, 200, seed=1))


@pytest.mark.parametrize(("first", "second"), [(12, 12), (20, 4)])
def test_other_spreads_are_no_difference_in_mean(first, second):
    """A side that is five times as noisy: the level of one head's permutation test stays near what was asked."""
    labels = np.repeat([0.0, 1.0], [first, second])
    random, drawn_labels = np.random.default_rng(8), labellings(first, second, 400, seed=2)
    values = random.normal(size=(first + second, 400)) * np.where(labels, 1.0, 5.0)[:, None]
    streams = prepared(values, np.full(first + second, 8.0), np.zeros((first + second, 0)), labels)
    t = np.abs(shift_of(streams, drawn_labels).t)
    assert ((t >= t[0] - 1e-6).mean(axis=0) <= 0.05).mean() < 0.09


@pytest.mark.parametrize(("unknown", "causes", "units"), [(2, 1, 22), (10, 0, 24)])
def test_where_the_length_is_known_in_most_units_the_others_are_left_out(unknown, causes, units):
    length = np.random.default_rng(3).normal(9, 0.3, (24, 1))
    length[:: 24 // unknown][:unknown] = np.nan
    streams = prepared(drawn(), np.full(24, 8.0), length, LABELS)
    assert (streams.basis.shape[1] - 1, int(streams.present.sum())) == (causes, units)
