"""The low-cardinality data points of a delivery: what OTLP and the narrow part of the store are given.

Histograms are deltas over what the delivery carries; sums are cumulative since the exporter started.  Heads are merged
into layer bands: exact, since all histograms share their buckets.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.histogram import OFFSET, SCALE, HistogramBlock
from headwatch.metrics import (
    ATTR_CONTEXT_BAND,
    ATTR_DOCUMENT_SOURCE,
    ATTR_EXPORTER,
    ATTR_HEADS,
    ATTR_LAYER_BAND,
    ATTR_MODEL,
    ATTR_PHASE,
    ATTR_RANK,
    ATTR_REASON,
    ATTR_ROUTE,
    ATTR_STATE,
    Metric,
    head_metric,
    metric,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from headwatch.model import Delivery, Health, RequestRecord, WindowBatch, WorkerHealth

SILENT_NS = 15_000_000_000
"""A worker that has not reported for so long is down, whatever it said last."""


@dataclass(frozen=True, slots=True)
class HistogramValue:
    """One exponential histogram."""

    count: int
    total: float
    minimum: float
    maximum: float
    zero_count: int
    buckets: NDArray[np.uint32]
    scale: int = SCALE
    offset: int = OFFSET


@dataclass(frozen=True, slots=True)
class Point:
    """One data point."""

    metric: Metric
    attributes: dict[str, str]
    start_ns: int
    time_ns: int
    value: float | HistogramValue
    instance: str = ""
    """``service.instance.id`` of the engine that it speaks of; empty for the sidecar's own."""


def histogram_of(values: list[float]) -> HistogramValue:
    """Return the histogram of *values*, of which there is at least one."""
    block = HistogramBlock(1)
    block.observe(np.array(values, np.float32)[:, None])
    return HistogramValue(
        int(block.count[0]), float(block.total[0]), float(block.minimum[0]), float(block.maximum[0]),
        int(block.zero_count[0]), block.buckets[0],
    )  # fmt: skip


def request_values(record: RequestRecord) -> Iterator[tuple[Metric, tuple[tuple[str, str], ...], float]]:
    """Yield each defined value of a request with its metric and attributes."""
    base = ((ATTR_MODEL, record.worker.model), (ATTR_ROUTE, record.context.route))
    for heads, ratio in (("all", record.grounding_ratio), ("retrieval", record.grounding_ratio_retrieval_heads)):
        if ratio is not None:
            yield metric("grounding.ratio"), (*base, (ATTR_HEADS, heads)), ratio
    if record.document_mass is not None:
        yield metric("grounding.document_mass"), base, record.document_mass
    for document, share in zip(record.context.documents, record.document_share, strict=True):
        if share is not None:
            yield metric("grounding.document_share"), (*base, (ATTR_DOCUMENT_SOURCE, document.source)), share


def request_points(delivery: Delivery) -> list[Point]:
    """Return the grounding histograms of the requests that ended."""
    values: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[float]] = {}
    for record in delivery.requests:
        for item, attributes, value in request_values(record):
            values.setdefault((record.worker.instance, item.name, attributes), []).append(value)
    start = min((record.started_ns for record in delivery.requests), default=delivery.time_ns)
    return [
        Point(metric(name), dict(attributes), start, delivery.time_ns, histogram_of(found), instance)
        for (instance, name, attributes), found in values.items()
    ]


def band_points(window: WindowBatch, bands: int) -> list[Point]:
    """Return the window's histograms, merged over the heads of each of *bands* layer bands."""
    points = []
    for place, stratum in enumerate(window.strata):
        for band, layers in layer_bands(len(window.layers), bands):
            for number, feature in enumerate(window.features):
                cell = (place, number, layers)
                count = int(window.count[cell].sum())
                if not count:
                    continue
                item, extra = head_metric(feature)
                attributes = {
                    ATTR_MODEL: stratum.model, ATTR_ROUTE: stratum.route, ATTR_PHASE: stratum.phase,
                    ATTR_CONTEXT_BAND: stratum.context_band, ATTR_LAYER_BAND: band, **extra,
                }  # fmt: skip
                value = HistogramValue(
                    count, float(window.total[cell].sum()), float(np.nanmin(window.minimum[cell])),
                    float(np.nanmax(window.maximum[cell])), int(window.zero_count[cell].sum()),
                    window.buckets[cell].sum(axis=(0, 1), dtype=np.uint32), window.scale, window.offset,
                )  # fmt: skip
                points.append(Point(item, attributes, window.start_ns, window.end_ns, value, window.worker.instance))
    return points


def layer_bands(layers: int, bands: int) -> list[tuple[str, slice]]:
    """Return at most *bands* runs of layers of about equal size, named by their first and last layer."""
    if not layers:
        return []
    edges: list[int] = np.unique(np.linspace(0, layers, min(bands, layers) + 1).round().astype(int)).tolist()
    return [(f"{low}-{high - 1}", slice(low, high)) for low, high in pairwise(edges)]


class Totals:
    """Counts since the exporter started.  Safe to be given the same delivery again (a retry)."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()
        self._start_ns = 0
        self._last: Delivery | None = None

    def points(self, delivery: Delivery) -> list[Point]:
        """Return the sums and gauges after *delivery*."""
        self._start_ns = self._start_ns or delivery.time_ns
        if delivery is not self._last:
            self._last = delivery
            for record in delivery.requests:
                self._requests[record.worker.model, record.context.route, record.state] += 1
                for reason in record.context.errors:
                    self._errors[record.worker.model, reason] += 1
        return [*self._request_counts(delivery.time_ns), *self.health_points(delivery.health)]

    def health_points(self, health: Health) -> Iterator[Point]:
        """Yield the points of workers, ingest and exporters."""
        now = health.time_ns
        for worker in health.workers:
            yield from self._worker(worker, now)
        for name, label in (("frames", "ingest.frames"), ("head_summaries", "ingest.head_summaries"),
                            ("late_rows", "ingest.late_rows")):
            yield self._point(label, {}, health.ingest.get(name, 0), now)
        for name, count in health.ingest.items():
            if name.startswith("rejected."):
                yield self._point("ingest.rejected", {ATTR_REASON: name.removeprefix("rejected.")}, count, now)
        for name, item in health.exporters.items():
            attributes = {ATTR_EXPORTER: name}
            yield self._point("exporter.up", attributes, item.up, now)
            yield self._point("exporter.points", attributes, item.exported_points, now)
            yield self._point("exporter.dropped", attributes, item.dropped_batches, now)
            yield self._point("exporter.errors", attributes, item.errors, now)
            yield self._point("exporter.duration", attributes, item.last_duration_seconds, now)
            yield self._point("exporter.queue", attributes, item.queue_batches, now)

    def _request_counts(self, now: int) -> Iterator[Point]:
        for (model, route, state), count in self._requests.items():
            yield self._point("grounding.requests", {ATTR_MODEL: model, ATTR_ROUTE: route, ATTR_STATE: state}, count, now)
        for (model, reason), count in self._errors.items():
            yield self._point(
                "capture.errors", {ATTR_MODEL: model, ATTR_RANK: "front_end", ATTR_REASON: reason}, count, now
            )

    def _worker(self, worker: WorkerHealth, now: int) -> Iterator[Point]:
        status = worker.status
        attributes = {ATTR_MODEL: status.worker.model, ATTR_RANK: str(status.worker.rank)}

        def point(name: str, value: float, **extra: str) -> Point:
            labels = {**attributes, **{_EXTRA[key]: text for key, text in extra.items()}}
            # A worker counts from its own start: a restarted sidecar must not make that look like growth.
            return Point(metric(name), labels, status.worker.start_ns, now, float(value), status.worker.instance)

        yield point("capture.up", status.up and now - worker.received_ns < SILENT_NS)
        for state in ("planned", "sent", "dropped", "refused"):
            yield point("capture.rows", status.counters.get(f"rows_{state}", 0), state=state)
        yield point("capture.dropped", status.counters.get("frames_dropped", 0))
        for reason, count in status.errors.items():
            yield point("capture.errors", count, reason=reason)
        yield point("capture.duration", status.capture_seconds)
        yield point("capture.overhead", status.capture_seconds / status.step_seconds if status.step_seconds else 0.0)
        yield point("capture.refused_layers", len(status.refused_layers))
        yield point("ingest.missing", worker.frames_missing)
        yield point("ingest.clock_skew", worker.clock_skew_seconds)

    def _point(self, name: str, attributes: dict[str, str], value: float, now: int) -> Point:
        return Point(metric(name), attributes, self._start_ns or now, now, float(value))


_EXTRA = {"state": ATTR_STATE, "reason": ATTR_REASON}
