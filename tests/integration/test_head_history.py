"""Windows of heads read back: means, quantiles and courses are those of the values that went in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from headwatch.bench import store_data
from headwatch.config import StoreConfig
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticView
from headwatch.errors import StoreError
from headwatch.health import Health
from headwatch.records import HeadScope
from headwatch_exporters.clickhouse.columns.metrics import window_columns
from headwatch_exporters.clickhouse.connection import connect
from headwatch_exporters.clickhouse.reading.head_history import RUNGS, HeadHistory, quantiles_of, step_of
from headwatch_exporters.clickhouse.reading.queries import StoreReader
from headwatch_exporters.clickhouse.schema import create_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.records import WindowBatch

pytestmark = pytest.mark.store

START = 1_800_000_000 // 86_400 * 86_400
MINUTES = 40
LAYERS, HEADS = 2, 3
KEPT = dict.fromkeys(StoreConfig().ttl_days(), 100_000)


@pytest.fixture(scope="module")
def windows() -> list[WindowBatch]:
    return list(store_data.windows(LAYERS, HEADS, 2, MINUTES, START))


@pytest.fixture(scope="module")
def history(windows: list[WindowBatch], tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadHistory]:
    config = StoreConfig(url=f"chdb://{tmp_path_factory.mktemp('history')}/store", **KEPT)
    connection = connect(config)
    create_tables(connection, config)
    for number, window in enumerate(windows):
        connection.insert("otel_metrics_exp_histogram", window_columns(window, "vllm"), f"w{number}")
    yield HeadHistory(connection)
    connection.close()


def scope(last: int = START + MINUTES * 60, **fields: object) -> HeadScope:
    return HeadScope("lookback", START, last, **fields)  # type: ignore[arg-type] # names of its fields


def place(windows: list[WindowBatch]) -> int:
    return windows[0].features.index("lookback")


def test_a_map_has_the_mean_of_every_head(history: HeadHistory, windows: list[WindowBatch]):
    rows = history.map(scope())
    total = sum(window.total[:, place(windows)].sum(0) for window in windows)
    weight = sum(window.weight[:, place(windows)].sum(0) for window in windows)
    assert [(row["layer"], row["head"]) for row in rows] == [(layer, head) for layer in range(2) for head in range(3)]
    assert [row["mean"] for row in rows] == pytest.approx((total / weight).reshape(-1).tolist(), rel=4e-4)
    assert [row["values"] for row in rows] == weight.reshape(-1).tolist()


@pytest.mark.parametrize("step", RUNGS)
def test_every_rung_has_the_same_course(history: HeadHistory, windows: list[WindowBatch], step: int):
    rows = history.course(scope(), step, by="stratum")
    assert sum(row["values"] for row in rows) == sum(int(window.weight[:, place(windows)].sum()) for window in windows)
    assert {row["at"] for row in rows} == {START + number * 60 // step * step for number in range(MINUTES)}
    mean = sum(row["mean"] * row["values"] for row in rows) / sum(row["values"] for row in rows)
    total = sum(float(window.total[:, place(windows)].sum()) for window in windows)
    assert mean == pytest.approx(total / sum(row["values"] for row in rows), rel=4e-4)


def test_a_quantile_lies_within_a_bucket_of_the_true_one(history: HeadHistory, windows: list[WindowBatch]):
    chosen = (0.05, 0.5, 0.95)
    (row,) = [row for row in history.quantile_map(scope(), chosen) if (row["layer"], row["head"]) == (1, 2)]
    buckets = sum(window.buckets[:, place(windows), 1, 2].sum(0).astype(np.int64) for window in windows)
    for quantile, found in zip(chosen, row["quantiles"], strict=True):
        fine = int(np.searchsorted(np.cumsum(buckets), quantile * buckets.sum()))
        low, high = 2.0 ** ((fine - 128) / 8), 2.0 ** ((fine - 127) / 8)
        assert low * 2**-0.125 <= found <= high * 2**0.125


def test_scopes_narrow(history: HeadHistory):
    everything = sum(row["values"] for row in history.map(scope()))
    parts = [sum(row["values"] for row in history.map(scope(phase=phase))) for phase in ("decode", "prefill")]
    assert sum(parts) == everything
    assert min(parts) > 0
    assert history.map(scope(instance="another")) == history.map(scope(route="'; DROP TABLE x")) == []
    assert {row["layer"] for row in history.map(scope(layer=1))} == {1}
    assert len(history.groups(scope(), "layer")) == LAYERS
    assert sum(history.distribution(scope())) == everything


def alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what equals *rows* but for the order in which threads add floats up."""
    return [{key: pytest.approx(value, rel=1e-9) if isinstance(value, float | list) else value for key, value in row.items()}
            for row in rows]  # fmt: skip


def test_the_api_answers_with_maps_and_courses_and_quantiles_of_either(history: HeadHistory):
    last = START + MINUTES * 60
    view = StaticView(Health(0, (), {}, {}), reader=StoreReader(history._connection))
    server = HttpServer(create_app(view), "127.0.0.1", 0)
    server.start()

    def rows(**given: Any) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{server.port}/api/v1/heads/history"
        answer = httpx.get(url, params={"from": START, "to": last, **given})
        assert answer.status_code == 200, answer.text
        return answer.json()["rows"]

    try:
        assert rows() == alike(history.map(scope()))
        assert rows(layer=1, head=2, phase="decode") == alike(history.map(scope(layer=1, head=2, phase="decode")))
        assert rows(quantiles="0.1,0.9") == alike(history.quantile_map(scope(), (0.1, 0.9)))
        assert len(rows(step=600)) == MINUTES / 10
        assert rows(step=600) == alike(history.course(scope(), 600))
        assert rows(step=600, quantiles="0.5") == alike(history.quantile_course(scope(), 600, (0.5,)))
        assert rows(service="'; DROP TABLE headwatch_heads_1m") == []
        assert rows() == alike(history.map(scope()))
    finally:
        server.stop()


def test_moved_heads_come_with_both_means(history: HeadHistory):
    rows = history.moved(scope(), START + 1200, limit=3)
    assert len(rows) == 3
    assert [row["octaves"] for row in rows] == sorted((row["octaves"] for row in rows), reverse=True)
    assert all(row["octaves"] == pytest.approx(abs(math.log2(row["after"] / row["before"]))) for row in rows)


@pytest.mark.parametrize(
    ("seconds", "step"), [(600, 60), (3600, 60), (5 * 3600, 600), (30 * 3600, 3600), (29 * 86_400, 3600), (30 * 86_400, 86_400)]
)
def test_the_rung_is_the_coarsest_with_thirty_steps(seconds: int, step: int):
    assert step_of(HeadScope("entropy", 0, seconds)) == step


def test_what_is_not_known_is_one_clear_line(history: HeadHistory):
    with pytest.raises(StoreError, match="unknown feature 'count\\(\\)'; known: entropy"):
        history.map(HeadScope("count()", 0, 60))
    with pytest.raises(StoreError, match="unknown column 'b00'; known: instance"):
        history.groups(scope(), "b00")
    with pytest.raises(StoreError, match="is empty"):
        history.map(HeadScope("entropy", 60, 60))
    with pytest.raises(StoreError, match="give numbers from 0 to 1"):
        history.quantile_map(scope(), (1.5,))


def test_quantiles_of_counts():
    """Ten zeros and ten values in the last bucket, (2^-0.25, 1]."""
    counts = [10, *[0] * 63, 10]
    assert quantiles_of(counts, (0.25, 0.5, 0.75, 1.0)) == pytest.approx([0.0, 0.0, 2**-0.125, 1.0])
    assert math.isnan(quantiles_of([0] * 65, (0.5,))[0])


def test_a_step_that_no_rung_is_has_the_values_of_its_own_time(history: HeadHistory):
    """One value a minute, which is a thousandth of its number."""
    history._connection.command(
        f"INSERT INTO headwatch_head_points SELECT toDateTime({START} + number * 60, 'UTC'), 's', 'steps', 'm', 'st', 'r', "
        "'p', 'c', 'entropy', 0, 0, 1, number / 1000, 0, arrayMap(x -> toUInt64(x = 10), range(64)) FROM numbers(360)"
    )
    for step in (660, 1800, 5400):
        rows = history.course(HeadScope("entropy", START, START + 6 * 3600, instance="steps"), step)
        minutes = [[n for n in range(360) if (START + 60 * n) // step == row["at"] // step] for row in rows]
        assert [row["values"] for row in rows] == [len(each) for each in minutes]
        means = [sum(each) / len(each) / 1000 for each in minutes]
        assert [row["mean"] for row in rows] == pytest.approx(means, rel=4e-4)
