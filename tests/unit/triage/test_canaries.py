"""Which recorded canary runs a watch is shown: those that are due, and those that it asked for."""

from __future__ import annotations

from dataclasses import replace

from headwatch.bench.triage.canaries import Canaries
from headwatch.findings import CanaryExhibit
from headwatch.observed import ObservedWindow

RUN = CanaryExhibit(0, "short", 0.0, 1e-3, failed=False, earliest_layer=None)


def shown(canaries: Canaries, ran: list[bool], asked_after: int | None = None) -> list[bool]:
    """Return in which windows a run is passed on, of those in which one *ran*."""
    found = []
    for number, run in enumerate(ran):
        window = replace(ObservedWindow(number, number, number + 1), canaries=(RUN,) if run else ())
        found.append(bool(canaries.passed(window).canaries))
        if number == asked_after:
            assert canaries.ask()
    return found


def test_one_run_in_five_windows_is_passed_on():
    assert shown(Canaries(5), [True] * 11) == [number in {4, 9} for number in range(11)]


def test_the_first_run_is_due_where_the_last_one_lies_behind():
    assert shown(Canaries(5, since=3), [True] * 8) == [number in {1, 6} for number in range(8)]


def test_a_run_that_was_asked_for_comes_with_the_next_window_that_has_one():
    assert shown(Canaries(5), [True, True, False, True, True], asked_after=1) == [False, False, False, True, False]


def test_a_run_that_is_due_waits_for_a_window_that_has_one():
    assert shown(Canaries(5), [False] * 6 + [True, True]) == [False] * 6 + [True, False]


def test_a_recording_of_a_sidecars_own_interval_is_shown_as_it_is():
    assert shown(Canaries(0), [True, False, True]) == [True, False, True]
