"""The store: what is written is what is read back, once, in the Collector's own columns."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from headwatch.config import StoreConfig
from headwatch.errors import BatchRefused, StoreError, StoreUnavailable
from headwatch_exporters.clickhouse.columns.types import column_types
from headwatch_exporters.clickhouse.connection import Connection, connect
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.writing.native import native_blocks
from headwatch_exporters.spool.record import Batch, BatchWriter

from ..clickhouse_http import ClickHouseHttp
from ..contract.deliveries import (
    DOCUMENT_MASS,
    DOCUMENT_SHARES,
    HEAD_STEP,
    RATIOS,
    RETRIEVAL_RATIOS,
    full,
    undefined,
    wide,
)
from ..programs import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.store

NOW_NS = time.time_ns()

_COMMON = (
    "ResourceAttributes ResourceSchemaUrl ScopeName ScopeVersion ScopeAttributes ScopeDroppedAttrCount ScopeSchemaUrl "
    "ServiceName MetricName MetricDescription MetricUnit Attributes StartTimeUnix TimeUnix "
)
_EXEMPLARS = (
    "Exemplars.FilteredAttributes Exemplars.TimeUnix Exemplars.Value Exemplars.SpanId Exemplars.TraceId "
)
COLLECTOR_COLUMNS = {
    "otel_metrics_gauge": _COMMON + "Value Flags " + _EXEMPLARS,
    "otel_metrics_sum": _COMMON + "Value Flags " + _EXEMPLARS + "AggregationTemporality IsMonotonic",
    "otel_metrics_histogram": (
        _COMMON + "Count Sum BucketCounts ExplicitBounds " + _EXEMPLARS + "Flags Min Max AggregationTemporality"
    ),
    "otel_metrics_exp_histogram": (
        _COMMON + "Count Sum Scale ZeroCount PositiveOffset PositiveBucketCounts NegativeOffset NegativeBucketCounts "
        + _EXEMPLARS + "Flags Min Max AggregationTemporality"
    ),
}  # fmt: skip
"""From clickhouseexporter/internal/sqltemplates of the OpenTelemetry Collector, in the order in which it creates them."""


class Store:
    """An open exporter, and SQL beside it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.exporter = ClickHouseExporter.open(StoreConfig(url=url))
        self.reader = self.exporter.reader()

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return self.exporter._connection.query(sql)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"chdb://{tmp_path}/store")
    yield opened
    opened.exporter.close()


@pytest.fixture
def full_store(store: Store) -> Store:
    store.exporter.export(full(NOW_NS))
    return store


def test_an_empty_store_answers(store: Store):
    """Before the first request every read is empty, and none fails."""
    assert set(store.reader.counts().values()) == {0}
    assert (store.reader.arms(), store.reader.requests(), store.reader.documents()) == ([], [], [])
    assert store.reader.heads() == {"feature": "lookback", "layers": [], "heads": 0, "mean": [], "sd": [], "requests": 0}


def test_counts(full_store: Store):
    """Three requests with two documents, two layers of three heads and two sampled rows each."""
    counts = full_store.reader.counts()
    assert {**counts, "otel_rows": 0} == {
        "otel_rows": 0, "requests": 3, "documents": 6, "request_heads": 18, "sampled_rows": 6,
    }  # fmt: skip
    assert counts["otel_rows"] > 0


def test_arms(full_store: Store):
    (arm,) = full_store.reader.arms()
    deviation = 0.1  # of 0.21, 0.31, 0.41
    half = 1.96 * deviation / math.sqrt(3)
    retrieval = sum(RETRIEVAL_RATIOS) / 3
    assert {key: arm[key] for key in ("arm", "requests", "measured", "absent", "unresolved", "sampled_rows")} == {
        "arm": "arm-a", "requests": 3, "measured": 3, "absent": 0, "unresolved": 0, "sampled_rows": 6,
    }  # fmt: skip
    assert arm["grounding_ratio_mean"] == pytest.approx(sum(RATIOS) / 3)
    assert arm["grounding_ratio_ci95"] == pytest.approx([0.31 - half, 0.31 + half])
    assert arm["grounding_ratio_retrieval_heads_mean"] == pytest.approx(retrieval)
    assert arm["grounding_ratio_retrieval_heads_ci95"] == pytest.approx([retrieval - half, retrieval + half])
    assert arm["document_mass_mean"] == pytest.approx(DOCUMENT_MASS)
    assert (arm["first_time_ns"], arm["last_time_ns"]) == (NOW_NS, NOW_NS + 2)
    assert full_store.reader.arms(since_ns=NOW_NS + 3) == []
    assert full_store.reader.arms(since_ns=NOW_NS + 2)[0]["requests"] == 1


def test_a_request_counts_as_much_as_it_stands_for(store: Store):
    """Three requests of which the first was sampled one in ten: means, heads, shares and the histograms weigh it tenfold."""
    delivery = full(NOW_NS)
    first, *others = delivery.requests
    first = replace(first, context=msgspec.structs.replace(first.context, weight=10.0), grounding_ratio=0.9)
    store.exporter.export(replace(delivery, requests=(first, *others), windows=()))
    ratios = [record.grounding_ratio or 0.0 for record in others]
    (arm,) = store.reader.arms()
    assert arm["requests"] == 3
    assert arm["grounding_ratio_mean"] == pytest.approx((9.0 + sum(ratios)) / 12, rel=1e-5)
    assert arm["grounding_ratio_ci95"] is None, "144 / 102 requests of equal weight are less than two"
    (row,) = store.rows(
        "SELECT sum(Count) AS requests, sum(Sum) / sum(Count) AS mean FROM otel_metrics_exp_histogram "
        "WHERE MetricName = 'headwatch.grounding.ratio' AND Attributes['headwatch.heads'] = 'all'"
    )
    assert row == {"requests": 12, "mean": pytest.approx((9.0 + sum(ratios)) / 12, rel=1e-5)}
    means = [float(record.head_means[5, 0, 0]) for record in (first, *others)]
    expected = (10 * means[0] + means[1] + means[2]) / 12
    assert store.reader.heads()["mean"][0][0] == pytest.approx(expected, rel=1e-5)


def test_one_request_has_a_mean_and_no_interval(full_store: Store):
    (arm,) = full_store.reader.arms(since_ns=NOW_NS + 2)
    assert arm["grounding_ratio_mean"] == pytest.approx(RATIOS[2])
    assert arm["grounding_ratio_ci95"] is None


def test_requests_come_newest_first(full_store: Store):
    rows = full_store.reader.requests()
    assert [row["engine_id"] for row in rows] == ["r-2", "r-1", "r-0"]
    newest = rows[0]
    assert newest["grounding_ratio"] == pytest.approx(RATIOS[2])
    assert {name: newest[name] for name in ("service", "instance", "model", "route", "arm", "state", "time_ns")} == {
        "service": "vllm", "instance": "engine-1", "model": "model", "route": "support", "arm": "arm-a",
        "state": "measured", "time_ns": NOW_NS + 2,
    }  # fmt: skip
    assert (newest["prompt_tokens"], newest["rows_prefill"], newest["rows_decode"]) == (10, 1, 1)
    assert (newest["documents"], newest["documents_found"], newest["undefined"], newest["errors"]) == (2, 2, 0, [])
    assert len(full_store.reader.requests(limit=1)) == 1
    assert len(full_store.reader.requests(arm="arm-a", route="support")) == 3
    assert full_store.reader.requests(arm="arm-b") == full_store.reader.requests(route="sales") == []


def test_parameters_are_values_and_never_sql(full_store: Store):
    assert full_store.reader.requests(route="' OR 1 = 1 --") == []
    with pytest.raises(StoreError, match="unknown feature 'count\\(\\)'; known: entropy"):
        full_store.reader.heads(feature="count()")


def test_heads(full_store: Store):
    heads = full_store.reader.heads("arm-a")
    assert (heads["feature"], heads["layers"], heads["heads"], heads["requests"]) == ("lookback", [0, 1], 3, 3)
    means = [0.3 + HEAD_STEP * head for head in range(3)]  # of 0.2, 0.3, 0.4 and the head's own step
    for layer in range(2):
        assert heads["mean"][layer] == pytest.approx(means)
        assert heads["sd"][layer] == pytest.approx([0.1] * 3, abs=1e-6)


def test_documents(full_store: Store):
    """Each of the three requests named both; both were found, one drew three quarters of the attention."""
    rows = full_store.reader.documents()
    shares = dict(zip(("d0", "d1"), DOCUMENT_SHARES, strict=True))
    assert [row["document_id"] for row in rows] == ["d0", "d1"]
    for row in rows:
        assert (row["source"], row["requests"], row["found"]) == ("wiki", 3, 3)
        assert row["share_mean"] == pytest.approx(shares[row["document_id"]])
    tokens = full_store.rows("SELECT DISTINCT document_id, tokens FROM headwatch_documents ORDER BY document_id")
    assert [row["tokens"] for row in tokens] == [3, 3]


def test_undefined_is_null_and_never_zero(store: Store):
    """Means are over the requests that define them; where none does, there is none."""
    store.exporter.export(undefined(NOW_NS))
    (arm,) = store.reader.arms()
    assert (arm["requests"], arm["measured"], arm["absent"], arm["unresolved"]) == (3, 0, 1, 2)
    for name in ("grounding_ratio", "grounding_ratio_retrieval_heads"):
        assert (arm[f"{name}_mean"], arm[f"{name}_ci95"]) == (None, None)
    assert arm["document_mass_mean"] is None
    assert {row["grounding_ratio"] for row in store.reader.requests()} == {None}
    assert {row["share_mean"] for row in store.reader.documents()} == {None}
    assert store.reader.heads()["mean"] == [[None] * 3] * 2
    assert store.reader.counts()["request_heads"] == 12, "the request of which no generated row was sampled has no heads"


def test_writing_a_delivery_again_changes_nothing(full_store: Store):
    """Neither by the exporter that wrote it nor by the next process, which has forgotten that it did."""
    before = full_store.reader.counts()
    full_store.exporter.export(full(NOW_NS))
    assert full_store.reader.counts() == before
    full_store.exporter.close()
    again = Store(full_store.url)
    try:
        assert again.reader.counts() == before, "the store outlives its process"
        again.exporter.export(full(NOW_NS))
        assert again.reader.counts() == before
    finally:
        again.exporter.close()


@pytest.mark.parametrize("table", COLLECTOR_COLUMNS)
def test_tables_have_the_columns_of_the_collector(store: Store, table: str):
    """Whatever reads what the Collector's ClickHouse exporter writes, reads this store."""
    sql = f"SELECT name FROM system.columns WHERE table = '{table}' AND database = currentDatabase() ORDER BY position"
    assert [row["name"] for row in store.rows(sql)] == COLLECTOR_COLUMNS[table].split()


def test_the_types_by_which_a_delivery_is_encoded_are_those_of_the_tables(store: Store):
    """They are taken from our statements, since nothing can be asked while the store is away.  Views fill their own tables."""
    rows = store.rows(
        "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() "
        "AND NOT startsWith(table, 'headwatch_head') AND table != 'headwatch_schema'"
    )
    tables = {(row["table"], row["name"]): row["type"] for row in rows}
    known = {
        (table, name): kind.replace("Boolean", "Bool")
        for table, columns in column_types().items()
        if not table.startswith("headwatch_head")
        for name, kind in columns.items()
    }
    assert len(known) > 150
    assert known == {key: tables[key] for key in known}
    assert {key for key in tables if key not in known and "Exemplars." not in key[1]} == set()


def test_a_column_that_is_not_what_it_should_be_costs_its_batch_alone(store: Store, caplog: pytest.LogCaptureFixture):
    types = store.exporter._types
    store.exporter._types = {**types, "headwatch_requests": {**types["headwatch_requests"], "route": "UInt8"}}
    assert store.exporter.export(full(NOW_NS)) > 0
    counts = store.reader.counts()
    assert (counts["requests"], counts["documents"]) == (0, 6)
    assert store.exporter._losses.rows == {"encode:headwatch_requests": 3}
    assert "a batch of headwatch_requests cannot be written: column route" in caplog.text
    store.exporter._types = {**types, "headwatch_documents": {}}
    store.exporter.export(full(NOW_NS + 1))
    assert (store.reader.counts()["requests"], store.reader.counts()["documents"]) == (3, 6)
    assert "a batch of headwatch_documents cannot be written: no such column: time, " in caplog.text


@pytest.fixture(params=["chdb", "http"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    """A store in this process, and one by URL."""
    if request.param == "chdb":
        opened = connect(StoreConfig(url=f"chdb://{tmp_path}/store"))
        yield opened
        opened.close()
        return
    server = ClickHouseHttp(tmp_path / "server", free_port())
    try:
        server.listen()
        opened = connect(StoreConfig(url=server.url))
        yield opened
        server.refuse()
        with pytest.raises(StoreUnavailable, match="Connection refused"):
            opened.insert_batch(Batch("t", ("a",), "away", 1, 1, b""))
        opened.close()
    finally:
        server.close()


def test_the_store_refuses_a_batch_for_what_it_holds_or_for_now(connection: Connection):
    """What is at fault decides whether it is set aside or sent again."""
    connection.command("CREATE TABLE t (a UInt8, CONSTRAINT small CHECK a < 9) ENGINE = MergeTree ORDER BY a SETTINGS "
                       "parts_to_throw_insert = 3, parts_to_delay_insert = 3, non_replicated_deduplication_window = 10")
    connection.command("SYSTEM STOP MERGES t")

    def batch(values: list[int], token: str, **changes: Any) -> Batch:
        writer = BatchWriter("t", ("a",), token)
        writer.add(len(values), native_blocks({"a": values}, {"a": "UInt8"}))
        return msgspec.structs.replace(writer.batch(), **changes)

    good = batch([1], "t'1")
    for bad in (
        batch([9], "constraint"), batch([1], "cut", block=good.block[:-2]), batch([1], "none", block=b"zstd"),
        batch([1], "column", columns=("b",)), batch([1], "`quoted`", columns=("a`) SELECT 1 --",)),
    ):  # fmt: skip
        with pytest.raises(BatchRefused, match=f"^insert into t on {re.escape(connection.url)} failed: ") as error:
            connection.insert_batch(bad)
        assert "\n" not in str(error.value)
    connection.insert_batch(good)
    connection.insert_batch(batch([1], "t'1"))
    assert connection.query("SELECT count() AS n FROM t") == [{"n": 1}]
    connection.insert_batch(batch([2], "second"))
    connection.insert_batch(batch([3], "third"))
    for later in (batch([3], "parts"), batch([4], "table", table="nowhere")):
        with pytest.raises(StoreError, match="insert into") as refused:
            connection.insert_batch(later)
        assert not isinstance(refused.value, BatchRefused | StoreUnavailable)


def test_the_series_of_a_head(full_store: Store):
    """One row for each head, feature, phase: attributes, resource, and a histogram whose buckets add up."""
    rows = full_store.rows(
        """SELECT * FROM otel_metrics_exp_histogram WHERE MetricName = 'headwatch.attention.lookback'
           ORDER BY Attributes['headwatch.layer'], Attributes['headwatch.head']"""
    )
    assert len(rows) == 6
    row = rows[5]
    assert row["Attributes"] == {
        "gen_ai.request.model": "model", "headwatch.stratum": "model|rev||support|<256|decode",
        "headwatch.route": "support", "headwatch.phase": "decode", "headwatch.context_band": "<256",
        "headwatch.layer": "1", "headwatch.head": "2",
    }  # fmt: skip
    assert row["ResourceAttributes"] == {
        "service.name": "vllm", "service.instance.id": "engine-1", "service.version": "0.32.0",
    }  # fmt: skip
    values = (0.22, 0.32, 0.42)
    assert (row["Count"], sum(row["PositiveBucketCounts"]), row["ZeroCount"]) == (3, 3, 0)
    assert [row["Sum"], row["Min"], row["Max"]] == pytest.approx([sum(values), min(values), max(values)])
    base = 2 ** 2 ** -row["Scale"]
    first, last = row["PositiveOffset"], row["PositiveOffset"] + len(row["PositiveBucketCounts"])
    assert base**first < min(values) <= base ** (first + 1)
    assert base ** (last - 1) < max(values) <= base**last
    assert row["AggregationTemporality"] == 1, "of this window alone"


@pytest.mark.alone
def test_twenty_thousand_heads_are_written_in_seconds(store: Store):
    """A window of a large model: 20,000 series.  Windows come once a minute."""
    delivery = wide(NOW_NS)
    started = time.monotonic()
    assert store.exporter.export(delivery) == 20_001, "and how many rows they rest on"
    assert time.monotonic() - started < 5.0
    (row,) = store.rows("SELECT count() AS rows, sum(Count) AS values FROM otel_metrics_exp_histogram")
    assert row == {"rows": 20_000, "values": 20_000 * 32}


def test_a_second_process_is_told_in_one_line(store: Store):
    """An embedded store belongs to one process: the next one says which store, and what to do."""
    code = (
        "from headwatch.config import StoreConfig\n"
        "from headwatch.errors import StoreError\n"
        "from headwatch_exporters.clickhouse.exporter import ClickHouseExporter\n"
        f"try: ClickHouseExporter.open(StoreConfig(url={store.url!r}))\n"
        "except StoreError as error: print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    (line,) = found.stdout.splitlines()
    path = store.url.removeprefix("chdb://")
    assert line.startswith(f"the store {path} is in use by another process")
    assert "store.url" in line


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///x", "store.url 'sqlite:///x': give chdb:///absolute/path or http"),
        ("http://127.0.0.1:9/headwatch", "cannot open the store http://127.0.0.1:9/headwatch"),
        ("http://me:secret@127.0.0.1:9/headwatch", "cannot open the store http://me:"),
        ("chdb:///proc/nowhere/store", "cannot create the store's folder /proc/nowhere/store"),
    ],
)
def test_a_store_that_cannot_be_opened_is_one_line_without_the_password(url: str, message: str):
    with pytest.raises(StoreError) as error:
        connect(StoreConfig(url=url))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
