"""What a person has ruled to be no news stays none for as long as it goes on, and is news once it comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from .lives import after, faulty
from .scenes import SECOND, with_canary

if TYPE_CHECKING:
    from headwatch.observed import ObservedWindow


def broken(number: int, cause: str):
    return with_canary(after(number), failed=True) if cause == "canary" else faulty(with_canary(after(number)))


def two_prompts(seen: ObservedWindow) -> ObservedWindow:
    """Return *seen* with the run of a second prompt, which came to the same as the first."""
    return replace(seen, canaries=(*seen.canaries, msgspec.structs.replace(seen.canaries[0], prompt="long")))


@pytest.mark.parametrize(("cause", "ruling", "ruled_after", "killed"), [
    ("canary", "known_change", 10, False), ("canary", "false_page", 80, True),
    ("telemetry", "known_change", 80, True), ("telemetry", "false_page", 10, False),
])  # fmt: skip
def test_what_was_ruled_and_goes_on_pages_nobody_again(begin, cause, ruling, ruled_after, killed):
    """Longer than the windows that are kept at hand, before the ruling or after it, and through restarts."""
    life = begin()
    for number in range(ruled_after):
        life.take(broken(number, cause))
    (incident,) = life.incidents
    life.watch.book.resolve(incident.id, "ada", ruling)
    for number in range(ruled_after, ruled_after + 90):
        (life.take_and_kill if killed and number % 10 == 0 else life.take)(broken(number, cause))
    assert [(one.id, one.ruling, one.reopened) for one in life.incidents] == [(incident.id, ruling, 0)]
    assert life.pages == ["opened", "resolved"]


@pytest.mark.parametrize("cause", ["canary", "telemetry"])
def test_what_was_ruled_and_comes_back_is_news(begin, cause):
    life = begin()
    for number in range(10):
        life.take(broken(number, cause))
    life.watch.book.resolve(life.incidents[0].id, "ada", "false_page")
    for number in range(10, 15):
        life.take(broken(number, cause))
    life.take(with_canary(after(15)))
    for number in range(16, 20):
        life.take(broken(number, cause))
    assert life.pages == ["opened", "resolved", "opened"]


def test_a_window_in_which_nobody_looked_does_not_make_it_news(begin):
    life = begin()
    for number in range(10):
        life.take(broken(number, "telemetry"))
    life.watch.book.resolve(life.incidents[0].id, "ada", "known_change")
    for number in range(10, 20):
        seen = broken(number, "telemetry")
        life.take(replace(seen, telemetry={}) if number == 13 else seen)
    assert life.pages == ["opened", "resolved"]


def test_a_canary_that_passed_and_failed_in_one_window_is_news(begin):
    life = begin()
    for number in range(5):
        life.take(broken(number, "canary"))
    life.watch.book.resolve(life.incidents[0].id, "ada", "false_page")
    for number in range(5, 8):
        seen = broken(number, "canary")
        passed = msgspec.structs.replace(with_canary(after(number)).canaries[0], time_ns=seen.end_ns - 20 * SECOND)
        life.take(replace(seen, canaries=(passed, *seen.canaries)) if number == 6 else seen)
    assert life.pages == ["opened", "resolved", "opened"]


def test_a_ruling_holds_for_all_that_was_added_to_the_incident(begin):
    life = begin()
    for number in range(10):
        seen = with_canary(after(number), failed=True)
        life.take(two_prompts(seen) if number >= 5 else seen)
    life.watch.book.resolve(life.incidents[0].id, "ada", "known_change")
    for number in range(10, 20):
        life.take(two_prompts(with_canary(after(number), failed=True)))
    assert len(life.incidents) == 1


def test_a_known_change_of_the_model_is_learned_anew_though_no_canary_had_passed_before(begin):
    """All that is known of its beginning is the window in which the first run failed."""
    life = begin(canaries=False)
    life.take(with_canary(after(0), failed=True))
    (incident,) = life.incidents
    life.watch.book.resolve(incident.id, "ada", "known_change")
    life.take(after(1))
    assert life.watch.engine.version == 0, "no baseline is in force until the new normal is known"
    assert life.watch.engine.normal_since == after(0).number
    assert life.pins == 1


def test_a_known_change_of_the_model_is_pinned_though_a_later_one_was_learned_anew_before(begin):
    """Of two changes the later one may be ruled first: the new normal is younger than the change that canaries still show."""
    life = begin()
    for number in range(6):
        life.take(with_canary(after(number), failed=True))
    life.watch.engine.rebase(after(5).number)
    life.watch.book.resolve(life.incidents[0].id, "ada", "known_change")
    for number in range(6, 10):
        life.take(with_canary(after(number), failed=True))
    assert life.pins == 1
    life.restart()
    life.take(with_canary(after(10), failed=True))
    assert life.pins == 2, "it is still to be done"
    life.take(with_canary(after(11)))
    life.restart()
    life.take(with_canary(after(12)))
    assert life.pins == 2, "it was done"


def test_heads_are_not_laid_on_a_canary_that_departs_as_somebody_knows(begin):
    life = begin()
    for number in range(10):
        life.take(with_canary(after(number), failed=True))
    life.watch.book.resolve(life.incidents[0].id, "ada", "false_page")
    for number in range(10, 95):
        life.take(with_canary(after(number, heads_move=2.0 if number >= 75 else 0.0), failed=True))
    (found,) = [one for one in life.incidents if one.state == "open"]
    assert (found.verdict.drift_class, found.verdict.cause) == ("model", "unexplained")
