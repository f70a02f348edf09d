"""How old documents are beyond what the passing of time explains: builds, live sources, and a cache that sticks."""

from __future__ import annotations

import msgspec

from headwatch.drift.signals import freshness
from headwatch.drift.signals.freshness import FreshnessBook

DAY, HOUR = 86_400.0, 3_600.0
START = 1_800_000_000.0


def watched(ages: list[float], step: float = 60.0, source: str = "wiki") -> FreshnessBook:
    """Return a book that saw a document so old every *step* seconds."""
    book = FreshnessBook()
    for number, age in enumerate(ages):
        now = START + number * step
        book.learn(source, now - age, now)
    return book


def test_an_index_that_is_built_once_ages_and_is_never_behind() -> None:
    book, built = FreshnessBook(), START - DAY
    for day in range(30):
        now = START + day * DAY
        book.learn("wiki", built, now)
        assert book.behind("wiki", built, now) == 0.0


def test_what_comes_out_of_an_old_build_is_behind_the_newest_that_was_seen() -> None:
    book = watched([DAY] * 5)
    old = START - 150 * DAY
    assert book.behind("wiki", old, START + HOUR) == START + 4 * 60.0 - DAY - old
    assert book.behind("archive", START - DAY, START) == DAY, "of a source that is new, age is all that is known"


def test_a_live_source_is_held_against_the_clock_so_a_cache_that_sticks_shows() -> None:
    book = watched([30.0] * 24, HOUR)
    stuck = START + 24 * HOUR
    for hours in range(1, 50):
        now = stuck + hours * HOUR
        book.learn("wiki", stuck, now)
        assert book.behind("wiki", stuck, now) == hours * HOUR


def test_an_index_that_was_built_just_before_is_not_live() -> None:
    book = FreshnessBook()
    for minutes in range(60 * 48):
        book.learn("wiki", START, START + minutes * 60.0)
    assert book.behind("wiki", START, START + 2 * DAY) == 0.0


def test_a_source_that_is_seen_often_within_a_few_hours_is_not_known_yet() -> None:
    book = watched([30.0] * 1000)
    assert book.behind("wiki", START, START + 1000 * 60.0) == 999 * 60.0 - 30.0


def test_a_time_in_the_future_makes_nothing_old_for_ever() -> None:
    book = watched([DAY] * 5)
    book.learn("wiki", START + 400 * DAY, START + 300.0)
    assert book.behind("wiki", START - DAY, START + 300.0) == DAY + 300.0


def test_sources_are_bounded_and_survive_json(monkeypatch) -> None:
    monkeypatch.setattr(freshness, "MAX_SOURCES", 2)
    book = FreshnessBook()
    for source in ("a", "b", "a", "c"):
        book.learn(source, START, START)
    assert set(book.known) == {"a", "c"}, "the least recently seen makes room"
    assert msgspec.json.decode(msgspec.json.encode(book), type=FreshnessBook) == book
