"""Overload: rows are left out by rule, weigh what they stand for, are counted exactly, and come back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import zmq

from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig, WireConfig
from headwatch.ingest.backlog import Backlog
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.thinning import EASIER_SECONDS, HARDER_SECONDS, MOST, Thinning
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import SummaryBatch
from headwatch.wire import codec
from headwatch.wire.columns import Columns, view

from ..programs import wait_for
from .frames import summary

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [(position, {"entropy": position / 1000}, [0.2] * 5) for position in range(10, 410)]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def thinned_to(factor: int) -> Thinning:
    clock = Clock()
    made = Thinning(clock)
    while made.factor < factor:
        clock.now += 1.01 * HARDER_SECONDS
        made.adjust(1.0)
    return made


def changed(batch: SummaryBatch, **fields: object) -> SummaryBatch:
    contexts = [msgspec.structs.replace(context, **fields) for context in batch.requests]
    return msgspec.structs.replace(batch, requests=contexts)


def kept(thinning: Thinning, batch: SummaryBatch) -> tuple[Columns, SummaryBatch]:
    found = thinning.kept(batch)
    if found is None:
        return view(batch), batch
    rows, standing = found
    return view(standing).taking(rows), standing


def test_it_gets_harder_step_by_step_and_easier_after_a_calm_second() -> None:
    clock = Clock()
    made = Thinning(clock)
    made.adjust(0.6)
    assert made.factor == 1, "not before a tenth of a second"
    for expected in (2, 4, 8, 16, 16):
        clock.now += 1.01 * HARDER_SECONDS
        made.adjust(0.6)
        assert made.factor == expected
    clock.now += 10.0
    made.adjust(0.3)
    assert made.factor == MOST, "neither full nor low: it stays"
    made.adjust(0.05)
    clock.now += 0.9 * EASIER_SECONDS
    made.adjust(0.2)
    made.adjust(0.05)
    clock.now += 0.9 * EASIER_SECONDS
    made.adjust(0.05)
    assert made.factor == MOST, "the calm was interrupted"
    for expected in (8, 4, 2, 1, 1):
        clock.now += 1.01 * EASIER_SECONDS
        made.adjust(0.05)
        assert made.factor == expected


def test_it_gets_no_harder_while_the_backlog_empties() -> None:
    clock = Clock()
    made = Thinning(clock)
    factors = []
    for fill in (0.6, 0.9, 0.8, 0.7, 0.7, 0.6, 0.9):
        clock.now += 1.01 * HARDER_SECONDS
        made.adjust(fill)
        factors.append(made.factor)
    assert factors == [2, 4, 4, 4, 8, 8, 16]


def test_a_frame_of_which_nothing_is_kept_is_not_looked_at() -> None:
    """Its numbers may be wrong: they reach nobody."""
    seen: list[SummaryBatch] = []
    taken = Receiver(WireConfig(), WorkerRegistry(), lambda batch, _: seen.append(batch))
    taken._thinning = thinned_to(MOST)
    batch = next(
        made for number in range(100)
        if kept(thinned_to(MOST), made := changed(summary(ROWS[:1]), engine_id=f"e-{number}"))[0].request.size == 0
    )  # fmt: skip
    wrong = msgspec.structs.replace(batch, features=np.full(len(bytes(batch.features)) // 4, 7.0, "<f4").tobytes())
    taken.accept(codec.encode(wrong))
    taken.stop()
    assert (seen, taken.counters["thinned_rows"], taken.counters["frames"]) == ([], 1, 1)


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_kept_requests_are_whole_and_stand_for_all_short_ones_and_long_ones_alike(factor: int) -> None:
    thinning = thinned_to(factor)
    for rows in (ROWS[:2], ROWS[:40]):
        found = [kept(thinning, changed(summary(rows), engine_id=f"engine-{number}")) for number in range(2000)]
        taken = [(columns, batch) for columns, batch in found if len(columns.request)]
        assert all(len(columns.request) == len(rows) for columns, _ in taken), "with all of their rows"
        total = sum(batch.requests[0].weight for _, batch in taken)
        assert abs(total - 2000) < 5 * np.sqrt(2000 * (factor - 1))
        assert {batch.requests[0].weight for _, batch in taken} == {float(factor)}
        assert all((columns.weight == 1).all() for columns, _ in taken)


def test_every_rank_keeps_the_same_and_a_smaller_factor_keeps_more() -> None:
    def names(factor: int) -> set[int]:
        thinning = thinned_to(factor)
        return {
            number for number in range(500)
            if len(kept(thinning, changed(summary(ROWS[:1]), engine_id=f"engine-{number}"))[0].request)
        }  # fmt: skip

    assert names(16) == names(16)
    assert names(16) < names(4) < names(2) < set(range(500))


@pytest.mark.parametrize("fields", [{"canary": "one"}, {"full": True}])
def test_rows_that_somebody_asked_for_are_always_kept(fields: dict[str, object]) -> None:
    columns, batch = kept(thinned_to(MOST), changed(summary(ROWS), **fields))
    assert columns.position.tolist() == [row[0] for row in ROWS]
    assert batch.requests[0].weight == 1.0


def test_what_is_left_out_is_counted_to_the_summary_and_ends_still_arrive() -> None:
    seen: list[tuple[int, list[str]]] = []
    taken = Receiver(
        WireConfig(), WorkerRegistry(), lambda batch, columns: seen.append((len(columns.request), batch.finished))
    )
    taken._thinning = thinned_to(MOST)
    batches = [changed(summary(ROWS, finished=[f"e-{number}"]), engine_id=f"e-{number}") for number in range(50)]
    for batch in batches:
        taken.accept(codec.encode(batch))
    taken.stop()
    rows = sum(count for count, _ in seen)
    assert 0 < rows < 50 * len(ROWS)
    assert rows + taken.counters["thinned_rows"] == 50 * len(ROWS)
    per_row = len(batches[0].layers) * batches[0].heads
    assert taken.counters["thinned_head_summaries"] == taken.counters["thinned_rows"] * per_row
    assert [finished for _, finished in seen] == [[f"e-{number}"] for number in range(50)]


@pytest.mark.parametrize("whole", [True, False])
def test_who_needs_every_row_gets_it_however_slow_he_is(tmp_path: Path, whole: bool) -> None:
    """The control is a receiver that may thin: it does, and by the same frames."""
    seen = []

    def slowly(_: SummaryBatch, columns: Columns) -> None:
        time.sleep(0.02)
        seen.append(len(columns.request))

    frames = [codec.encode(changed(summary(ROWS), engine_id=f"e-{number}")) for number in range(40)]
    config = WireConfig(endpoint=f"ipc://{tmp_path}/frames", backlog_bytes=4 * len(frames[0]))
    taken = Receiver(config, WorkerRegistry(), slowly, whole=whole)
    taken.start()
    with zmq.Context() as context, context.socket(zmq.PUSH) as sender:
        sender.connect(config.endpoint)
        for frame in frames:
            sender.send(frame)
        wait_for(lambda: taken.counters["frames"] == len(frames), "all frames to be taken")
    taken.stop()
    assert (sum(seen) == len(frames) * len(ROWS)) is whole
    assert (taken.counters["thinned_rows"] == 0) is whole


def test_a_request_that_was_sampled_stands_for_both() -> None:
    batch = next(
        standing for number in range(100)
        if len((found := kept(thinned_to(4), changed(summary(ROWS[:1]), weight=3.0, engine_id=f"e-{number}")))[0].request)
        and (standing := found[1])
    )  # fmt: skip
    assert batch.requests[0].weight == 12.0


def test_a_record_of_a_kept_request_stands_for_those_that_were_left_out() -> None:
    made = Aggregator(WindowConfig())
    taken = Receiver(WireConfig(), WorkerRegistry(), made.add)
    taken._thinning = thinned_to(4)
    for number in range(200):
        taken.accept(codec.encode(changed(summary(ROWS[:3], finished=[f"e-{number}"]), engine_id=f"e-{number}")))
    taken.stop()
    (window,), records = made.collect(0, everything=True)
    assert {record.context.weight for record in records} == {4.0}
    assert len(records) * 3 + taken.counters["thinned_rows"] == 600
    assert window.weight.max() <= 4 * 3 * len(records)


@pytest.mark.parametrize(
    "fields", [{"heads": -5}, {"heads": 2**62}, {"head_offset": -1}, {"time_ns": -5}, {"time_ns": 2**62}, {"layers": []}]
)
def test_a_frame_that_cannot_be_is_refused_also_where_nothing_of_it_is_kept(fields: dict[str, object]) -> None:
    taken = Receiver(WireConfig(), WorkerRegistry(), lambda *_: None)
    taken._thinning = thinned_to(MOST)
    for number in range(20):
        taken.accept(codec.encode(msgspec.structs.replace(changed(summary(ROWS[:1]), engine_id=f"e-{number}"), **fields)))
    taken.stop()
    assert (taken.counters["thinned_rows"], taken.counters["frames"]) == (0, 0)


def test_the_backlog_is_full_by_bytes_and_empties_in_order() -> None:
    backlog = Backlog(1000)
    frames = [zmq.Frame(bytes([number]) * 40) for number in range(3)]
    for number, frame in enumerate(frames):
        assert backlog.fill == pytest.approx(0.552 * number)
        backlog.append(frame)
    assert backlog.fill > 1.0, "a frame takes more than its payload"
    assert [backlog.pop().bytes[0] for _ in range(3)] == [0, 1, 2]
    assert (len(backlog), backlog.fill) == (0, 0.0)
    with pytest.raises(IndexError):
        backlog.pop()
