"""Sampled requests as spans in the caller's own trace, by OTLP, where a ``traceparent`` came in.

One span a request, a child of the span that asked, from the first sampled row to the end; an event for each document.
Attributes of the GenAI conventions where they have one, ``headwatch.…`` where they do not.  Ids are made from the request, so
a delivery that is sent twice makes no second span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch import __version__
from headwatch.addresses import mask_url
from headwatch.errors import ConfigError, ExportError
from headwatch_exporters.points import engine_source
from headwatch_exporters.provenance import document_facts, flags, request_facts, span_id_of, trace_of

if TYPE_CHECKING:
    from headwatch.config import OtlpConfig
    from headwatch.records import Delivery, RequestRecord

SPAN_NAME = "headwatch.request"
DOCUMENT_EVENT = "headwatch.document"
_SAMPLED = 1


class TraceExporter:
    """Sends spans to an OTLP receiver."""

    name = "otlp_traces"

    def __init__(self, config: OtlpConfig) -> None:
        """Prepare the connection; the receiver is first needed by :meth:`export`.

        Raises:
            ConfigError: The OpenTelemetry libraries are not installed.
        """
        self._address = mask_url(config.traces_endpoint)
        try:
            self._exporter = _sdk_exporter(config)
        except ImportError as error:
            raise ConfigError(f"otlp.traces_endpoint needs {error.name}; run: pip install 'headwatch[sidecar]'") from error

    def export(self, delivery: Delivery) -> int:
        """Send a span for each request of *delivery* that came with a trace, and return how many.

        Raises:
            ExportError: The receiver cannot be reached or refuses.
        """
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 - heavy; only where traces are on

        spans = [span for record in delivery.requests if (span := _span(record, delivery.service)) is not None]
        if not spans:
            return 0
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # the SDK's transports have no common root
            raise ExportError(f"OTLP receiver {self._address}: {error}") from error
        if result is not SpanExportResult.SUCCESS:
            raise ExportError(f"OTLP receiver {self._address} cannot be reached or refused the spans")
        return len(spans)

    def close(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()


def _span(record: RequestRecord, service: str) -> Any:
    """Return the span of *record*; None where its caller sent no trace."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - heavy; only where traces are on
    from opentelemetry.sdk.trace import Event, ReadableSpan  # noqa: PLC0415 - the same
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415 - the same
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - the same

    trace = trace_of(record)
    if trace is None:
        return None
    trace_id, parent = trace
    sampled = TraceFlags(_SAMPLED)
    return ReadableSpan(
        SPAN_NAME,
        context=SpanContext(trace_id, span_id_of(record), is_remote=False, trace_flags=sampled),
        parent=SpanContext(trace_id, parent, is_remote=True, trace_flags=sampled),
        resource=Resource(engine_source(record.worker).resource(service)),
        attributes=_attributes(record, service),
        events=[
            Event(DOCUMENT_EVENT, _flat("headwatch.document", facts), record.ended_ns) for facts in document_facts(record)
        ],
        start_time=record.started_ns,
        end_time=max(record.ended_ns, record.started_ns),
        instrumentation_scope=InstrumentationScope("headwatch", __version__),
    )


def _attributes(record: RequestRecord, service: str) -> dict[str, Any]:
    facts = request_facts(record, service)
    own = {name: facts[name] for name in ("revision", "adapter", "route", "arm", "language", "template", "grounding")}
    return {
        "gen_ai.operation.name": "chat" if record.context.request_id.startswith("chatcmpl-") else "text_completion",
        "gen_ai.request.model": record.worker.model,
        "gen_ai.response.id": record.context.request_id,
        "gen_ai.usage.input_tokens": record.context.prompt_tokens,
        **_flat("headwatch", own),
        "headwatch.flags": flags(record),
    }


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return *values* as attributes: nested names joined by dots, without what is null."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            made |= _flat(f"{prefix}.{name}", value)
        elif value is not None:
            made[f"{prefix}.{name}"] = value
    return made


def _sdk_exporter(config: OtlpConfig) -> Any:
    """Return the SDK's exporter.  It retries by itself, for at most ``timeout_seconds``."""
    if config.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - one of two

        return OTLPSpanExporter(
            endpoint=config.traces_endpoint, insecure=config.insecure, timeout=config.timeout_seconds,
        )  # fmt: skip
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415 - one of two

    return http.OTLPSpanExporter(endpoint=config.traces_endpoint, timeout=config.timeout_seconds)
