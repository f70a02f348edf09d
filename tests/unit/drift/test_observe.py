"""What the pipeline hands over becomes observed windows: each thing in the window in which it ended, once."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from headwatch.drift.assemble import MOST_OPEN
from headwatch.drift.observe import Observer
from headwatch.findings import CanaryExhibit, DeployEvent
from headwatch.history.codec import decode, encode
from headwatch.model import Document
from headwatch.observed import Scope

from ..history.windows import same
from ..signals.requests import record
from .test_assemble import FEATURES, MINUTE, A, window
from .test_telemetry import health, worker

SCOPE = Scope("model", "", "support")


def observer(first: int = 10, **more) -> Observer:
    return Observer(FEATURES, MINUTE, first, **more)


def request(name: str, at_window: float, number: int = -1):
    made = record([Document("d1", source="wiki")], [20], [1.0], name=name)
    return replace(made, ended_ns=int(at_window * MINUTE), window=number)


def released(made: Observer, at_window: float, **more) -> list:
    return list(made.release(int(at_window * MINUTE), **more))


def names(found) -> list[str]:
    return [one.request_id for one in found.requests]


def test_a_window_holds_strata_signals_traffic_examples_and_telemetry() -> None:
    made = observer()
    made.add_window(window(10, "one", {A: 0.2}))
    made.add_requests([request("r-1", 10.2), request("r-2", 10.9)])
    made.health(health(worker(time_ns=10 * MINUTE), time_ns=10 * MINUTE))
    [found] = released(made, 11.2)
    assert (found.number, found.start_ns, found.end_ns) == (10, 10 * MINUTE, 11 * MINUTE)
    assert found.strata[A].values[0, 0] == pytest.approx(0.2, rel=1e-4)
    assert found.strata[A].heads == 2
    assert found.traffic["requests"] == 2.0
    assert found.telemetry["capture_up"] == 1.0
    assert found.signals[SCOPE]["document_count"].mean == pytest.approx(1.0)
    assert sorted(names(found)) == ["chatcmpl-r-1", "chatcmpl-r-2"]


def test_what_is_released_is_what_the_history_gives_back() -> None:
    """Values are rounded before anything looks at them, so a replay sees the same to the last bit."""
    made = observer()
    made.add_window(window(10, "one", {A: 0.1234567890123}))
    made.add_requests([request("r-1", 10.2)])
    [found] = released(made, 11.2)
    assert same(decode(encode(found)), found)


def test_a_request_belongs_to_the_window_in_which_it_ended_and_a_late_one_to_the_next() -> None:
    made = observer()
    for number in (10, 11, 12):
        made.add_window(window(number, "one", {A: 0.2}))
    made.add_requests([request("r-12", 12.5), request("r-10", 10.5)])
    ten, eleven = released(made, 12.2)
    assert (names(ten), names(eleven)) == (["chatcmpl-r-10"], [])
    made.add_requests([request("late", 10.9)])
    [twelve] = released(made, 13.2)
    assert sorted(names(twelve)) == ["chatcmpl-late", "chatcmpl-r-12"]


def test_canaries_and_releases_come_once_with_their_window_or_the_next() -> None:
    made = observer()
    for number in (10, 11, 12):
        made.add_window(window(number, "one", {A: 0.2}))
    runs = [canary(at, f"at {at}") for at in (10.5, 12.5, 11.0)]
    for run in runs:
        made.canary(run)
    made.deploy(DeployEvent(int(11.5 * MINUTE), "release 7"))
    ten, eleven = released(made, 12.2)
    assert ten.canaries == (runs[0],)
    assert (eleven.canaries, [event.title for event in eleven.deploys]) == ((runs[2],), ["release 7"])
    made.canary(canary(10.7, "late"))
    [twelve] = released(made, 13.2)
    assert {run.prompt for run in twelve.canaries} == {"at 12.5", "late"}
    assert twelve.deploys == ()


def canary(at: float, prompt: str) -> CanaryExhibit:
    return CanaryExhibit(int(at * MINUTE), prompt, 0.0, 0.1, failed=False, earliest_layer=None)


def test_silence_is_observed_and_the_time_before_a_start_is_not() -> None:
    """Windows of this life come without strata where nothing came; those of a downtime are gaps."""
    made = observer(first=10)
    made.health(health(worker(time_ns=int(20.5 * MINUTE)), time_ns=int(20.5 * MINUTE)))
    found = released(made, 22.5)
    assert [one.number for one in found] == [20, 21]
    assert all(one.strata == {} for one in found)
    assert found[0].telemetry["capture_up"] == 1.0
    assert found[1].telemetry == {}, "nobody looked in the second one"


def test_windows_by_count_are_released_when_their_requests_have_ended() -> None:
    made = observer(first=0, requests=2)
    made.add_window(replace(window(90, "one", {A: 0.2}), number=0))
    made.add_requests([request("r-1", 90.1, 0)])
    assert released(made, 999) == []
    made.add_requests([request("r-2", 90.4, 0)])
    [found] = released(made, 999)
    assert (found.number, found.start_ns, found.end_ns) == (0, 90 * MINUTE, 91 * MINUTE)
    made.add_window(replace(window(91, "one", {A: 0.3}), number=1))
    made.add_requests([request("r-3", 91.1, 1)])
    assert [one.number for one in released(made, 999, everything=True)] == [1]


def test_an_engine_that_starts_anew_goes_on_with_the_window() -> None:
    made = observer()
    first = window(10, "one", {A: 0.2}, rows=1)
    made.add_window(first)
    again = window(10, "one", {A: 0.6}, rows=3)
    made.add_window(replace(again, worker=msgspec.structs.replace(again.worker, start_ns=99)))
    [found] = released(made, 11.2)
    assert found.strata[A].values[0, 0] == pytest.approx(0.5, rel=1e-4)


def test_the_mean_length_is_that_of_the_rows_of_all_engines() -> None:
    made = observer()
    for engine, rows, length in (("one", 1, 8.0), ("two", 3, 10.0)):
        made.add_window(replace(window(10, engine, {A: 0.2}, rows=rows), log_length=np.array([length])))
    [found] = released(made, 11.2)
    assert found.strata[A].covariates.tolist() == [9.5]
    other = observer()
    other.add_window(window(10, "one", {A: 0.2}))
    [found] = released(other, 11.2)
    assert np.isnan(found.strata[A].covariates).all()


def test_a_clock_that_runs_ahead_makes_nothing_late() -> None:
    made = observer()
    made.add_window(window(10_000, "ahead", {A: 0.9}))
    made.add_window(window(10, "one", {A: 0.2}))
    assert [one.number for one in released(made, 11.5)] == [10]
    made.add_window(window(11, "one", {A: 0.2}))
    assert [one.number for one in released(made, 12.5, everything=True)] == [11]
    assert made.counters["future_windows"] == 1


def test_what_is_held_is_bounded() -> None:
    made = observer(first=0)
    for number in range(3 * MOST_OPEN):
        made.add_window(window(number, "one", {A: 0.2}))
        released(made, 0.5)
    assert len(made._assembler._open) <= MOST_OPEN + 1


def test_what_was_known_of_documents_goes_on() -> None:
    made = observer()
    made.add_window(window(10, "one", {A: 0.2}))
    made.add_requests([request(f"r-{n}", 10.2) for n in range(3)])
    released(made, 11.2)
    again = observer(first=11, book=made.book)
    assert again.book is made.book
