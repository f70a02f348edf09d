"""Ranges: window numbers, times, and what lies around a release."""

from __future__ import annotations

import re

import pytest

from headwatch.compare.ranges import LAST_NS, Range, parse_range
from headwatch.errors import ConfigError
from headwatch.findings import DeployEvent

from .scenes import MINUTE_NS

HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS


def release(title, hours, planned_seconds=0.0):
    return DeployEvent(int(hours * HOUR_NS), title, planned_seconds=planned_seconds)


CALENDAR = (release("index 7", 100), release("retriever v2", 200, planned_seconds=1800.0), release("retriever v2.1", 210))


def part_of(part, releases=(), **more):
    return parse_range(part, f"live@{part}", lambda: releases, **more)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (None, Range()),
        ("3..9", Range(3, 9)),
        ("3..", Range(3, None)),
        ("..9", Range(None, 9)),
        ("1970-01-01T00:05..1970-01-01T02:10+02:00", Range(5 * MINUTE_NS, 10 * MINUTE_NS, timed=True)),
    ],
)
def test_numbers_and_times(part, expected):
    assert part_of(part) == expected
    assert Range(None, None).times == (0, LAST_NS)


@pytest.mark.parametrize("part", ["", "..", "5", "9..3", "soon..later", "1..2..3"])
def test_what_is_no_range_is_refused(part):
    with pytest.raises(ConfigError, match=re.escape(repr(f"live@{part}"))):
        part_of(part)


def test_a_day_before_and_a_day_after_a_release():
    assert part_of("before:index 7", CALENDAR) == Range(76 * HOUR_NS, 100 * HOUR_NS, timed=True)
    assert part_of("after:Index  7", CALENDAR) == Range(100 * HOUR_NS, 124 * HOUR_NS, timed=True)
    assert part_of("after:index", CALENDAR, seconds=3600.0) == Range(100 * HOUR_NS, 101 * HOUR_NS, timed=True)


def test_a_release_is_under_way_until_its_maintenance_window_ends():
    assert part_of("after:retriever v2", CALENDAR).first == 200 * HOUR_NS + 30 * MINUTE_NS


def test_a_range_ends_at_the_next_release_and_begins_after_the_one_before():
    assert part_of("after:retriever v2", CALENDAR).last == 210 * HOUR_NS
    assert part_of("before:v2.1", CALENDAR).first == 200 * HOUR_NS + 30 * MINUTE_NS


def test_a_whole_title_goes_before_a_part_of_others():
    assert part_of("before:retriever v2", CALENDAR).last == 200 * HOUR_NS


@pytest.mark.parametrize(
    ("part", "releases", "said"),
    [
        ("before:gateway", CALENDAR, "no release matches 'gateway'; the latest: 'index 7' of 1970-01-05 04:00, "),
        ("before:gateway", (), "none is marked"),
        ("after:retriever", CALENDAR, "2 releases match 'retriever': 'retriever v2' of 1970-01-09 08:00, "),
        ("after:", CALENDAR, "3 releases match ''"),
        ("after:twice", (release("twice", 1), release("twice", 9)), "give times"),
        ("before:b", (release("a", 1, planned_seconds=7200.0), release("b", 2)), "another release was marked there"),
    ],
)
def test_no_release_several_and_none_alone_are_one_line(part, releases, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        part_of(part, releases)
    assert "\n" not in str(caught.value)
