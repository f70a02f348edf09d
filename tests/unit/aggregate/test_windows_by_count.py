"""Windows that close by count of requests, and what numbers a window."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.windows import GRACE_NS, Aggregator
from headwatch.config import WindowConfig
from headwatch.wire.columns import view

from ..frames import SECOND, context, summary, worker

VALUES = {"entropy": 0.5, "sink_mass": 0.2, "lookback": 0.25}
MASS = [0.2, 0.3, 0.1, 0.1, 0.3]


def request(made: Aggregator, number: int, *, seconds: float = 100.0, instance: str = "engine-1", ended: bool = True) -> None:
    """Send one row of the request *number*, which ends with it."""
    item = context(f"r-{number}")
    batch = summary(
        [(10, VALUES, MASS)], request=item, finished=[item.engine_id] if ended else [], time_ns=int(seconds * SECOND),
        identity=worker(instance), sequence=number,
    )
    made.add(batch, view(batch))


def test_a_window_closes_with_the_request_that_completes_the_count_and_the_next_is_numbered_on() -> None:
    made = Aggregator(WindowConfig(requests=3), first_number=7)
    for number in range(7):
        request(made, number, seconds=100.0 + number)
    windows, records = made.collect(107 * SECOND)
    assert [(window.number, window.rows.tolist()) for window in windows] == [(7, [3]), (8, [3])]
    assert [(window.start_ns, window.end_ns) for window in windows] == [
        (100 * SECOND, 102 * SECOND), (102 * SECOND, 105 * SECOND),
    ]  # fmt: skip
    assert [record.window for record in records] == [7, 7, 7, 8, 8, 8, 9]


def test_time_alone_closes_no_window_of_a_count() -> None:
    made = Aggregator(WindowConfig(requests=2))
    request(made, 0)
    assert made.collect(10_000 * SECOND)[0] == []
    request(made, 1, seconds=9_000.0)
    (window,), _ = made.collect(10_001 * SECOND)
    assert (window.number, window.end_ns) == (0, 9_000 * SECOND)


def test_the_windows_of_all_engines_close_together_with_one_number() -> None:
    made = Aggregator(WindowConfig(requests=2))
    request(made, 0, instance="engine-1")
    request(made, 1, instance="engine-2", seconds=103.0)
    windows, _ = made.collect(104 * SECOND)
    assert {(window.worker.instance, window.number) for window in windows} == {("engine-1", 0), ("engine-2", 0)}
    assert {(window.start_ns, window.end_ns) for window in windows} == {(100 * SECOND, 103 * SECOND)}


def test_a_request_that_falls_silent_counts_when_it_is_taken_as_ended() -> None:
    made = Aggregator(WindowConfig(requests=1, request_idle_seconds=20.0))
    request(made, 0, ended=False)
    assert made.collect(110 * SECOND) == ([], [])
    windows, records = made.collect(121 * SECOND)
    assert [window.number for window in windows] == [0]
    assert [record.window for record in records] == [0]


def test_canaries_complete_no_count() -> None:
    made = Aggregator(WindowConfig(requests=2))
    request(made, 0)
    item = msgspec.structs.replace(context("c-1"), canary="capital")
    batch = summary([(10, VALUES, MASS)], request=item, finished=["c-1"])
    made.add(batch, view(batch))
    assert made.collect(200 * SECOND)[0] == []


def test_what_a_request_sends_after_its_end_makes_no_second_record() -> None:
    made = Aggregator(WindowConfig(requests=5))
    request(made, 0)
    request(made, 0, seconds=101.0)
    _, records = made.collect(102 * SECOND)
    assert len(records) == 1
    assert made.counters["rows_after_end"] == 1


def test_by_the_clock_a_window_is_numbered_by_its_start() -> None:
    made = Aggregator(WindowConfig(seconds=60.0))
    request(made, 0, seconds=130.0)
    (window,), (record,) = made.collect(180 * SECOND + GRACE_NS)
    assert (window.start_ns, window.number) == (120 * SECOND, 2)
    assert record.window == 2


def test_a_stratum_knows_the_mean_length_of_what_its_rows_saw() -> None:
    """Weighted mean of log2(position + 1); a row that two ranks send counts once."""
    made = Aggregator(WindowConfig())
    for rank in (0, 1):
        identity = msgspec.structs.replace(worker(), rank=rank, ranks=2)
        batch = summary([(15, VALUES, MASS), (31, VALUES, MASS)], identity=identity)
        batch = msgspec.structs.replace(batch, row_weight=np.array([3.0, 1.0], "<f4").tobytes())
        made.add(batch, view(batch))
    (window,), _ = made.collect(0, everything=True)
    assert window.log_length is not None
    assert window.log_length.tolist() == pytest.approx([(3 * 4 + 1 * 5) / 4])
    assert window.rows.tolist() == [2]
