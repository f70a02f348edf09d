"""A side from a history file: which windows are read, and what they come to."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from headwatch.compare.gathering import side_of
from headwatch.compare.recorded import Range, Recorded, chosen_runs, parse_range
from headwatch.errors import CommandError, ConfigError
from headwatch.history.file import History

from .scenes import MINUTE_NS, Scene, side, windows_of


@pytest.fixture
def path(tmp_path):
    kept = tmp_path / "some.history"
    with History(kept) as history:
        for window in windows_of(Scene(windows=40)):
            history.append(window)
    return kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.history", Range(Path("a.history"))),
        ("a.history@3..9", Range(Path("a.history"), 3, 9)),
        ("a.history@3..", Range(Path("a.history"), 3, None)),
        ("a.history@..9", Range(Path("a.history"), None, 9)),
        ("user@host/a.history@1..2", Range(Path("user@host/a.history"), 1, 2)),
        (
            "a.history@1970-01-01T00:05..1970-01-01T02:10+02:00",
            Range(Path("a.history"), 5 * MINUTE_NS, 10 * MINUTE_NS, timed=True),
        ),
    ],
)
def test_ranges(text, expected):
    assert parse_range(text) == expected


def test_a_file_with_an_at_sign_in_its_name_is_a_file(tmp_path):
    kept = tmp_path / "a@1..2"
    kept.touch()
    assert parse_range(str(kept)) == Range(kept)


@pytest.mark.parametrize("text", ["a@", "a@..", "a@5", "a@9..3", "a@soon..later", "a@1..2..3"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ConfigError, match=re.escape(repr(text))):
        parse_range(text)


def test_a_range_is_read_by_number_and_by_time(path):
    by_number = Recorded(Range(path, 10, 19))
    by_time = Recorded(Range(path, 10 * MINUTE_NS, 20 * MINUTE_NS, timed=True))
    assert by_number.size() == by_time.size() == 10
    assert by_number.read(1, 96).first_ns == by_time.read(1, 96).first_ns == 10 * MINUTE_NS


def test_units_of_several_windows_are_their_means(path):
    one, five = Recorded(Range(path)).read(1, 96), Recorded(Range(path)).read(5, 96)
    assert (one.units, five.units, five.length, five.members) == (40, 8, 5, 40)
    cell = next(iter(one.cells))
    rows = one.cells[cell].rows[:5, 0]
    expected = (one.cells[cell].values[:5, 0] * rows[:, None]).sum(axis=0) / rows.sum()
    np.testing.assert_allclose(five.cells[cell].values[0, 0], expected, rtol=1e-4)
    assert five.traffic["requests"].sum() == one.traffic["requests"].sum()


def test_a_long_history_is_read_in_runs_that_cover_all_of_it(path):
    kept = Recorded(Range(path)).read(1, 16)
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
    with pytest.raises(CommandError, match="several models \\(m, other\\); choose one with --model"):
        Recorded(Range(kept)).read(1, 96)
    chosen = Recorded(Range(kept), model="other").read(1, 96)
    assert chosen.models == ("other",)
    with pytest.raises(CommandError, match="no window in it holds a stratum of model 'third'"):
        Recorded(Range(kept), model="third").read(1, 96)


def test_canary_runs_are_counted_by_prompt():
    (tally,) = side(Scene(windows=5, canary_failed=True)).canaries
    assert (tally.prompt, tally.runs, tally.failed, tally.hint, tally.earliest_layer) == ("short", 5, 5, "weights", 1)
