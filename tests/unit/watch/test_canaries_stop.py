"""Heads that move once canaries no longer run: nobody can say that it was the traffic, so somebody is woken."""

from __future__ import annotations

import pytest

from .lives import after
from .scenes import with_canary

SOON = 16
"""Windows in which three intervals of canaries have passed, and one more."""


def told(life) -> list[tuple[str, str]]:
    return [(one.verdict.drift_class, one.verdict.cause) for one in life.incidents]


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("stopped", [2, 12, 80])
def test_heads_that_move_after_canaries_stopped_page_as_if_none_were_sent(begin, stopped, asks):
    life = begin(asks=asks)
    for number in range(stopped):
        life.take(after(number))
    for number in range(stopped, stopped + SOON + 10):
        life.take(after(number, heads_move=2.0))
    assert told(life) == [("model", "unexplained")]
    assert life.pages == ["opened"]


def test_one_run_that_is_late_wakes_nobody(begin):
    life = begin(asks=True)
    for number in range(30):
        seen = after(number, heads_move=2.0)
        life.take(with_canary(seen) if number in {11, 16, 21, 26} else seen)
    assert {one.drift_class for one in (each.verdict for each in life.incidents)} == {"traffic"}
    assert life.pages == []


def test_a_sidecar_that_was_away_waits_for_its_first_run_before_it_wakes_anybody(begin):
    """An hour in which nobody looked is no hour in which canaries did not run."""
    life = begin(asks=True)
    for number in range(10):
        life.take(after(number, heads_move=2.0))
    assert told(life) == [("traffic", "unexplained")]
    life.restart()
    life.take(after(70, heads_move=2.0))
    life.take(with_canary(after(71, heads_move=2.0)))
    assert life.pages == []


def test_a_kill_with_every_window_pages_as_if_it_had_not_been(begin):
    through, killed = begin(), begin()
    for life in (through, killed):
        for number in range(30):
            (life.take_and_kill if life is killed else life.take)(after(number, heads_move=2.0))
    assert through.pages == killed.pages == ["opened"]
    assert through.incidents == killed.incidents


def test_a_canary_that_passes_later_takes_the_page_back(begin):
    life = begin()
    for number in range(SOON + 4):
        life.take(after(number, heads_move=2.0))
    assert life.pages == ["opened"]
    life.take(with_canary(after(SOON + 4, heads_move=2.0)))
    assert told(life) == [("traffic", "topics")]
    assert life.pages == ["opened", "updated"]


def test_a_sidecar_that_was_away_and_restarted_knows_the_run_before_and_does_not_wait_for_ever(begin):
    life = begin()
    for number in (*range(10), 70, 71):
        life.take(after(number, heads_move=2.0))
    life.restart()
    for number in range(72, 90):
        life.take(after(number, heads_move=2.0))
    assert told(life) == [("model", "unexplained")]
    assert life.pages == ["opened"]
