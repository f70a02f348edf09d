"""Counts of canary runs: each once, under a reason of a bounded set, and an age that grows while nothing is completed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headwatch.canary.counts import RunCounts
from headwatch.health import CANARY_REASONS

from .models import run

SECOND = 1_000_000_000


def failed(reason: str) -> object:
    return replace(run(failures={"one": "why"}), reason=reason)


def test_a_run_is_completed_or_failed_and_never_both() -> None:
    counts = RunCounts(300.0, 1)
    counts.take(run())
    counts.take(failed("timed_out"))  # type: ignore[arg-type]  # a Run
    state = counts.now()
    assert (state.runs, state.completed_ns, state.interval_seconds) == (1, 5, 300.0)
    assert {reason: count for reason, count in state.failures.items() if count} == {"timed_out": 1}


@pytest.mark.parametrize(("reason", "counted"), [
    *((reason, reason) for reason in CANARY_REASONS),
    ("incomplete", "rows"), ("prompts", "fingerprint"), ("mixed", "fingerprint"), ("few_runs", "fingerprint"),
    ("", "unexpected"), ("whatever comes later", "unexpected"),
])  # fmt: skip
def test_every_reason_is_counted_under_one_of_a_bounded_set(reason: str, counted: str) -> None:
    counts = RunCounts(300.0, 1)
    counts.fail(reason)
    state = counts.now()
    assert set(state.failures) == set(CANARY_REASONS)
    assert state.failures == {**dict.fromkeys(CANARY_REASONS, 0), counted: 1}


def test_what_was_handed_out_stays_as_it_was() -> None:
    counts = RunCounts(300.0, 1)
    before = counts.now()
    counts.fail("refused")
    assert (before.failures["refused"], counts.now().failures["refused"]) == (0, 1)


def test_the_age_is_that_of_the_last_completed_run_and_a_failed_one_does_not_renew_it() -> None:
    counts = RunCounts(300.0, 10 * SECOND)
    assert counts.now().age_seconds(40 * SECOND) == 30.0, "before the first, of the runner"
    counts.take(replace(run(), time_ns=20 * SECOND))
    counts.take(replace(failed("rows"), time_ns=30 * SECOND))  # type: ignore[type-var]  # a Run
    assert counts.now().age_seconds(40 * SECOND) == 20.0
    assert counts.now().age_seconds(0) == 0.0, "a clock that was set back"
