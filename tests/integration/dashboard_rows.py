"""Synthetic rows of half an hour, shaped as the store's exporter writes them, for the queries of the dashboard."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

MODEL, SERVICE, INSTANCE = "tiny", "vllm", "engine-1"
LAYERS, HEADS, MINUTES = 3, 4, 30
RESOURCE = {"service.name": SERVICE, "service.instance.id": INSTANCE, "service.version": "0.32.0"}
# Requests a minute; enough for the alert rule, which wants 20 on both sides of the last ten minutes.
REQUESTS_A_MINUTE = 4


def fill(client: Client, now_seconds: int, *, fell: bool = True, seed: int = 7) -> None:
    """Insert 30 minutes of requests, documents, heads and metrics that end at *now_seconds*.

    With *fell*, the grounding of the route ``qa`` falls by several standard deviations in the last ten minutes.
    """
    rng = random.Random(seed)
    requests: list[dict[str, object]] = []
    documents: list[dict[str, object]] = []
    heads: list[dict[str, object]] = []
    for number in range(MINUTES * REQUESTS_A_MINUTE):
        seconds = now_seconds - MINUTES * 60 + number * 60 // REQUESTS_A_MINUTE
        recent = seconds >= now_seconds - 600
        state = "absent" if number % 10 == 9 else "measured"
        level = (0.3 if recent and fell else 0.6) + rng.gauss(0, 0.03)
        common = {
            "time": _time(seconds), "service": SERVICE, "model": MODEL, "route": "qa", "arm": "" if number % 2 else "b",
            "request_id": f"chatcmpl-{number}", "engine_id": f"chatcmpl-{number}-0a1b2c3d",
        }
        measured = state == "measured"
        requests.append({
            **common, "instance": INSTANCE, "revision": "main", "adapter": "", "trace_id": f"{number:032x}",
            "prompt_tokens": 600, "rows_prefill": 1, "rows_decode": 4, "state": state,
            "grounding_ratio": level if measured else None,
            "grounding_ratio_retrieval_heads": level + 0.2 if measured else None,
            "document_mass": level / 2 if measured else None,
            "undefined": 12, "documents": 3 if measured else 0, "documents_found": 3 if measured else 0,
            "errors": ["document_not_in_prompt"] if number % 17 == 0 else [], "duration_seconds": 1.5,
        })
        if measured:
            documents += [
                {**common, "rank": rank, "document_id": f"doc-{rank}", "kind": "document", "source": source,
                 "version": "1", "retrieved_at": "", "labels": {}, "found": True, "share": share, "tokens": 150}
                for rank, (source, share) in enumerate((("wiki", 0.5), ("handbook", 0.3), ("", 0.2)))
            ]
        heads += [
            {**common, "layer": layer, "head": head, "entropy": 0.5, "max_weight": 0.4, "sink_mass": 0.2,
             "local_mass": 0.3, "distance": 0.2, "lookback": level + rng.gauss(0, 0.05) if measured else math.nan,
             "document_mass": 0.3 if measured else math.nan}
            for layer in range(LAYERS) for head in range(HEADS)
        ]
    _insert(client, "headwatch_requests", requests)
    _insert(client, "headwatch_documents", documents)
    _insert(client, "headwatch_request_heads", heads)
    _fill_metrics(client, now_seconds)


def _fill_metrics(client: Client, now_seconds: int) -> None:
    start = now_seconds - MINUTES * 60
    worker = {"gen_ai.request.model": MODEL, "headwatch.rank": "0"}
    gauges, sums, histograms = [], [], []
    for minute in range(MINUTES):
        common = {"ResourceAttributes": RESOURCE, "ServiceName": SERVICE, "StartTimeUnix": _time(start),
                  "TimeUnix": _time(start + (minute + 1) * 60 - 1)}

        def gauge(name: str, value: float, attributes: dict[str, str], common: dict[str, object] = common) -> None:
            gauges.append({**common, "MetricName": name, "Attributes": attributes, "Value": value})

        def total(name: str, value: float, attributes: dict[str, str], common: dict[str, object] = common) -> None:
            sums.append({**common, "MetricName": name, "Attributes": attributes, "Value": value,
                         "AggregationTemporality": 2, "IsMonotonic": True})

        gauge("headwatch.capture.up", 1, worker)
        gauge("headwatch.capture.refused_layers", 0, worker)
        gauge("headwatch.capture.overhead", 0.008, worker)
        for state, rate in (("planned", 40), ("sent", 38), ("dropped", 2), ("refused", 0)):
            total("headwatch.capture.rows", rate * (minute + 1), {**worker, "headwatch.grounding.state": state})
        total("headwatch.capture.dropped", minute, worker)
        total("headwatch.ingest.missing", minute, worker)
        total("headwatch.capture.errors", 2 * minute, {**worker, "headwatch.reason": "document_not_in_prompt"})
        for exporter in ("clickhouse", "prometheus"):
            gauge("headwatch.exporter.up", 1, {"headwatch.exporter": exporter})
            gauge("headwatch.exporter.queue", minute % 3, {"headwatch.exporter": exporter})
            gauge("headwatch.exporter.duration", 0.02, {"headwatch.exporter": exporter})
        histograms += [
            {**common, "MetricName": "headwatch.attention.lookback", "Count": 8, "Sum": 8 * 0.1 * (layer + 1),
             "Scale": 4, "AggregationTemporality": 1,
             "Attributes": {"gen_ai.request.model": MODEL, "headwatch.route": "qa", "headwatch.phase": "decode",
                            "headwatch.context_band": "512-1k", "headwatch.stratum": "tiny|main||qa|512-1k|decode",
                            "headwatch.layer": str(layer), "headwatch.head": str(head)}}
            for layer in range(LAYERS) for head in range(HEADS)
        ]
    _insert(client, "otel_metrics_gauge", gauges)
    _insert(client, "otel_metrics_sum", sums)
    _insert(client, "otel_metrics_exp_histogram", histograms)


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _insert(client: Client, table: str, rows: list[dict[str, object]]) -> None:
    columns = list(rows[0])
    client.insert(table, [[row[column] for column in columns] for row in rows], column_names=columns)
