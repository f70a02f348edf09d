"""From deliveries to columns, table by table.

Per-head series are built by numpy for a whole window at once: the cells that hold anything become rows, nothing else.
Every insert carries a token made of what it holds, so that a retry, or a replay after a kill, changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch import __version__
from headwatch.metrics import (
    ATTR_CONTEXT_BAND,
    ATTR_HEAD,
    ATTR_LAYER,
    ATTR_MODEL,
    ATTR_PHASE,
    ATTR_ROUTE,
    ATTR_STRATUM,
    head_metric,
)
from headwatch.model import REQUEST_FEATURES
from headwatch_exporters.points import HistogramValue, Point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.model import RequestRecord, WindowBatch

DELTA, CUMULATIVE = 1, 2
"""OpenTelemetry aggregation temporality."""

Columns = dict[str, "Sequence[Any]"]


def window_columns(window: WindowBatch, service: str) -> Columns:
    """Return the rows of *window* for ``otel_metrics_exp_histogram``: one for each stratum, feature, layer and head seen."""
    cells = np.argwhere(window.count > 0)  # [N, 4]
    attributes: list[dict[str, str]] = []
    names, descriptions, units = [], [], []
    metrics = [head_metric(feature) for feature in window.features]
    for stratum, feature, layer, head in cells.tolist():
        item, extra = metrics[feature]
        of = window.strata[stratum]
        attributes.append({
            ATTR_MODEL: of.model, ATTR_STRATUM: of.label, ATTR_ROUTE: of.route, ATTR_PHASE: of.phase,
            ATTR_CONTEXT_BAND: of.context_band, ATTR_LAYER: str(window.layers[layer]), ATTR_HEAD: str(head), **extra,
        })  # fmt: skip
        names.append(item.name)
        descriptions.append(item.description)
        units.append(item.unit)
    index = tuple(cells.T)
    buckets = window.buckets[index]
    first, trimmed = _trim(buckets)
    rows = len(cells)
    return {
        **_common(service, [window.worker.instance] * rows, names, descriptions, units, attributes),
        "StartTimeUnix": [window.start_ns] * rows,
        "TimeUnix": [window.end_ns] * rows,
        "Count": window.count[index].tolist(),
        "Sum": window.total[index].tolist(),
        "Scale": [window.scale] * rows,
        "ZeroCount": window.zero_count[index].tolist(),
        "PositiveOffset": (first + window.offset).tolist(),
        "PositiveBucketCounts": trimmed,
        "NegativeOffset": [0] * rows,
        "NegativeBucketCounts": [[]] * rows,
        "Min": window.minimum[index].astype(float).tolist(),
        "Max": window.maximum[index].astype(float).tolist(),
        "AggregationTemporality": [DELTA] * rows,
    }


def point_columns(points: Sequence[Point], service: str) -> dict[str, Columns]:
    """Return *points* by table."""
    histograms = [point for point in points if isinstance(point.value, HistogramValue)]
    sums = [point for point in points if point.metric.instrument == "sum"]
    gauges = [point for point in points if point.metric.instrument == "gauge"]
    tables: dict[str, Columns] = {}
    for table, chosen in (("gauge", gauges), ("sum", sums), ("exp_histogram", histograms)):
        columns = {
            **_common(
                service, [point.instance for point in chosen], [point.metric.name for point in chosen],
                [point.metric.description for point in chosen], [point.metric.unit for point in chosen],
                [point.attributes for point in chosen],
            ),
            "StartTimeUnix": [point.start_ns for point in chosen],
            "TimeUnix": [point.time_ns for point in chosen],
        }  # fmt: skip
        if table == "exp_histogram":
            columns |= _histogram_columns([point.value for point in chosen if isinstance(point.value, HistogramValue)])
        else:
            columns["Value"] = [point.value for point in chosen]
        if table == "sum":
            columns |= {"AggregationTemporality": [CUMULATIVE] * len(chosen), "IsMonotonic": [True] * len(chosen)}
        tables[f"otel_metrics_{table}"] = columns
    return tables


def request_columns(records: Sequence[RequestRecord], service: str) -> dict[str, Columns]:
    """Return ended requests, their documents and their heads by table."""
    return {
        "headwatch_requests": _requests(records, service),
        "headwatch_documents": _documents(records, service),
        "headwatch_request_heads": _heads(records, service),
    }


def _common(  # noqa: PLR0913, PLR0917 - the columns that every table of the Collector has
    service: str, instances: list[str], names: list[str], descriptions: list[str], units: list[str],
    attributes: list[dict[str, str]],
) -> Columns:
    rows = len(names)
    resource = {"service.name": service, "service.version": __version__}
    return {
        "ResourceAttributes": [
            {**resource, "service.instance.id": instance} if instance else resource for instance in instances
        ],
        "ScopeName": ["headwatch"] * rows,
        "ScopeVersion": [__version__] * rows,
        "ServiceName": [service] * rows,
        "MetricName": names,
        "MetricDescription": descriptions,
        "MetricUnit": units,
        "Attributes": attributes,
    }


def _histogram_columns(values: list[HistogramValue]) -> Columns:
    buckets = np.stack([value.buckets for value in values]) if values else np.zeros((0, 1), np.uint32)
    first, trimmed = _trim(buckets)
    offsets = np.array([value.offset for value in values], np.int64)
    return {
        "Count": [value.count for value in values],
        "Sum": [value.total for value in values],
        "Scale": [value.scale for value in values],
        "ZeroCount": [value.zero_count for value in values],
        "PositiveOffset": (first + offsets).tolist(),
        "PositiveBucketCounts": trimmed,
        "NegativeOffset": [0] * len(values),
        "NegativeBucketCounts": [[]] * len(values),
        "Min": [value.minimum for value in values],
        "Max": [value.maximum for value in values],
        "AggregationTemporality": [DELTA] * len(values),
    }


def _trim(buckets: np.ndarray[Any, np.dtype[np.uint32]]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[list[int]]]:
    """Return for each row of *buckets* the first used bucket, and the counts from there to the last used one."""
    used = buckets > 0
    first = used.argmax(axis=1)
    last = buckets.shape[1] - used[:, ::-1].argmax(axis=1)
    last[~used.any(axis=1)] = 0
    bounds = zip(buckets, first.tolist(), last.tolist(), strict=True)
    return first, [row[low:high].tolist() for row, low, high in bounds]


def _requests(records: Sequence[RequestRecord], service: str) -> Columns:
    return {
        "time": [record.ended_ns for record in records],
        "service": [service] * len(records),
        "instance": [record.worker.instance for record in records],
        "model": [record.worker.model for record in records],
        "revision": [record.worker.revision for record in records],
        "adapter": [record.context.adapter for record in records],
        "route": [record.context.route for record in records],
        "arm": [record.context.arm for record in records],
        "request_id": [record.context.request_id for record in records],
        "engine_id": [record.context.engine_id for record in records],
        "trace_id": [record.context.trace_id for record in records],
        "prompt_tokens": [record.context.prompt_tokens for record in records],
        "rows_prefill": [record.rows_prefill for record in records],
        "rows_decode": [record.rows_decode for record in records],
        "state": [record.state for record in records],
        "grounding_ratio": [record.grounding_ratio for record in records],
        "grounding_ratio_retrieval_heads": [record.grounding_ratio_retrieval_heads for record in records],
        "document_mass": [record.document_mass for record in records],
        "undefined": [record.undefined for record in records],
        "documents": [len(record.context.documents) for record in records],
        "documents_found": [sum(document.found for document in record.context.documents) for record in records],
        "errors": [record.context.errors for record in records],
        "duration_seconds": [(record.ended_ns - record.started_ns) / 1e9 for record in records],
    }


def _documents(records: Sequence[RequestRecord], service: str) -> Columns:
    rows = [
        (record, rank, document, share, sum(s.end - s.start for s in record.context.spans if s.document == rank))
        for record in records
        for rank, (document, share) in enumerate(zip(record.context.documents, record.document_share, strict=True))
    ]
    return {
        "time": [record.ended_ns for record, *_ in rows],
        "service": [service] * len(rows),
        "model": [record.worker.model for record, *_ in rows],
        "route": [record.context.route for record, *_ in rows],
        "arm": [record.context.arm for record, *_ in rows],
        "request_id": [record.context.request_id for record, *_ in rows],
        "engine_id": [record.context.engine_id for record, *_ in rows],
        "rank": [rank for _, rank, *_ in rows],
        "document_id": [document.id for _, _, document, *_ in rows],
        "kind": [document.kind for _, _, document, *_ in rows],
        "source": [document.source for _, _, document, *_ in rows],
        "version": [document.version for _, _, document, *_ in rows],
        "retrieved_at": [document.retrieved_at for _, _, document, *_ in rows],
        "labels": [document.labels for _, _, document, *_ in rows],
        "found": [document.found for _, _, document, *_ in rows],
        "share": [share for _, _, _, share, _ in rows],
        "tokens": [tokens for *_, tokens in rows],
    }


def _heads(records: Sequence[RequestRecord], service: str) -> Columns:
    records = [record for record in records if record.rows_decode]
    columns: Columns = {
        name: [] for name in ("time", "service", "model", "route", "arm", "request_id", "engine_id", "layer", "head")
    }
    values: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    for record in records:
        _, layers, heads = record.head_means.shape
        cells = layers * heads
        for name, value in (
            ("time", record.ended_ns), ("service", service), ("model", record.worker.model),
            ("route", record.context.route), ("arm", record.context.arm), ("request_id", record.context.request_id),
            ("engine_id", record.context.engine_id),
        ):  # fmt: skip
            columns[name] = [*columns[name], *([value] * cells)]
        columns["layer"] = [*columns["layer"], *np.repeat(np.arange(layers), heads).tolist()]
        columns["head"] = [*columns["head"], *np.tile(np.arange(heads), layers).tolist()]
        values.append(record.head_means.reshape(len(REQUEST_FEATURES), cells))
    joined = np.concatenate(values, axis=1) if values else np.zeros((len(REQUEST_FEATURES), 0), np.float32)
    return columns | {name: joined[number].tolist() for number, name in enumerate(REQUEST_FEATURES)}
