"""Text and shapes that clients and engines choose: every exporter takes them as they are."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headwatch.aggregate.evidence import EvidenceQueue
from headwatch.aggregate.windows import Aggregator
from headwatch.config import EvidenceConfig, OtlpConfig, PrometheusConfig, StoreConfig, WindowConfig
from headwatch.errors import ExportError
from headwatch.wire.columns import view
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.otlp import OtlpExporter
from headwatch_exporters.prometheus import PrometheusExporter

from ..traffic import RECENT_NS, delivery, worker
from ..unit import frames

ROUTES = ["it's \"a\"\n\\ route\t{}", "'; DROP TABLE headwatch_requests; --", "näïve-✓", "nul\0", "x" * 10_000, " "]


@pytest.fixture
def store(tmp_path):
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{tmp_path}/store"))
    yield exporter
    exporter.close()


@pytest.fixture
def prometheus():
    exporter = PrometheusExporter(PrometheusConfig())
    yield exporter
    exporter.close()


def counted(exporter):
    """Return how many requests ``/metrics`` shows by route."""
    families = text_string_to_metric_families(exporter.render(None)[0].decode())
    samples = [sample for family in families for sample in family.samples]
    found = {}
    for sample in samples:
        if sample.name == "headwatch_grounding_requests_total":
            route = sample.labels["headwatch_route"]
            found[route] = found.get(route, 0) + sample.value
    return found


@pytest.mark.store
def test_names_come_back_from_the_store_as_they_were_given(store):
    """Quotes, line breaks, NUL and other scripts; nothing in them is taken for SQL."""
    for number, route in enumerate(ROUTES):
        store.export(delivery(number, route=route, arm=route, start_ns=RECENT_NS))
    reader = store.reader()
    assert [arm["arm"] for arm in reader.arms()] == ROUTES
    for route in ROUTES:
        assert [row["route"] for row in reader.requests(arm=route, route=route)] == [route] * 3
        assert reader.heads(arm=route)["requests"] == 3
        assert reader.documents(arm=route)[0]["requests"] == 2


def test_names_come_back_from_metrics_as_they_were_given(prometheus):
    """The exposition escapes what its format needs escaped."""
    for number, route in enumerate(ROUTES):
        prometheus.export(delivery(number, route=route))
    assert counted(prometheus) == dict.fromkeys(ROUTES, 3)


@pytest.mark.store
def test_single_rows_are_found_under_the_names_that_they_were_given(store):
    """A client chooses the id of its request; it is bound as a value and comes back as it was."""
    kept = EvidenceQueue(EvidenceConfig())
    aggregator = Aggregator(WindowConfig(), {}, kept)
    for number, name in enumerate(ROUTES):
        item = msgspec.structs.replace(frames.context(name, route=name), request_id=name)
        batch = frames.detailed(3, request=item, sequence=number, time_ns=RECENT_NS)
        aggregator.add(batch, view(batch))
    store.export(replace(delivery(start_ns=RECENT_NS), rows=kept.take()))
    for name in ROUTES:
        found = store.row_reader().rows(name)
        assert [(row.request_id, row.engine_id, row.position) for row in found] == [(name, name, 10), (name, name, 11)]


@pytest.mark.store
def test_engines_of_other_shapes_come_along(store, prometheus):
    """A second engine, and the same model loaded with other layers."""
    for number, (layers, heads) in enumerate(((6, 4), (3, 8), (1, 1))):
        sent = delivery(number, identity=worker(f"engine-{number}", layers, heads), start_ns=RECENT_NS)
        assert store.export(sent) > 0
        assert prometheus.export(sent) > 0
    assert store.reader().counts()["requests"] == 9
    assert sum(counted(prometheus).values()) == 9
    assert store.reader().heads()["heads"] == 8


@pytest.mark.store
def test_a_table_that_somebody_dropped_is_an_export_error(store):
    """One line, with the table's name."""
    store._connection.command("DROP TABLE headwatch_requests")
    with pytest.raises(ExportError, match="insert into headwatch_requests") as caught:
        store.export(delivery())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_password_in_the_otlp_endpoint_is_in_no_error(protocol: str) -> None:
    """The error is shown on /api/v1/status, which asks nobody who he is."""
    path = "/v1/metrics" if protocol == "http" else ""
    config = OtlpConfig(endpoint=f"http://me:hunter2@127.0.0.1:1{path}", protocol=protocol, timeout_seconds=1.0)  # type: ignore[arg-type]
    exporter = OtlpExporter(config)
    with pytest.raises(ExportError) as failure:
        exporter.export(delivery())
    exporter.close()
    assert "hunter2" not in str(failure.value)
    assert "***" in str(failure.value)
