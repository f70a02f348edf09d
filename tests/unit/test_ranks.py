"""The ranks of one engine are joined: what they send in parts comes to the same as what one worker sends whole."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.windows import GRACE_NS, Aggregator
from headwatch.config import WindowConfig
from headwatch.model import FEATURES, SummaryBatch
from headwatch.records import RequestRecord, WindowBatch
from headwatch.wire.columns import view

from .frames import HEADS, LAYERS, PROMPT, SECOND, context, summary, worker

POSITIONS = (PROMPT - 1, PROMPT, PROMPT + 1)
SPANS = 5
TENSOR = [(slice(0, 2), slice(0, 1)), (slice(0, 2), slice(1, 3))]
PIPELINE = [(slice(0, 1), slice(0, 3)), (slice(1, 2), slice(0, 3))]
BOTH = [(layers, heads) for layers, _ in PIPELINE for _, heads in TENSOR]
"""(layers, heads) of each rank."""


def whole(*, engine_id: str = "r-1", finished: bool = True, sequence: int = 0) -> SummaryBatch:
    """Return a frame whose every number is another one: two layers, three heads, one prompt row and two generated ones."""
    generator = np.random.default_rng(sequence)
    rows = [(position, {"entropy": 0.5}, [0.2] * SPANS) for position in POSITIONS]
    batch = summary(rows, request=context(engine_id), finished=[engine_id] if finished else [], sequence=sequence)
    features = generator.random((len(rows), LAYERS, HEADS, len(FEATURES))).astype("<f4") * 0.9
    features[0, :, :, FEATURES.index("lookback")] = np.nan
    mass = generator.random((len(rows) * SPANS, LAYERS, HEADS)).astype("<f4") / SPANS
    return msgspec.structs.replace(batch, features=features.tobytes(), span_mass=mass.tobytes())


def parts(batch: SummaryBatch, cuts: list[tuple[slice, slice]], start_ns: int = 1) -> list[SummaryBatch]:
    """Return what each of the ranks sends of *batch*."""
    features = np.frombuffer(batch.features, "<f4").reshape(-1, LAYERS, HEADS, len(FEATURES))
    mass = np.frombuffer(batch.span_mass, "<f4").reshape(-1, LAYERS, HEADS)
    return [
        msgspec.structs.replace(
            batch,
            worker=msgspec.structs.replace(worker(start_ns=start_ns + rank), rank=rank, ranks=len(cuts)),
            layers=list(range(LAYERS))[layers],
            heads=heads.stop - heads.start,
            head_offset=heads.start,
            features=np.ascontiguousarray(features[:, layers, heads]).tobytes(),
            span_mass=np.ascontiguousarray(mass[:, layers, heads]).tobytes(),
        )
        for rank, (layers, heads) in enumerate(cuts)
    ]


def aggregator() -> Aggregator:
    return Aggregator(WindowConfig(seconds=60.0, request_idle_seconds=120.0))


def add(target: Aggregator, *batches: SummaryBatch) -> None:
    for batch in batches:
        target.add(batch, view(batch))


def assert_same_window(joined: WindowBatch, single: WindowBatch) -> None:
    order = [joined.strata.index(stratum) for stratum in single.strata]
    assert len(joined.strata) == len(order)
    assert joined.rows[order].tolist() == single.rows.tolist(), "a row counts once, whoever sends parts of it"
    for name in ("count", "total", "minimum", "maximum", "zero_count", "buckets"):
        np.testing.assert_allclose(getattr(joined, name)[order], getattr(single, name), err_msg=name)


def assert_same_record(joined: RequestRecord, single: RequestRecord) -> None:
    np.testing.assert_array_equal(joined.head_means, single.head_means)
    assert joined.document_share == pytest.approx(single.document_share)
    for name in ("rows_prefill", "rows_decode", "state", "undefined", "started_ns", "ended_ns"):
        assert getattr(joined, name) == getattr(single, name), name
    for name in ("grounding_ratio", "document_mass"):
        assert getattr(joined, name) == pytest.approx(getattr(single, name)), name


@pytest.mark.parametrize("cuts", [TENSOR, PIPELINE, BOTH], ids=["tensor", "pipeline", "both"])
@pytest.mark.parametrize("order", ["in turn", "one rank first", "backwards"])
def test_parts_of_all_ranks_come_to_the_same_as_the_whole(cuts: list[tuple[slice, slice]], order: str) -> None:
    batches = [whole(engine_id=f"r-{number}", sequence=number) for number in range(4)]
    frames = [part for batch in batches for part in parts(batch, cuts)]
    if order == "one rank first":
        frames.sort(key=lambda frame: frame.worker.rank)
    elif order == "backwards":
        frames.reverse()
    single, joined = aggregator(), aggregator()
    add(single, *batches)
    add(joined, *frames)
    (expected,), records = single.collect(120 * SECOND + GRACE_NS)
    (window,), found = joined.collect(120 * SECOND + GRACE_NS)
    assert window.worker.rank == 0
    assert_same_window(window, expected)
    assert len(found) == len(records) == 4
    by_id = {record.context.engine_id: record for record in found}
    for record in records:
        assert_same_record(by_id[record.context.engine_id], record)


def test_a_request_waits_for_the_rank_that_is_behind() -> None:
    """Rank 0 has said that it ended; the last row of rank 1 comes a second later and still belongs to it."""
    first, second = parts(whole(), TENSOR)
    made = aggregator()
    add(made, first)
    assert made.collect(101 * SECOND)[1] == []
    add(made, second)
    _, (record,) = made.collect(102 * SECOND)
    assert np.isfinite(record.head_means[0]).all()


def test_a_rank_that_stays_silent_holds_nobody_up_and_makes_no_second_record() -> None:
    first, second = parts(whole(), TENSOR)
    made = aggregator()
    add(made, first)
    assert made.collect(101 * SECOND)[1] == []
    _, (record,) = made.collect(104 * SECOND)
    assert np.isnan(record.head_means[0, :, 1:]).all(), "the silent rank's heads are missing"
    assert np.isfinite(record.head_means[0, :, :1]).all(), "the others are not"
    add(made, second)
    assert made.collect(110 * SECOND)[1] == []
    assert made.counters["rows_after_end"] == len(POSITIONS)
    assert made.collect(500 * SECOND, everything=True)[1] == []


def test_what_is_remembered_of_ended_requests_is_bounded() -> None:
    made = Aggregator(WindowConfig(max_open_requests=3, request_idle_seconds=10.0))
    for number in range(10):
        add(made, parts(whole(engine_id=f"r-{number}"), TENSOR)[0])
        made.collect((100 + 10 * number) * SECOND)
        made.collect((104 + 10 * number) * SECOND)
    made.collect(300 * SECOND)
    assert made._ended == {}


def test_ranks_that_start_at_different_times_share_a_window() -> None:
    made = aggregator()
    for number in range(3):
        add(made, *parts(whole(engine_id=f"r-{number}", sequence=number), TENSOR))
    windows, _ = made.collect(120 * SECOND + GRACE_NS)
    assert len(windows) == 1


def test_a_restart_of_the_engine_closes_its_window_once() -> None:
    made = aggregator()
    add(made, *parts(whole(), TENSOR))
    add(made, *parts(whole(engine_id="r-2", sequence=1), TENSOR, start_ns=50))
    windows, records = made.collect(500 * SECOND)
    assert len(windows) == 2
    assert [int(window.rows.sum()) for window in windows] == [len(POSITIONS)] * 2
    assert len(records) == 2


def test_an_engine_that_comes_back_with_another_model_closes_its_window() -> None:
    made = aggregator()
    add(made, whole())
    smaller = msgspec.structs.replace(worker(), layers=1)
    half = parts(whole(engine_id="r-2"), PIPELINE)[0]
    add(made, msgspec.structs.replace(half, worker=smaller))
    windows, _ = made.collect(500 * SECOND)
    assert sorted(window.count.shape[2] for window in windows) == [1, 2]
