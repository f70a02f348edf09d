"""What a real OTLP receiver understands of what is sent, by gRPC and by HTTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from headwatch import metrics
from headwatch.metrics import (
    ATTR_DOCUMENT_SOURCE,
    ATTR_HEADS,
    ATTR_LAYER_BAND,
    ATTR_MODEL,
    ATTR_PHASE,
    ATTR_RANK,
    ATTR_ROUTE,
    ATTR_STATE,
)
from headwatch_exporters.otlp import OtlpExporter

from ..contract.deliveries import DOCUMENT_MASS, DOCUMENT_SHARES, RATIOS, RETRIEVAL_RATIOS, carried, full
from ..contract.otlp_receiver import ReceivedPoint, receiver
from ..unit.incidents import found

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.peer

NOW_NS = time.time_ns()
NOT_SENT = {"headwatch.attention.worst_lookback", "headwatch.attention.rows"}
"""One belongs to Prometheus; ClickHouse alone needs the other, beside histograms of single heads."""
DID_NOT_HAPPEN = {
    "headwatch.capture.errors", "headwatch.capture.detail_reduced", "headwatch.ingest.evidence_dropped",
    "headwatch.endpoint.reads", "headwatch.text.kept", "headwatch.text.refused", "headwatch.incident.paging",
}  # fmt: skip
VALUE_METRICS = {"headwatch.attention.value_share", "headwatch.attention.output_norm"}
"""Where capture.value_mass is on."""


@pytest.fixture(scope="module", params=["grpc", "http"])
def received(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ReceivedPoint]]:
    folder = tmp_path_factory.mktemp("receiver")
    with receiver(request.getfixturevalue("rotel_binary"), folder) as running:
        exporter = OtlpExporter(running.config(request.param))
        points = running.points(exporter.export(found(full(NOW_NS))))
        exporter.close()
        yield points


def chosen(points: list[ReceivedPoint], name: str, **attributes: str) -> list[ReceivedPoint]:
    wanted = {getattr(metrics, f"ATTR_{key.upper()}"): value for key, value in attributes.items()}
    return [point for point in points if point.name == name and wanted.items() <= point.attributes.items()]


def test_every_metric_arrives_under_its_name_with_its_unit_and_kind(received: list[ReceivedPoint]):
    """What the receiver shows agrees with the table of metrics, and all of the pair's own metrics are there."""
    kinds = {"gauge": "Gauge", "sum": "Sum", "exp_histogram": "ExponentialHistogram"}
    for point in received:
        item = metrics.metric(point.name)
        shown = (point.metric["Description"], point.metric["Unit"], point.metric["DataType"])
        assert shown == (item.description, item.unit, kinds[item.instrument])
    names = {point.name for point in received}
    spool = {item.name for item in metrics.METRICS if item.name.startswith("headwatch.spool.")}  # there is no store here
    assert {item.name for item in metrics.METRICS} - names == NOT_SENT | DID_NOT_HAPPEN | VALUE_METRICS | spool


def test_what_heads_carry_arrives(rotel_binary: str, tmp_path: Path) -> None:
    """Document 1 carries three quarters of what each head moves, and each output has the norm 3."""
    with receiver(rotel_binary, tmp_path) as running:
        exporter = OtlpExporter(running.config("grpc"))
        points = running.points(exporter.export(carried(NOW_NS)))
        exporter.close()
    assert {point.name for point in points} >= VALUE_METRICS
    shares = chosen(points, "headwatch.attention.value_share", span_kind="document")
    assert [float(point.fields["Max"]) for point in shares] == pytest.approx([0.75] * len(shares))
    norms = chosen(points, "headwatch.attention.output_norm")
    assert [float(point.fields["Value"]) for point in norms] == [3.0] * len(norms)
    assert len(shares) == len(norms) == 2, "a layer is a band here"


def test_sums_and_histograms_are_cumulative(received: list[ReceivedPoint]):
    for point in received:
        if point.metric["DataType"] != "Gauge":
            assert point.metric["AggregationTemporality"] == "AGGREGATION_TEMPORALITY_CUMULATIVE"
        if point.metric["DataType"] == "Sum":
            assert point.metric["IsMonotonic"] == "true"
        assert point.fields["Timestamp"] == str(NOW_NS)
        assert int(point.fields["StartTimestamp"]) <= NOW_NS


@pytest.mark.parametrize(("heads", "ratios"), [("all", RATIOS), ("retrieval", RETRIEVAL_RATIOS)])
def test_grounding_ratios_arrive(received: list[ReceivedPoint], heads: str, ratios: tuple[float, ...]):
    """Three requests: their number, sum, range, and each in a bucket around it."""
    (point,) = chosen(received, "headwatch.grounding.ratio", heads=heads)
    assert point.attributes == {ATTR_MODEL: "model", ATTR_ROUTE: "support", ATTR_HEADS: heads}
    assert point.fields["Count"] == "3"
    numbers = [float(point.fields[name]) for name in ("Sum", "Min", "Max")]
    assert numbers == pytest.approx([sum(ratios), min(ratios), max(ratios)])
    for ratio in ratios:
        assert sum(count for (low, high), count in point.buckets.items() if low < ratio <= high) == 1
    assert sum(point.buckets.values()) == 3


def test_documents_and_requests_arrive(received: list[ReceivedPoint]):
    (mass,) = chosen(received, "headwatch.grounding.document_mass")
    assert float(mass.fields["Sum"]) == pytest.approx(3 * DOCUMENT_MASS)
    (share,) = chosen(received, "headwatch.grounding.document_share")
    assert share.attributes[ATTR_DOCUMENT_SOURCE] == "wiki"
    assert (share.fields["Count"], float(share.fields["Max"])) == ("6", pytest.approx(max(DOCUMENT_SHARES)))
    (requests,) = chosen(received, "headwatch.grounding.requests")
    assert (requests.attributes[ATTR_STATE], requests.fields["Value"]) == ("measured", "3")


def test_heads_arrive_merged_into_layer_bands(received: list[ReceivedPoint]):
    """Two layers of three heads, three generated rows: a band of one layer holds nine values of each feature."""
    points = chosen(received, "headwatch.attention.lookback", phase="decode")
    assert {point.attributes[ATTR_LAYER_BAND] for point in points} == {"0-0", "1-1"}
    for point in points:
        assert point.fields["Count"] == "9"
        assert float(point.fields["Sum"]) == pytest.approx(3 * sum(RATIOS))
    assert chosen(received, "headwatch.attention.lookback", phase="prefill") == [], "undefined there, so not sent"
    assert {point.attributes[ATTR_PHASE] for point in chosen(received, "headwatch.attention.entropy")} == {"prefill", "decode"}


def test_each_point_says_which_process_it_describes(received: list[ReceivedPoint]):
    """An engine's points carry its instance and version, those of the sidecar its own."""
    (up,) = chosen(received, "headwatch.capture.up", rank="0")
    assert up.resource == {"service.name": "vllm", "service.instance.id": "engine-1", "service.version": "0.32.0"}
    assert up.fields["Value"] == "1"
    (planned,) = chosen(received, "headwatch.capture.rows", rank="0", state="planned")
    assert planned.fields["Value"] == "5"
    assert int(planned.fields["StartTimestamp"]) == NOW_NS - 60_000_000_000, "a worker's counts start with the worker"
    (frames,) = chosen(received, "headwatch.ingest.frames")
    assert frames.resource["service.instance.id"].endswith("-headwatch")
    assert ATTR_RANK not in frames.attributes
