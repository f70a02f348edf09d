"""Sums and gauges: what workers, ingest and the exporters say of themselves, how requests ended, and what was found.

Counts of a worker are cumulative since that worker started, all others since the first delivery; a point says which.  So a
reader can tell a counter that was reset from one that went wrong.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from headwatch.metrics import (
    ATTR_EXPORTER,
    ATTR_MODEL,
    ATTR_RANK,
    ATTR_REASON,
    ATTR_ROUTE,
    ATTR_STATE,
    ATTR_TABLE,
    metric,
)
from headwatch_exporters.findings import Findings
from headwatch_exporters.label_limit import LabelLimit
from headwatch_exporters.overhead import Overhead
from headwatch_exporters.points import Point, Source, engine_source, sidecar_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.health import Health, SpoolHealth, WorkerHealth
    from headwatch.records import Delivery

SILENT_NS = 15_000_000_000
"""A worker that has not reported for so long is down, whatever it said last."""
FRONT_END = "front_end"
"""Stands for a rank in errors of request fields, which are found before any rank sees the request."""


class Totals:
    """Counts requests and errors.  A delivery that is given again (a retry) is not counted again."""

    def __init__(self) -> None:
        self.route = LabelLimit()
        self._requests: Counter[tuple[Source, str, str, str]] = Counter()
        self._errors: Counter[tuple[Source, str, str]] = Counter()
        self._overhead = Overhead()
        self._findings = Findings()
        self._sidecar = sidecar_source()
        self._start_ns = 0
        self._last_ns = -1

    def points(self, delivery: Delivery) -> list[Point]:
        """Return the sums and gauges after *delivery*; none where nothing was ever reported."""
        self._start_ns = self._start_ns or delivery.time_ns
        if delivery.time_ns != self._last_ns:
            self._last_ns = delivery.time_ns
            for record in delivery.requests:
                source, model = engine_source(record.worker), record.worker.model
                self._requests[source, model, self.route(record.context.route), record.state] += 1
                for reason in record.context.errors:
                    self._errors[source, model, reason] += 1
        return [
            *self._counted(delivery.time_ns),
            *(
                point
                for worker in delivery.health.workers
                for point in _worker(worker, self._overhead(worker.status), delivery.time_ns)
            ),
            *self._sidecar_points(delivery.health, delivery.time_ns),
            *(
                _point(name, attributes, value, self._start_ns, delivery.time_ns, self._sidecar)
                for name, attributes, value in self._findings.values(delivery)
            ),
        ]

    def _counted(self, now_ns: int) -> Iterator[Point]:
        for (source, model, route, state), count in self._requests.items():
            attributes = {ATTR_MODEL: model, ATTR_ROUTE: route, ATTR_STATE: state}
            yield _point("grounding.requests", attributes, count, self._start_ns, now_ns, source)
        for (source, model, reason), count in self._errors.items():
            attributes = {ATTR_MODEL: model, ATTR_RANK: FRONT_END, ATTR_REASON: reason}
            yield _point("capture.errors", attributes, count, self._start_ns, now_ns, source)

    def _sidecar_points(self, health: Health, now_ns: int) -> Iterator[Point]:
        def point(name: str, attributes: dict[str, str], value: float) -> Point:
            return _point(name, attributes, value, self._start_ns, now_ns, self._sidecar)

        if health.ingest:
            yield point("ingest.frames", {}, health.ingest.get("frames", 0))
            yield point("ingest.head_summaries", {}, health.ingest.get("head_summaries", 0))
            yield point("ingest.thinned", {}, health.ingest.get("thinned_head_summaries", 0))
            yield point("ingest.thinning", {}, health.thinning)
            yield point("ingest.late_rows", {}, health.ingest.get("late_rows", 0))
            yield point("ingest.evidence_rows", {}, health.ingest.get("evidence_rows", 0))
            yield point("ingest.canary_rows", {}, health.ingest.get("canary_rows", 0))
            yield point("ingest.canary_dropped", {}, health.ingest.get("canary_rows_dropped", 0))
        for name, count in health.ingest.items():
            if name.startswith("rejected."):
                yield point("ingest.rejected", {ATTR_REASON: name.removeprefix("rejected.")}, count)
            elif name.startswith("evidence_dropped."):
                yield point("ingest.evidence_dropped", {ATTR_REASON: name.removeprefix("evidence_dropped.")}, count)
        for name, attributes, value in _named(health):
            yield point(name, attributes, value)
        for name, exporter in health.exporters.items():
            attributes = {ATTR_EXPORTER: name}
            yield point("exporter.up", attributes, exporter.up)
            yield point("exporter.points", attributes, exporter.exported_points)
            yield point("exporter.dropped", attributes, exporter.dropped_batches)
            yield point("exporter.errors", attributes, exporter.errors)
            yield point("exporter.duration", attributes, exporter.last_duration_seconds)
            yield point("exporter.queue", attributes, exporter.queue_batches)
            if exporter.spool is not None:
                for name_, attributes_, value in _spool(exporter.spool, now_ns):
                    yield point(name_, attributes_, value)


def _named(health: Health) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield counts of reads by how they ended, and of texts by what became of them."""
    for state, count in health.reads.items():
        yield "endpoint.reads", {ATTR_STATE: state}, count
    for name, count in health.texts.items():
        if name == "kept":
            yield "text.kept", {}, count
        else:
            yield "text.refused", {ATTR_REASON: name.removeprefix("refused.")}, count


def _spool(spool: SpoolHealth, now_ns: int) -> Iterator[tuple[str, dict[str, str], float]]:
    yield "spool.bytes", {}, spool.disk_bytes
    yield "spool.limit", {}, spool.max_bytes
    yield "spool.records", {}, spool.records
    yield "spool.age", {}, spool.age_seconds(now_ns)
    yield "spool.sent", {}, spool.sent_batches
    yield "spool.aside", {}, spool.aside_batches
    for name, counts in (("spool.dropped", spool.dropped_rows), ("spool.dropped_batches", spool.dropped_batches)):
        for key, count in counts.items():
            reason, _, table = key.partition(":")
            yield name, {ATTR_REASON: reason, ATTR_TABLE: table}, count
    for reason, count in spool.errors.items():
        yield "spool.errors", {ATTR_REASON: reason}, count


def _worker(worker: WorkerHealth, overhead: float, now_ns: int) -> Iterator[Point]:
    status = worker.status
    source = engine_source(status.worker)
    base = {ATTR_MODEL: status.worker.model, ATTR_RANK: str(status.worker.rank)}

    def point(name: str, value: float, **extra: str) -> Point:
        return _point(name, {**base, **extra}, value, status.worker.start_ns, now_ns, source)

    yield point("capture.up", status.up and now_ns - worker.received_ns < SILENT_NS)
    for state in ("planned", "sent", "dropped", "refused", "thinned"):
        yield point("capture.rows", status.counters.get(f"rows_{state}", 0), **{ATTR_STATE: state})
    yield point("capture.dropped", status.counters.get("frames_dropped", 0))
    for reason, count in status.errors.items():
        yield point("capture.errors", count, **{ATTR_REASON: reason})
    for name, count in status.counters.items():
        if name.startswith("detail_reduced."):
            yield point("capture.detail_reduced", count, **{ATTR_REASON: name.removeprefix("detail_reduced.")})
    yield point("capture.duration", status.capture_seconds)
    yield point("capture.overhead", overhead)
    yield point("capture.stride", status.budget_stride)
    yield point("capture.refused_layers", len(status.refused_layers))
    yield point("ingest.missing", worker.frames_missing)
    yield point("ingest.clock_skew", worker.clock_skew_seconds)


def _point(name: str, attributes: dict[str, str], value: float, start_ns: int, now_ns: int, source: Source) -> Point:
    return Point(metric(name), attributes, start_ns, now_ns, float(value), source)
