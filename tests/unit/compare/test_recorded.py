"""A side from a history file: which windows are read, and what they come to."""

from __future__ import annotations

import numpy as np
import pytest

from headwatch.compare.gathering import side_of
from headwatch.compare.ranges import Range
from headwatch.compare.recorded import Recorded, chosen_runs
from headwatch.compare.side import LeftOut
from headwatch.errors import CommandError
from headwatch.history.file import History
from headwatch.records import Selection

from .scenes import MINUTE_NS, Scene, side, windows_of


@pytest.fixture
def path(tmp_path):
    kept = tmp_path / "some.history"
    with History(kept) as history:
        for window in windows_of(Scene(windows=40)):
            history.append(window)
    return kept


def test_a_range_is_read_by_number_and_by_time(path):
    by_number = Recorded(path, Range(10, 19))
    by_time = Recorded(path, Range(10 * MINUTE_NS, 20 * MINUTE_NS, timed=True))
    assert by_number.size() == by_time.size() == 10
    assert by_number.read(1, 96).first_ns == by_time.read(1, 96).first_ns == 10 * MINUTE_NS


def test_a_window_that_only_reaches_into_a_range_of_times_is_not_in_it(path):
    """A release is marked within a minute: that minute is neither before nor after it."""
    moment = 10 * MINUTE_NS + 1
    assert Recorded(path, Range(None, moment, timed=True)).size() == 10
    assert Recorded(path, Range(moment, None, timed=True)).size() == 29


def test_units_of_several_windows_are_their_means(path):
    one, five = Recorded(path).read(1, 96), Recorded(path).read(5, 96)
    assert (one.units, five.units, five.length, five.members) == (40, 8, 5, 40)
    cell = next(iter(one.cells))
    rows = one.cells[cell].rows[:5, 0]
    expected = (one.cells[cell].values[:5, 0] * rows[:, None]).sum(axis=0) / rows.sum()
    np.testing.assert_allclose(five.cells[cell].values[0, 0], expected, rtol=1e-4)
    assert five.traffic["requests"].sum() == one.traffic["requests"].sum()


def test_a_long_history_is_read_in_runs_that_cover_all_of_it(path):
    kept = Recorded(path).read(1, 16)
    assert (kept.units, kept.members, kept.runs.tolist()) == (16, 16, [0] * 8 + [1] * 8)
    assert (kept.first_ns, kept.last_ns) == (0, 40 * MINUTE_NS)
    assert [(run.start, run.stop) for run in chosen_runs(100, 2, 10)] == [(0, 16)]


def test_a_window_that_lacks_a_stratum_has_no_rows_of_it():
    windows = windows_of(Scene(windows=6))
    gone = next(iter(windows[2].strata))
    del windows[2].strata[gone]
    heads = next(heads for cell, heads in side_of("x", windows, [6], 1).cells.items() if cell.route == gone.route)
    assert heads.rows[2].tolist() == [0.0] * 6
    assert np.isnan(heads.values[2]).all()


def test_several_models_need_one_to_be_chosen(tmp_path):
    kept = tmp_path / "two.history"
    with History(kept) as history:
        for window in [*windows_of(Scene(windows=8)), *windows_of(Scene(windows=8, first=8, model="other"))]:
            history.append(window)
    with pytest.raises(CommandError, match="several models \\(m, other\\); choose one, as in \\[model=m\\]"):
        Recorded(kept).read(1, 96)
    chosen = Recorded(kept, selection=Selection(model="other")).read(1, 96)
    assert chosen.models == ("other",)
    with pytest.raises(CommandError, match="no window in it holds a stratum of model 'third'"):
        Recorded(kept, selection=Selection(model="third")).read(1, 96)


def together(*scenes):
    """Return windows in which the sidecar sees all of *scenes* at once; what does not tell them apart is of all."""
    streams = [windows_of(scene) for scene in scenes]
    out = []
    for windows in zip(*streams, strict=True):
        first = windows[0]
        for other in windows[1:]:
            first.strata.update(other.strata)
            first.signals.update(other.signals)
        out.append(first)
    return out


def selected(windows, **selection):
    return side_of("side", windows, [len(windows)], 1, Selection(**selection))


def test_two_revisions_at_once_are_held_apart_in_their_heads_alone():
    windows = together(Scene(windows=8, canary_failed=False), Scene(windows=8, revision="r2", shift=3.0))
    first, second = selected(windows, revision="r1"), selected(windows, revision="r2")
    assert (first.revisions, second.revisions) == (("r1",), ("r2",))
    cell = next(iter(first.cells))
    assert np.nanmean(second.cells[cell].values - first.cells[cell].values) == pytest.approx(0.03, abs=0.01)
    for found in (first, second):
        assert (found.signals, found.traffic, found.canaries) == ({}, {}, ()), "of both revisions together"
        assert found.left_out == LeftOut(shared=8, signals=8)
        assert found.telemetry, "the sidecar has one state, whoever is served"


def test_a_revision_alone_in_its_windows_keeps_all_that_they_say():
    whole, chosen = selected(windows_of(Scene(windows=8))), selected(windows_of(Scene(windows=8)), revision="r1")
    assert chosen.left_out == LeftOut()
    assert chosen.signals.keys() == whole.signals.keys()
    assert chosen.traffic.keys() == whole.traffic.keys()


def test_two_models_at_once_have_signals_of_their_own():
    windows = together(Scene(windows=8), Scene(windows=8, model="n", signals={"grounding_ratio": 0.1}))
    first, second = selected(windows, model="m"), selected(windows, model="n")
    means = [np.nanmean([series.values for (_, name), series in found.signals.items() if name == "grounding_ratio"])
             for found in (first, second)]  # fmt: skip
    assert means == pytest.approx([0.6, 0.1], abs=0.05)
    assert first.left_out == second.left_out == LeftOut(shared=8, signals=0)
    assert not first.traffic


def test_an_adapter_that_is_chosen_is_compared_and_not_held_equal():
    windows = together(Scene(windows=8), Scene(windows=8, adapter="law"))
    base, law = selected(windows, adapter=""), selected(windows, adapter="law")
    assert base.cells.keys() == law.cells.keys()
    assert base.signals.keys() == law.signals.keys() != set()
    assert {cell.adapter for cell in selected(windows).cells} == {"", "law"}


def test_a_selection_is_looked_for_where_it_was_served(tmp_path):
    """Of a long history few units are read: they must be of the release that was asked for."""
    kept = tmp_path / "long.history"
    with History(kept) as history:
        for window in [*windows_of(Scene(windows=300)), *windows_of(Scene(windows=20, first=300, revision="r2"))]:
            history.append(window)
    found = Recorded(kept, selection=Selection(revision="r2"))
    assert found.size() == 20
    assert found.read(1, 96).revisions == ("r2",)
    assert Recorded(kept, selection=Selection(revision="r1")).size() == pytest.approx(300, abs=2)
    assert found.read(1, 96).left_out == LeftOut()


def test_canary_runs_are_counted_by_prompt():
    (tally,) = side(Scene(windows=5, canary_failed=True)).canaries
    assert (tally.prompt, tally.runs, tally.failed, tally.hint, tally.earliest_layer) == ("short", 5, 5, "weights", 1)


def test_one_window_of_a_skewed_clock_is_an_accident_and_a_range_of_them_is_not() -> None:
    windows = windows_of(Scene())
    for skewed, stands in ((1, 0.0), (len(windows) - 1, 300.0)):
        for number, window in enumerate(windows):
            window.telemetry["clock_skew_seconds"] = 300.0 if number < skewed else 0.0
        assert side_of("x", windows, [len(windows)], 1).telemetry["clock_skew_seconds"] == stands
