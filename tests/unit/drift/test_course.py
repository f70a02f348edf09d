"""When baselines are learned, by window numbers alone; weights that were fixed beforehand; when a change began."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headwatch.drift import course as courses
from headwatch.drift import onset
from headwatch.drift.course import Course, first_span, next_span
from headwatch.drift.kept import BaselineEntry
from headwatch.drift.parts import Key
from headwatch.history.file import History
from headwatch.observed import ObservedWindow

from .windows import CONFIG

LAG, LEAST, MOST = CONFIG.learning_lag_windows, CONFIG.min_baseline_windows, CONFIG.max_baseline_windows


@pytest.fixture
def history(tmp_path):
    with History(tmp_path / "history.db") as history:
        for number in range(1000, 1600):
            history.append(ObservedWindow(number, number, number + 1))
        yield history


def entry(last: int, windows: int, origin: str = "learned") -> BaselineEntry:
    return BaselineEntry(1, origin, 0, last - windows + 1, last, windows, "", {}, in_force=True)


@pytest.mark.parametrize(
    ("number", "suspect", "expected"),
    [
        (1000 + LEAST - 1, {}, (1000, 1000 + LEAST - 1)),
        (1000 + LEAST - 2, {}, None),
        (1000 + LEAST - 1, {1005: "telemetry"}, None),
        (1000 + LEAST, {1005: "telemetry"}, (1000, 1000 + LEAST)),
        (1000 + LEAST, {1000 + LEAST - 3: "telemetry"}, None),
        (1000 + LEAST, {1000 + LEAST - 3: courses.EMPTY}, (1000, 1000 + LEAST)),
        (1599, {}, (1600 - MOST, 1599)),
    ],
)
def test_a_first_baseline_takes_what_is_under_no_suspicion(history, number, suspect, expected) -> None:
    span, wanted = first_span(history, CONFIG, 0, number, suspect)
    assert (span is None) == (wanted > 0)
    assert (None if span is None else (span.first, span.last)) == expected


def test_a_known_change_is_where_learning_begins(history) -> None:
    span, _ = first_span(history, CONFIG, 1300, 1300 + LEAST, {})
    assert span is not None
    assert span.first == 1300


@pytest.mark.parametrize(
    ("number", "made", "course", "expected"),
    [
        (1059 + LEAST + LAG, entry(1059, LEAST), Course(), (1000, 1119)),
        (1058 + LEAST + LAG, entry(1059, LEAST), Course(), None),
        (1400, entry(1059, LEAST, "pinned"), Course(), None),
        (1400, entry(1059, LEAST, "imported"), Course(), None),
        (1400, entry(1059, LEAST), Course(paged=1395), None),
        (1400, entry(1059, LEAST), Course(paged=1380), (1271, 1390)),
        (1400, entry(1059, LEAST), Course(tried=1399), None),
        (1400, entry(1059, LEAST), Course(promoted=1390), None),
        (1400, entry(1059, LEAST), Course(since=1330), None),
        (1399 + MOST // 4, entry(1399, MOST), Course(), None),
    ],
)
def test_the_next_one_waits_for_twice_as_much_and_for_quiet(history, number, made, course, expected) -> None:
    span = next_span(history, CONFIG, course, number, made, {})
    assert (None if span is None else (span.first, span.last)) == expected


def test_candidates_are_bounded_and_forgotten_once_they_joined() -> None:
    course = Course()
    for number in range(2000):
        course.note(number, [Key("heads", f"from a client {number}"), Key("heads", "steady")], ())
    assert len(course.candidates) <= 512
    assert course.candidates["heads:steady"].windows == 2000
    course.note(2000, [Key("heads", "steady")], {Key("heads", "steady")})
    assert "heads:steady" not in course.candidates


def test_a_course_comes_back_from_json() -> None:
    course = Course(since=3, tried=4, paged=5, promoted=6)
    course.note(7, [Key("signal", "m||a|b:c|")], ())
    assert msgspec.convert(msgspec.to_builtins(course), Course) == course
    assert Key.of(next(iter(course.candidates))) == Key("signal", "m||a|b:c|")


@pytest.mark.parametrize("start", [3, 20, 57])
def test_the_start_of_a_change_is_found_to_a_window_or_two(start: int) -> None:
    """Two standard deviations in a third of sixteen streams, in either direction."""
    random = np.random.default_rng(start)
    levels = random.standard_normal((60, 16))
    levels[start:, ::3] += np.resize([2.5, -2.5], 6)
    levels[7, 2] = np.nan
    assert abs(onset.began(levels) - start) <= 2
