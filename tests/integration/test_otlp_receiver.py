"""OTLP reaches a real receiver, over gRPC and over HTTP, with the names and values that were measured."""

from __future__ import annotations

import re

import pytest

from headwatch.config import OtlpConfig
from headwatch_exporters.otlp import OtlpExporter

from ..contract.deliveries import delivery, worker
from ..otlp_receiver import receiving

pytestmark = pytest.mark.peer

_METRIC = re.compile(r"^Metric #\d+$", re.MULTILINE)
_POINT = re.compile(r"^\w+DataPoints #\d+$", re.MULTILINE)
_FIELD = re.compile(r"^(\w+): (\S+)$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"-> ([\w.]+): Str\((.*)\)$", re.MULTILINE)


def points(text, name, **wanted):
    """Return the printed data points of the metric *name* whose attributes include *wanted* (``_`` stands for ``.``)."""
    found = []
    for resource in text.split("ResourceMetrics #")[1:]:
        head, *metrics = _METRIC.split(resource)
        for metric in metrics:
            description, *printed = _POINT.split(metric)
            if f"Name: {name}\n" not in description:
                continue
            for point in printed:
                attributes = dict(_ATTRIBUTE.findall(point))
                if wanted.items() <= {key.replace(".", "_"): value for key, value in attributes.items()}.items():
                    values = {key: float(value) for key, value in _FIELD.findall(point)}
                    found.append({**dict(_ATTRIBUTE.findall(head)), **attributes, **values, "about": description})
    return found


@pytest.fixture(scope="module", params=["grpc", "http"])
def printed(request, tmp_path_factory):
    """What the receiver printed of two deliveries of one engine, and of one of a second engine."""
    with receiving(tmp_path_factory.mktemp("otlp")) as receiver:
        exporter = OtlpExporter(OtlpConfig(endpoint=getattr(receiver, request.param), protocol=request.param))
        for number in (0, 1):
            assert exporter.export(delivery(number)) > 100
        exporter.export(delivery(2, identity=worker("engine-2")))
        exporter.close()
        receiver.wait_for("service.instance.id: Str(engine-2)")
        yield receiver.wait_for("Name: headwatch.exporter.queue")


def test_the_receiver_prints_the_grounding_that_was_measured(printed):
    """The histogram of two requests has the sum of their ratios; the next delivery's contains the first's."""
    ratios = [
        request.grounding_ratio
        for number in (0, 1)
        for request in delivery(number).requests
        if request.grounding_ratio is not None
    ]
    first, second, _ = points(printed, "headwatch.grounding.ratio", headwatch_heads="all")
    assert (first["Count"], second["Count"]) == (2, 4)
    assert first["Sum"] == pytest.approx(sum(ratios[:2]))
    assert second["Sum"] == pytest.approx(sum(ratios))
    assert second["Min"] == pytest.approx(min(ratios))
    assert first["StartTimestamp"] == second["StartTimestamp"] < first["Timestamp"] < second["Timestamp"]
    assert "ExponentialHistogram" in first["about"]
    assert "CUMULATIVE" in first["about"]


def test_sums_are_cumulative_and_monotonic(printed):
    """Requests by state, and the worker's own counters since it started."""
    first, second, _ = points(printed, "headwatch.grounding.requests", headwatch_state="measured")
    assert (first["Value"], second["Value"]) == (2, 4)
    assert "IsMonotonic: true" in first["about"]
    rows = points(printed, "headwatch.capture.rows", headwatch_state="planned")
    assert [row["Value"] for row in rows[:2]] == [18, 36]
    assert rows[0]["StartTimestamp"] == worker().start_ns


def test_heads_are_merged_into_layer_bands(printed):
    """Four bands for six layers, no series of a single head, and no observation lost."""
    window = delivery(0).windows[0]
    lookback = window.features.index("lookback")
    decode = [place for place, stratum in enumerate(window.strata) if stratum.phase == "decode"]
    found = points(printed, "headwatch.attention.lookback", headwatch_phase="decode")[:4]
    assert sorted(point["headwatch.layer_band"] for point in found) == ["0-1", "2-2", "3-3", "4-5"]
    assert sum(point["Count"] for point in found) == window.count[decode, lookback].sum()
    assert sum(point["Sum"] for point in found) == pytest.approx(window.total[decode, lookback].sum())
    assert "headwatch.head:" not in printed


def test_two_engines_are_two_resources(printed):
    """What two engines measure with equal attributes differs by ``service.instance.id``, and stays apart."""
    measured = points(printed, "headwatch.grounding.requests", headwatch_state="measured")
    assert [(point["service.instance.id"], point["Value"]) for point in measured[2:]] == [("engine-1", 4), ("engine-2", 2)]
    assert {point["service.name"] for point in measured} == {"vllm"}


def test_worker_ingest_and_exporters_report(printed):
    """The health of every part is there."""
    assert points(printed, "headwatch.capture.up")[0]["Value"] == 1
    assert points(printed, "headwatch.ingest.rejected", headwatch_reason="magic")[0]["Value"] == 2
    assert points(printed, "headwatch.exporter.up", headwatch_exporter="clickhouse")[0]["Value"] == 1
