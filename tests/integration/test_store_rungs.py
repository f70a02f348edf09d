"""Windows of heads in the store: typed, rolled up, each once, whoever wrote them into the Collector's table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headwatch.config import StoreConfig
from headwatch_exporters.clickhouse.columns.metrics import window_columns
from headwatch_exporters.clickhouse.connection import Connection, connect
from headwatch_exporters.clickhouse.schema import create_tables

from ..contract.deliveries import FIXED_NS, full, wide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch_exporters.clickhouse.columns import Columns

pytestmark = pytest.mark.store

BASE = "otel_metrics_exp_histogram"
RUNGS = ("headwatch_heads_1m", "headwatch_heads_10m", "headwatch_heads_1h", "headwatch_heads_1d")
KEPT = dict.fromkeys(StoreConfig().ttl_days(), 100_000)
"""Long enough for windows of the year 2027 on any machine's clock."""


class Store:
    """One store for all tests, emptied before each; a token is good for one test."""

    def __init__(self, connection: Connection) -> None:
        self.query, self.command = connection.query, connection.command
        self._connection = connection
        self._test = 0

    def emptied(self) -> Store:
        for table in (BASE, *RUNGS):
            self.command(f"TRUNCATE TABLE {table}")
        self._test += 1
        return self

    def insert(self, table: str, columns: Columns, token: str) -> None:
        self._connection.insert(table, columns, f"{self._test}:{token}")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    config = StoreConfig(url=f"chdb://{tmp_path_factory.mktemp('rungs')}/store", **KEPT)
    connection = connect(config)
    create_tables(connection, config)
    yield Store(connection)
    connection.close()


@pytest.fixture
def store(opened: Store) -> Store:
    return opened.emptied()


def tally(store: Store, table: str) -> tuple[int, int, float]:
    """Return values by weight, values by bucket, and the sum of all values."""
    (row,) = store.query(
        f"SELECT sum(weight) AS weight, sum(arraySum(buckets) + zero_count) AS counted, sum(total) AS total FROM {table}"
    )
    return int(row["weight"]), int(row["counted"]), float(row["total"])


def point(**changed: Any) -> dict[str, list[Any]]:
    """Return one series of one head as a Collector may write it."""
    row: dict[str, Any] = {
        "ResourceAttributes": {"service.instance.id": "e"}, "ServiceName": "vllm", "MetricName": "headwatch.attention.lookback",
        "Attributes": {"headwatch.layer": "3", "headwatch.head": "7", "headwatch.stratum": "s", "gen_ai.request.model": "m"},
        "StartTimeUnix": FIXED_NS, "TimeUnix": FIXED_NS + 60 * 10**9, "Count": 6, "Sum": 2.4, "Scale": 3, "ZeroCount": 0,
        "PositiveOffset": -13, "PositiveBucketCounts": [1, 2, 0, 3], "NegativeOffset": 0, "NegativeBucketCounts": [],
        "Min": 0.3, "Max": 0.5, "AggregationTemporality": 1,
    }  # fmt: skip
    return {name: [value] for name, value in {**row, **changed}.items()}


def test_a_window_is_in_every_rung_with_all_its_values(store: Store):
    (window,) = wide(FIXED_NS).windows
    store.insert(BASE, window_columns(window, "vllm"), "w")
    weight = int(window.weight.sum())
    for rung in RUNGS:
        found = tally(store, rung)
        assert found[:2] == (weight, weight)
        assert found[2] == pytest.approx(float(window.total.sum()), rel=1e-5)


def test_a_mean_comes_back_within_the_error_that_the_table_states(store: Store):
    (window,) = wide(FIXED_NS).windows
    store.insert(BASE, window_columns(window, "vllm"), "w")
    rows = store.query("SELECT layer, head, mean FROM headwatch_heads_1m WHERE feature = 'entropy' ORDER BY layer, head")
    wanted = (window.total / window.weight)[0, window.features.index("entropy")].reshape(-1)
    error = np.abs(np.array([row["mean"] for row in rows]) / wanted - 1)
    assert error.max() < 3.4e-4
    assert error.max() > 3.4e-6, "a code that loses nothing would not be a code"


def test_buckets_of_a_rung_are_those_of_its_windows_added_up(store: Store):
    """Three windows of one hour; every quantile is that of all their values, to the width of a bucket."""
    rng = np.random.default_rng(1)
    deliveries = [wide(FIXED_NS + number * 60 * 10**9) for number in range(3)]
    for number, delivery in enumerate(deliveries):
        store.insert(BASE, window_columns(delivery.windows[0], "vllm"), f"w{number}")
    store.command("OPTIMIZE TABLE headwatch_heads_1h FINAL")
    head = (int(rng.integers(40)), int(rng.integers(50)))
    (row,) = store.query(
        f"SELECT sumForEach(buckets) AS b FROM headwatch_heads_1h "
        f"WHERE feature = 'lookback' AND layer = {head[0]} AND head = {head[1]}"
    )
    wanted = [0] * 64
    for delivery in deliveries:
        (window,) = delivery.windows
        buckets = window.buckets[0, window.features.index("lookback"), head[0], head[1]]
        for place in np.flatnonzero(buckets):
            wanted[int(place) // 2] += int(buckets[place])
    assert list(row["b"]) == wanted


def test_what_is_written_again_is_there_once(store: Store):
    columns = window_columns(full(FIXED_NS).windows[0], "vllm")
    for _ in range(3):
        store.insert(BASE, columns, "w")
    (row,) = store.query(f"SELECT sum(Count) AS weight FROM {BASE}")
    assert {tally(store, rung)[0] for rung in RUNGS} == {row["weight"]}
    store.insert(BASE, columns, "another")
    assert {tally(store, rung)[0] for rung in RUNGS} == {2 * row["weight"]}


@pytest.mark.parametrize("lost", ["headwatch_head_points_view", "headwatch_heads_1m_view", "headwatch_heads_1h_view"])
def test_a_kill_between_table_and_view_is_repaired_by_the_next_attempt(store: Store, lost: str):
    """A view that did not run stands for a process that died before it; the batch was not acknowledged and comes again."""
    columns = window_columns(full(FIXED_NS).windows[0], "vllm")
    store.command(f"DETACH TABLE {lost}")
    store.insert(BASE, columns, "w")
    assert len({tally(store, rung)[0] for rung in RUNGS}) == (1 if lost == "headwatch_head_points_view" else 2)
    store.command(f"ATTACH TABLE {lost}")
    store.insert(BASE, columns, "w")
    (row,) = store.query(f"SELECT sum(Count) AS weight FROM {BASE}")
    assert {tally(store, rung)[0] for rung in RUNGS} == {row["weight"]}


@pytest.mark.parametrize(
    ("changed", "buckets", "zero"),
    [
        ({}, {-7: 1, -6: 2, -5: 3}, 0),  # -13 … -10 of scale 3: the upper half of -7, both of -6, the lower half of -5
        ({"Scale": 4, "PositiveOffset": -26, "PositiveBucketCounts": [1, 1, 1, 1, 1, 1]}, {-7: 2, -6: 4}, 0),
        ({"Scale": 20, "PositiveOffset": -3, "PositiveBucketCounts": [1, 2, 3]}, {-1: 6}, 0),
        ({"Scale": 2, "PositiveOffset": -6, "PositiveBucketCounts": [6]}, {-6: 6}, 0),
        ({"Scale": 1, "PositiveOffset": -3, "PositiveBucketCounts": [4, 2]}, {-5: 4, -3: 2}, 0),
        ({"Scale": 0, "PositiveOffset": -2, "PositiveBucketCounts": [6]}, {-6: 6}, 0),
        ({"PositiveBucketCounts": [], "ZeroCount": 6}, {}, 6),
        ({"PositiveOffset": -1, "PositiveBucketCounts": [1, 5]}, {-1: 6}, 0),  # above 1
        ({"PositiveOffset": -130, "PositiveBucketCounts": [1, 1, 1, 3], "ZeroCount": 1}, {-64: 4}, 3),  # below 2^-16
        ({"Scale": 2, "PositiveOffset": -66, "PositiveBucketCounts": [1, 1, 4]}, {-64: 4}, 2),
        ({"Scale": 0, "PositiveOffset": -17, "PositiveBucketCounts": [1, 5]}, {-62: 5}, 1),
    ],
)
def test_a_histogram_of_any_scale_lands_in_our_buckets(
    store: Store, changed: dict[str, Any], buckets: dict[int, int], zero: int
):
    store.insert(BASE, point(**changed), "p")
    (row,) = store.query("SELECT buckets, zero_count, layer, head, instance, model, stratum FROM headwatch_heads_1m")
    assert {place - 64: count for place, count in enumerate(row["buckets"]) if count} == buckets
    assert row["zero_count"] == zero
    assert (row["layer"], row["head"], row["instance"], row["model"], row["stratum"]) == (3, 7, "e", "m", "s")
    assert store.query("SELECT buckets FROM headwatch_heads_1d")[0]["buckets"] == row["buckets"]


@pytest.mark.parametrize(
    "changed",
    [
        {"AggregationTemporality": 2},
        {"Scale": -1},
        {"Scale": 21},
        {"Count": 0},
        {"MetricName": "headwatch.grounding.ratio"},
        {"Attributes": {"headwatch.layer": "3"}},
    ],
)
def test_what_is_no_delta_of_a_head_stays_in_the_collectors_table_alone(store: Store, changed: dict[str, Any]):
    store.insert(BASE, point(**changed), "p")
    assert store.query(f"SELECT count() AS rows FROM {BASE}") == [{"rows": 1}]
    assert {tally(store, rung)[0] for rung in RUNGS} == {0}


@pytest.mark.parametrize(
    "changed",
    [
        {"Sum": float("nan")},
        {"Sum": float("inf")},
        {"Sum": -1.0},
        {"Attributes": {"headwatch.layer": "x", "headwatch.head": "-9"}},
        {"PositiveOffset": 2**31 - 1, "Scale": 20},
        {"PositiveOffset": -(2**31), "Scale": 20},
        {"PositiveBucketCounts": [2**64 - 1, 1]},
        {"PositiveBucketCounts": [0, 0, 0]},
        {"StartTimeUnix": 0},
        {"Count": 2**64 - 1},
    ],
)
def test_nonsense_of_a_collector_is_taken_and_refuses_no_insert(store: Store, changed: dict[str, Any]):
    store.insert(BASE, point(**changed), "p")
    store.insert(BASE, point(), "q")
    assert store.query(f"SELECT count() AS rows FROM {BASE}") == [{"rows": 2}]
