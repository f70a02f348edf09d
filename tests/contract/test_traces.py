"""Requests in their callers' traces, as a real OTLP receiver understands them: spans, events, exemplars."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from headwatch.config import OtlpConfig
from headwatch.errors import ExportError
from headwatch_exporters.otlp import OtlpExporter
from headwatch_exporters.provenance import span_id_of, trace_of
from headwatch_exporters.traces import TraceExporter

from .deliveries import full
from .otlp_receiver import free_ports, receiver

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.records import Delivery

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def traced(trace_ids: tuple[str, ...], parent: str = SPAN) -> Delivery:
    """Return a delivery whose three requests came with *trace_ids*."""
    delivery = full(time.time_ns())
    records = [
        replace(record, context=msgspec.structs.replace(record.context, trace_id=trace, parent_span_id=parent))
        for record, trace in zip(delivery.requests, trace_ids, strict=True)
    ]
    return replace(delivery, requests=tuple(records))


@pytest.mark.peer
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_is_a_span_of_its_callers_trace(protocol: Any, rotel_binary: Path, tmp_path: Path) -> None:
    delivery = traced((TRACE, "", "no trace id"))
    with receiver(rotel_binary, tmp_path, shows="traces") as running:
        path = "/v1/traces" if protocol == "http" else ""
        endpoint = f"http://127.0.0.1:{running.ports[protocol]}{path}"
        exporter = TraceExporter(OtlpConfig(traces_endpoint=endpoint, protocol=protocol, timeout_seconds=5.0))
        assert [exporter.export(delivery), exporter.export(delivery)] == [1, 1]
        text = running.printed(2, r"^Span #0")
        exporter.close()
    assert re.findall(r"Trace ID +: (\w+)", text) == [TRACE] * 2
    assert re.findall(r"Parent ID +: (\w+)", text) == [SPAN] * 2
    assert re.findall(r"^    ID +: (\w+)", text, re.MULTILINE) == [f"{span_id_of(delivery.requests[0]):016x}"] * 2, "one span"
    for line in (
        "gen_ai.request.model: Str(model)", "gen_ai.usage.input_tokens: Int(10)", "headwatch.grounding.state: Str(measured)",
        "headwatch.grounding.ratio: Double(0.21)", "headwatch.document.id: Str(d1)", "headwatch.document.share: Double(0.25)",
    ):
        assert line in text
    assert "service.instance.id: Str(engine-1)" in text


@pytest.mark.peer
def test_grounding_histograms_carry_exemplars(rotel_binary: Path, tmp_path: Path) -> None:
    with receiver(rotel_binary, tmp_path) as running:
        exporter = OtlpExporter(running.config("grpc"))
        exporter.export(traced((TRACE, "", "0" * 32)))
        text = running.printed(4, r"^Exemplar #0\n.*\n.*\n.*\n +-> Value: .*\n")  # a ratio, its retrieval heads, mass, share
        exporter.close()
    assert set(re.findall(r"-> Trace ID: (\w*)", text)) == {TRACE}
    assert re.search(rf"-> Trace ID: {TRACE}\n +-> Span ID: {SPAN}\n.*\n +-> Value: 0.21", text)


@pytest.mark.parametrize(
    ("trace", "parent", "expected"),
    [
        (TRACE, SPAN, (int(TRACE, 16), int(SPAN, 16))), (TRACE, "junk", None), ("", SPAN, None),
        ("0" * 32, SPAN, None), (TRACE.upper(), SPAN, None), (TRACE + "0", SPAN, None), (TRACE[:-1] + "\n", SPAN, None),
    ],
)
def test_only_a_real_trace_is_taken(trace: str, parent: str, expected: tuple[int, int] | None) -> None:
    delivery = traced((trace, trace, trace), parent)
    assert {trace_of(record) for record in delivery.requests} == {expected}
    spans = {span_id_of(record) for record in delivery.requests}
    assert len(spans) == 3
    assert all(0 < span < 2**64 for span in spans)


def test_no_span_needs_no_receiver_and_one_that_is_away_is_an_error() -> None:
    (port,) = free_ports(1)
    exporter = TraceExporter(OtlpConfig(traces_endpoint=f"http://127.0.0.1:{port}", timeout_seconds=1.0))
    assert exporter.export(full()) == 0
    with pytest.raises(ExportError, match=f"127.0.0.1:{port} cannot be reached"):
        exporter.export(traced((TRACE, TRACE, TRACE)))
    exporter.close()
