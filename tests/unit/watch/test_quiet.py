"""When nobody is woken, and that somebody is once it is over: silences, shadow mode, maintenance windows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .lives import SHADOW, after, faulty
from .scenes import SECOND, with_canary


def broken(number: int, cause: str):
    return with_canary(after(number), failed=True) if cause == "canary" else faulty(with_canary(after(number)))


@pytest.mark.parametrize("cause", ["canary", "telemetry"])
def test_what_is_certain_and_outlasts_its_silence_pages_once_when_that_ends(begin, cause):
    life = begin()
    life.watch.book.calendar.silence(600, "ada", "reindexing")
    for number in range(9):
        life.take(broken(number, cause))
    assert [(one.silenced, one.paged) for one in life.incidents] == [(True, False)]
    assert life.pages == []
    for number in range(9, 30):
        life.take(broken(number, cause))
    assert [(one.silenced, one.paged) for one in life.incidents] == [(False, True)]
    assert life.pages == ["opened"]


def test_a_silence_that_ends_after_the_evidence_wakes_nobody(begin):
    life = begin()
    life.watch.book.calendar.silence(600, "ada", "reindexing")
    for number in range(30):
        life.take(with_canary(after(number), failed=number < 5))
    assert [(one.state, one.silenced) for one in life.incidents] == [("resolved", True)]
    assert life.pages == []


def test_a_silence_of_one_class_that_still_holds_keeps_that_class_silent(begin):
    life = begin()
    life.watch.book.calendar.silence(300, "ada", "everything")
    life.watch.book.calendar.silence(7200, "ada", "release", drift_class="model")
    for number in range(20):
        life.take(broken(number, "canary"))
    assert life.pages == []


def test_what_shadow_mode_recorded_pages_once_it_is_switched_off(begin):
    life = begin(SHADOW)
    for number in range(5):
        life.take(broken(number, "canary"))
    assert life.pages == []
    life.restart()
    for number in range(5, 10):
        life.take(broken(number, "canary"))
    assert life.pages == ["opened"]


def test_a_silence_that_ends_pages_as_often_where_the_sidecar_is_killed_with_every_window(begin):
    through, killed = begin(), begin()
    for life in (through, killed):
        life.watch.book.calendar.silence(300, "ada", "")
        for number in range(12):
            (life.take_and_kill if life is killed else life.take)(broken(number, "telemetry"))
    assert killed.pages == through.pages == ["opened"]
    assert killed.incidents == through.incidents


def test_a_planned_change_is_learned_and_pinned_though_the_sidecar_is_killed_when_it_shows(begin):
    life = begin()
    life.take(with_canary(after(0)))
    life.watch.book.calendar.add_deploy("7b v3", planned_seconds=3600.0, time_ns=after(1).start_ns)
    life.take_and_kill(with_canary(after(1), failed=True))
    assert [one.ruling for one in life.incidents] == ["known_change"]
    assert life.watch.engine.version == 0, "learning began anew"
    assert life.pins >= 2, "in either life: the first one's order is lost"
    pins = life.pins
    life.take(with_canary(after(2), failed=True))
    assert life.pins == pins, "once in a life"


def test_traffic_that_goes_on_wakes_nobody_for_retrieval_that_was_silenced_and_is_well_again(begin):
    """Other lengths stay; the documents come back before the silence ends."""
    life = begin()
    life.watch.book.calendar.silence(900, "ada", "reindexing")
    for number in range(30):
        seen = with_canary(after(number, documents_absent=1.0 if number < 10 else 0.0))
        asked = {name: value for name, value in seen.traffic.items() if not name.startswith("band:")}
        life.take(replace(seen, traffic={**asked, "prompt_log2": 110.0, "band:2k-4k": 10.0}))
    assert any(one.verdict.drift_class == "retrieval" for one in life.incidents)
    assert life.pages == []


@pytest.mark.parametrize(("pass_before_seconds", "fail_after_seconds", "planned"), [
    (120, 180, True), (240, 60, True), (240, 7200, False), (600, -240, False),
])  # fmt: skip
def test_a_release_is_planned_though_canaries_are_five_minutes_apart(begin, pass_before_seconds, fail_after_seconds, planned):
    """A canary says that the change lies between its last pass and its first failure, not where."""
    life = begin()
    life.take(with_canary(after(0)))
    release_ns = after(0).end_ns - SECOND + pass_before_seconds * SECOND
    life.watch.book.calendar.add_deploy("7b v3", who="ops", planned_seconds=3600.0, time_ns=release_ns)
    failed = next(n for n in range(1, 200) if after(n).end_ns - SECOND >= release_ns + fail_after_seconds * SECOND)
    for number in range(1, failed):
        life.take(with_canary(after(number)) if fail_after_seconds > 3600 and number % 5 == 0 else after(number))
    life.take(with_canary(after(failed), failed=True))
    assert [one.ruling for one in life.incidents] == ["known_change" if planned else None]
    assert life.pages == ([] if planned else ["opened"])
    assert life.pins == planned


def test_heads_that_nothing_explained_are_not_paged_by_the_canary_of_a_planned_release(begin):
    """They moved before it, while the latest canary was older: the failure that is planned says nothing of them."""
    life = begin()
    for number in range(10):
        life.take(after(number, heads_move=2.0))
    assert [(one.verdict.drift_class, one.verdict.cause) for one in life.incidents] == [("traffic", "unexplained")]
    life.watch.book.calendar.add_deploy("7b v3", planned_seconds=3600.0)
    for number in range(10, 20):
        life.take(with_canary(after(number, heads_move=2.0), failed=True))
    assert "known_change" in {one.ruling for one in life.incidents}
    assert life.pages == []
