"""Overload: rows are left out by rule, weigh what they stand for, are counted exactly, and come back."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import zmq

from headwatch.config import WireConfig
from headwatch.ingest.backlog import Backlog
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.thinning import EASIER_SECONDS, HARDER_SECONDS, MOST, Thinning
from headwatch.ingest.workers import WorkerRegistry
from headwatch.model import RequestContext, SummaryBatch
from headwatch.wire import codec
from headwatch.wire.columns import Columns, view

from .frames import summary

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


def kept(thinning: Thinning, batch: SummaryBatch) -> Columns:
    found = thinning.kept(batch)
    return view(batch) if found is None else view(batch).taking(*found)


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
        if kept(thinned_to(MOST), made := changed(summary(ROWS[:1]), engine_id=f"e-{number}")).request.size == 0
    )  # fmt: skip
    wrong = msgspec.structs.replace(batch, features=np.full(len(bytes(batch.features)) // 4, 7.0, "<f4").tobytes())
    taken.accept(codec.encode(wrong))
    taken.stop()
    assert (seen, taken.counters["thinned_rows"], taken.counters["frames"]) == ([], 1, 1)


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_kept_rows_stand_for_all_and_are_the_same_for_every_rank(factor: int) -> None:
    batches = [changed(summary(ROWS), engine_id=f"engine-{number}") for number in range(20)]
    thinning = thinned_to(factor)
    total = sum(float(kept(thinning, batch).weight.sum()) for batch in batches)
    rows = len(ROWS) * len(batches)
    spread = 5 * np.sqrt(rows * (factor - 1))
    assert abs(total - rows) < spread
    again = kept(thinned_to(factor), changed(summary(ROWS), engine_id="engine-0"))
    first = kept(thinning, batches[0])
    assert first.position.tolist() == again.position.tolist()
    assert 0 < len(first.position) < len(ROWS)
    assert (first.weight == factor).all()
    places = [ROWS.index(next(row for row in ROWS if row[0] == position)) for position in first.position.tolist()]
    assert np.array_equal(first.features, view(batches[0]).features[places], equal_nan=True)
    assert len(first.span_mass) == len(places)


@pytest.mark.parametrize("fields", [{"canary": "one"}, {"full": True}])
def test_rows_that_somebody_asked_for_are_always_kept(fields: dict[str, object]) -> None:
    columns = kept(thinned_to(MOST), changed(summary(ROWS), **fields))
    assert columns.position.tolist() == [row[0] for row in ROWS]
    assert (columns.weight == 1).all()


def test_what_is_left_out_is_counted_to_the_summary_and_ends_still_arrive() -> None:
    seen: list[tuple[int, list[str]]] = []
    taken = Receiver(
        WireConfig(), WorkerRegistry(), lambda batch, columns: seen.append((len(columns.request), batch.finished))
    )
    taken._thinning = thinned_to(MOST)
    batch = msgspec.structs.replace(summary(ROWS), finished=["engine"])
    for _ in range(3):
        taken.accept(codec.encode(batch))
    taken.stop()
    rows = sum(count for count, _ in seen)
    assert rows + taken.counters["thinned_rows"] == 3 * len(ROWS)
    assert taken.counters["thinned_head_summaries"] == taken.counters["thinned_rows"] * len(batch.layers) * batch.heads
    assert [finished for _, finished in seen] == [["engine"]] * 3


def test_a_request_context_keeps_its_own_weight() -> None:
    batch = changed(summary(ROWS), weight=3.0)
    assert isinstance(batch.requests[0], RequestContext)
    assert kept(thinned_to(4), batch).weight.max() == 4.0, "the request's weight is multiplied in by aggregation"


def test_the_backlog_is_full_by_bytes_and_empties_in_order() -> None:
    backlog = Backlog(100)
    frames = [zmq.Frame(bytes([number]) * 40) for number in range(3)]
    for number, frame in enumerate(frames):
        assert backlog.fill == pytest.approx(0.4 * number)
        backlog.append(frame)
    assert backlog.fill > 1.0
    assert [backlog.pop().bytes[0] for _ in range(3)] == [0, 1, 2]
    assert (len(backlog), backlog.fill) == (0, 0.0)
    with pytest.raises(IndexError):
        backlog.pop()
