"""Single rows and what heads move, in the real store: what is read back is what was sent, once, as long as configured."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from headwatch.aggregate.evidence import EvidenceQueue
from headwatch.aggregate.windows import Aggregator
from headwatch.config import Config, EvidenceConfig, HttpConfig, StoreConfig, WindowConfig, WireConfig
from headwatch.health import Health
from headwatch.model import HEAD_FEATURES, Span
from headwatch.pipeline import Sidecar
from headwatch.records import Delivery
from headwatch.wire.columns import view
from headwatch.wire.mass_code import RELATIVE_ERROR
from headwatch_exporters.clickhouse.columns.share_code import LARGEST_ERROR
from headwatch_exporters.clickhouse.connection import connect
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.schema_files import migrations

from ..unit.frames import HEADS, LAYERS, context, detailed, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.model import SummaryBatch

pytestmark = pytest.mark.store

NOW_NS = time.time_ns()


def delivered(*batches: SummaryBatch) -> Delivery:
    kept = EvidenceQueue(EvidenceConfig())
    aggregator = Aggregator(WindowConfig(), {}, kept)
    for batch in batches:
        aggregator.add(batch, view(batch))
    windows, requests = aggregator.collect(NOW_NS, everything=True)
    return Delivery(NOW_NS, "vllm", tuple(windows), tuple(requests), Health(NOW_NS, (), {}, {}), kept.take())


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[ClickHouseExporter]:
    opened = ClickHouseExporter.open(StoreConfig(url=f"chdb://{tmp_path}/store"))
    yield opened
    opened.close()


def rows(exporter: ClickHouseExporter, sql: str) -> list[dict[str, Any]]:
    return exporter._connection.query(sql)


def test_a_whole_row_comes_back_as_arrays_with_the_spans_of_its_prompt(exporter: ClickHouseExporter):
    exporter.export(delivered(detailed(4, time_ns=NOW_NS)))
    first, second = exporter.row_reader().rows("r-1")
    assert (first.position, second.position) == (10, 11)
    assert (first.request_id, first.prompt_tokens, first.layers, first.head_offset) == ("r", 10, (0, 1), 0)
    assert first.spans == tuple(context().spans)
    assert first.features.shape == (LAYERS, HEADS, 6)
    np.testing.assert_allclose(first.span_mass, 0.2, atol=LARGEST_ERROR)
    assert first.value_mass is not None
    np.testing.assert_allclose(first.value_mass[:, 0, 0], [0.0, 0.0, 1.5, 0.0, 0.5])
    np.testing.assert_allclose(first.output_norm, np.full((LAYERS, HEADS), 3.0))
    np.testing.assert_allclose(first.block_mass[:, 1, 2], [4 / 11, 4 / 11, 3 / 11], rtol=RELATIVE_ERROR)
    assert first.top_position is not None
    assert first.top_weight is not None
    assert first.full_weight is not None
    assert second.full_weight is not None
    assert first.top_position[1, 2].tolist() == [0, 1]
    np.testing.assert_allclose(first.top_weight, np.full((LAYERS, HEADS, 2), 1 / 11), rtol=1e-6)
    assert (first.full_weight.shape, second.full_weight.shape) == ((11, LAYERS, HEADS), (12, LAYERS, HEADS))
    np.testing.assert_allclose(first.full_weight, 1 / 11, rtol=1e-3)


def test_columns_that_a_level_lacks_are_none(exporter: ClickHouseExporter):
    exporter.export(delivered(detailed(2, time_ns=NOW_NS, values=False)))
    row = exporter.row_reader().rows("r-1")[0]
    assert (row.value_mass, row.output_norm, row.top_position, row.top_weight, row.full_weight) == (None,) * 5
    assert row.block_mass.shape == (3, LAYERS, HEADS)


def test_rows_are_read_by_request_and_position(exporter: ClickHouseExporter):
    batches = [detailed(2, positions=(10, 11, 12), request=context(name), time_ns=NOW_NS) for name in ("r-1", "r-2")]
    exporter.export(delivered(*batches))
    reader = exporter.row_reader()
    assert [row.position for row in reader.rows("r-2")] == [10, 11, 12]
    assert [row.position for row in reader.rows("r-2", first=11, last=11)] == [11]
    assert [row.position for row in reader.rows("r-2", limit=2)] == [10, 11]
    assert reader.rows("' OR 1 = 1 --") == []


def test_the_documented_sql_reads_what_the_reader_reads(exporter: ClickHouseExporter):
    exporter.export(delivered(detailed(2, time_ns=NOW_NS)))
    page = (Path(__file__).parents[2] / "docs" / "detail.md").read_text()
    (sql,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    found = exporter._connection.query(sql, {"engine_id": "r-1"})
    expected = exporter.row_reader().rows("r-1")
    assert [row["position"] for row in found] == [10, 11]
    for row, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(row["mass"], right.block_mass[:, 0, 2], rtol=1e-6)


def test_a_retry_doubles_no_row(exporter: ClickHouseExporter):
    delivery = delivered(detailed(3, time_ns=NOW_NS))
    exporter.export(delivery)
    exporter.export(delivery)
    assert rows(exporter, "SELECT count() AS n FROM headwatch_rows") == [{"n": 2}]


def test_numbers_that_a_peer_made_up_do_not_cost_the_delivery(exporter: ClickHouseExporter):
    """Spans come from outside; whatever they say, the rows beside them are written."""
    spans = [Span("system", -5, 2**63 - 1, -(2**40), 2**50), Span("document", 2, -(2**50), 0), *context().spans[2:]]
    wild = msgspec.structs.replace(context(), spans=spans)
    exporter.export(delivered(detailed(2, request=wild, time_ns=NOW_NS, finished=["r-1"])))
    assert rows(exporter, "SELECT max(tokens) AS most FROM headwatch_documents") == [{"most": 3}]
    row = exporter.row_reader().rows("r-1")[0]
    assert row.spans[0] == Span("system", 0, 2**32 - 1, -1, 2**32 - 1)


def test_rows_have_a_time_to_live_of_their_own(tmp_path: Path):
    config = StoreConfig(url=f"chdb://{tmp_path}/store", row_ttl_days=3, evidence_ttl_days=40)
    exporter = ClickHouseExporter.open(config)
    (found,) = rows(exporter, "SELECT engine_full FROM system.tables WHERE name = 'headwatch_rows'")
    exporter.close()
    assert "toIntervalDay(3)" in found["engine_full"]


def test_what_heads_move_is_kept_for_windows_and_requests(exporter: ClickHouseExporter):
    """Document 1 carries 1.5 of 2, and every head's output has the norm 3."""
    exporter.export(delivered(detailed(1, time_ns=NOW_NS, finished=["r-1"])))
    shares = rows(
        exporter,
        """SELECT Attributes['headwatch.span.kind'] AS kind, sum(Sum) / sum(Count) AS share FROM otel_metrics_exp_histogram
           WHERE MetricName = 'headwatch.attention.value_share' GROUP BY kind ORDER BY kind""",
    )
    assert {row["kind"]: round(row["share"], 6) for row in shares} == {
        "document": 0.75, "generated": 0.25, "system": 0.0, "user": 0.0,
    }  # fmt: skip
    norms = rows(
        exporter,
        """SELECT Attributes['headwatch.layer'] AS layer, Attributes['headwatch.head'] AS head, Value FROM otel_metrics_gauge
           WHERE MetricName = 'headwatch.attention.output_norm' ORDER BY layer, head""",
    )
    assert [row["Value"] for row in norms] == [3.0] * LAYERS * HEADS
    assert len({(row["layer"], row["head"]) for row in norms}) == LAYERS * HEADS
    reader = exporter.reader()
    assert reader.heads(feature="document_value_share")["mean"] == [[pytest.approx(0.75)] * HEADS] * LAYERS
    assert reader.heads(feature="output_norm")["mean"] == [[3.0] * HEADS] * LAYERS
    assert set(HEAD_FEATURES) >= {"document_value_share", "output_norm"}


def test_what_was_not_measured_is_nan_and_read_as_none(exporter: ClickHouseExporter):
    exporter.export(delivered(summary([(10, {"lookback": 0.5}, [0.2] * 5)], time_ns=NOW_NS, finished=["r-1"])))
    assert exporter.reader().heads(feature="output_norm")["mean"] == [[None] * HEADS] * LAYERS


def test_a_store_of_the_version_before_gets_the_columns_that_it_lacks(tmp_path: Path):
    """Its rows stay, and read as "not measured"."""
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    before = connect(config)
    for step in migrations()[0].steps:
        for statement in step.statements(config):
            if step.table != "headwatch_rows":
                before.command("\n".join(line for line in statement.splitlines() if not line.startswith(
                    ("    document_value_share", "    output_norm")
                )).replace("document_mass Float32 CODEC(ZSTD(1)),\n)", "document_mass Float32 CODEC(ZSTD(1))\n)"))
    before.command("INSERT INTO headwatch_request_heads (time, engine_id, lookback) VALUES (now64(9), 'old', 0.5)")
    before.close()
    exporter = ClickHouseExporter.open(config)
    try:
        exporter.export(delivered(detailed(2, time_ns=NOW_NS, finished=["r-1"])))
        names = "SELECT name FROM system.columns WHERE table = 'headwatch_request_heads' ORDER BY position"
        assert [row["name"] for row in rows(exporter, names)][-3:] == ["document_mass", "document_value_share", "output_norm"]
        sql = "SELECT lookback, isNaN(output_norm) AS nan FROM headwatch_request_heads WHERE engine_id = 'old'"
        (old,) = rows(exporter, sql)
        assert old == {"lookback": 0.5, "nan": 1}
        assert len(exporter.row_reader().rows("r-1")) == 2
    finally:
        exporter.close()


@pytest.mark.alone
def test_sixteen_whole_rows_of_a_megabyte_are_written_within_a_second(exporter: ClickHouseExporter):
    (row, _) = delivered(detailed(4, time_ns=NOW_NS)).rows
    noise = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
    large = tuple(replace(row, position=number, full_weight=noise) for number in range(16))
    started = time.monotonic()
    exporter.export(Delivery(NOW_NS, "vllm", (), (), Health(NOW_NS, (), {}, {}), large))
    assert time.monotonic() - started < 1.0


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    made = Sidecar(Config(
        wire=WireConfig(endpoint=f"ipc://{tmp_path}/frames", control_endpoint=f"ipc://{tmp_path}/control"),
        http=HttpConfig(port=0),
        store=StoreConfig(url=f"chdb://{tmp_path}/store"),
    ))  # fmt: skip
    made.start()
    yield made
    made.stop()


def test_rows_go_through_the_sidecar_before_their_request_ends(sidecar: Sidecar):
    batch = detailed(3, time_ns=time.time_ns())
    sidecar._consume(batch, view(batch))
    sidecar.tick()
    store = sidecar._store_thread
    assert store is not None
    deadline = time.monotonic() + 20
    while store.health().exported_batches < 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [row.position for row in store._exporter.row_reader().rows("r-1")] == [10, 11]  # type: ignore[attr-defined]
    assert sidecar.health().ingest["evidence_rows"] == 2


def test_rows_wait_while_the_store_is_behind_and_are_counted_where_they_find_no_room(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
):
    """Nothing piles up in the queue of a store that does not answer: memory is bounded by ``evidence.max_bytes``."""
    store, seen = sidecar._store_thread, []
    assert store is not None
    monkeypatch.setattr(store, "offer", lambda delivery: seen.append(len(delivery.rows)))
    health = replace(store.health(), queue_batches=4)
    monkeypatch.setattr(store, "health", lambda: health)
    batch = detailed(3, time_ns=time.time_ns())
    sidecar._consume(batch, view(batch))
    sidecar._last_delivery = 0.0
    sidecar.tick()
    assert seen == [0]
    monkeypatch.setattr(store, "health", lambda: replace(health, queue_batches=0))
    sidecar.tick()
    assert seen == [0, 2]
