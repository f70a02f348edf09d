"""Rows of canaries: handed on as they come, counted nowhere."""

from __future__ import annotations

import msgspec
import numpy as np

from headwatch.aggregate.canaries import MAX_OPEN
from headwatch.aggregate.windows import Aggregator
from headwatch.config import WindowConfig
from headwatch.model import FEATURES, RequestContext, WorkerIdentity
from headwatch.wire.columns import view

from ..frames import HEADS, LAYERS, SECOND, context, summary, worker

NOW = 100 * SECOND
VALUES = {"entropy": 0.5, "sink_mass": 0.2, "lookback": 0.25}
MASS = [0.2, 0.3, 0.1, 0.1, 0.3]


class Sink:
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, np.ndarray, list[int], slice]] = []
        self.ended: list[tuple[str, str]] = []

    def add(
        self, worker: WorkerIdentity, context: RequestContext, position: int, features: np.ndarray, layers: np.ndarray,
        heads: slice, time_ns: int,
    ) -> None:
        self.rows.append((context.canary, position, features.copy(), layers.tolist(), heads))

    def finished(self, instance: str, engine_id: str) -> None:
        self.ended.append((instance, engine_id))


def canary(engine_id: str = "c-1") -> RequestContext:
    return msgspec.structs.replace(context(engine_id), canary="capital")


def add(target: Aggregator, batch: object) -> None:
    target.add(batch, view(batch))  # type: ignore[arg-type]


def test_rows_of_a_canary_reach_the_sink_and_nothing_else() -> None:
    sink = Sink()
    made = Aggregator(WindowConfig(), canaries=sink)
    add(made, summary([(9, VALUES, MASS), (10, VALUES, MASS)], request=canary(), finished=["c-1"]))
    assert [(name, position, layers, heads) for name, position, _, layers, heads in sink.rows] == [
        ("capital", 9, [0, 1], slice(0, HEADS)), ("capital", 10, [0, 1], slice(0, HEADS)),
    ]  # fmt: skip
    assert sink.rows[0][2].shape == (LAYERS, HEADS, len(FEATURES))
    assert sink.rows[0][2][0, 0, FEATURES.index("entropy")] == np.float32(0.5)
    assert sink.ended == [("engine-1", "c-1")]
    assert made.collect(0, everything=True) == ([], []), "no window and no record"
    assert not made.counters
    assert made.canary_counters["canary_rows"] == 2


def test_traffic_in_the_frame_of_a_canary_counts_as_ever() -> None:
    sink = Sink()
    made = Aggregator(WindowConfig(), canaries=sink)
    batch = summary([(10, VALUES, MASS), (11, VALUES, MASS)], request=canary(), finished=["c-1", "r-1"])
    mixed = msgspec.structs.replace(batch, requests=[canary(), context()], row_request=np.array([0, 1], "<i4").tobytes())
    add(made, mixed)
    windows, records = made.collect(0, everything=True)
    assert [record.context.engine_id for record in records] == ["r-1"]
    assert windows[0].rows.tolist() == [1]
    assert (made.counters["rows"], made.counters["head_summaries"]) == (1, LAYERS * HEADS)
    assert len(sink.rows) == 1


def test_without_a_sink_canaries_are_dropped_and_still_count_nowhere() -> None:
    made = Aggregator(WindowConfig())
    add(made, summary([(10, VALUES, MASS)], request=canary(), finished=["c-1"]))
    assert made.collect(0, everything=True) == ([], [])


def test_a_canary_ends_when_every_rank_has_said_so() -> None:
    sink = Sink()
    made = Aggregator(WindowConfig(), canaries=sink)
    ranks = [msgspec.structs.replace(worker(), rank=rank, ranks=2) for rank in (0, 1)]
    for rank in ranks:
        add(made, summary([(10, VALUES, MASS)], request=canary(), finished=["c-1"], identity=rank))
        made.collect(NOW)
        assert len(sink.ended) == rank.rank, "the first rank alone ends nothing"


def test_a_canary_that_falls_silent_is_taken_as_ended() -> None:
    sink = Sink()
    made = Aggregator(WindowConfig(request_idle_seconds=20.0), canaries=sink)
    add(made, summary([(10, VALUES, MASS)], request=canary()))
    made.collect(NOW)
    made.collect(NOW + 20 * SECOND)
    assert sink.ended == []
    made.collect(NOW + 21 * SECOND)
    assert sink.ended == [("engine-1", "c-1")]


def test_canaries_under_way_are_bounded() -> None:
    sink = Sink()
    made = Aggregator(WindowConfig(), canaries=sink)
    for number in range(MAX_OPEN + 2):
        add(made, summary([(10, VALUES, MASS)], request=canary(f"c-{number}")))
    assert len(sink.rows) == MAX_OPEN
    assert made.canary_counters["canary_rows_dropped"] == 2
