"""The grounding metrics of requests that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.aggregate.weights import whole_weight
from headwatch.metrics import ATTR_DOCUMENT_SOURCE, ATTR_HEADS, ATTR_MODEL, ATTR_ROUTE, Metric, metric
from headwatch_exporters.label_limit import LabelLimit
from headwatch_exporters.points import Exemplar, Point, Source, engine_source, histogram_of
from headwatch_exporters.provenance import trace_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.records import Delivery, RequestRecord

Attributes = tuple[tuple[str, str], ...]
MAX_EXEMPLARS = 4
"""Of a series in one delivery."""


class Grounding:
    """Turns request records into values and points.  Routes and document sources are bounded."""

    def __init__(self) -> None:
        self.route = LabelLimit()
        self._document_source = LabelLimit()

    def values(self, record: RequestRecord) -> Iterator[tuple[Metric, Attributes, float]]:
        """Yield each value that *record* defines, with its metric and attributes; what is undefined is left out."""
        base = ((ATTR_MODEL, record.worker.model), (ATTR_ROUTE, self.route(record.context.route)))
        for heads, ratio in (("all", record.grounding_ratio), ("retrieval", record.grounding_ratio_retrieval_heads)):
            if ratio is not None:
                yield metric("grounding.ratio"), (*base, (ATTR_HEADS, heads)), ratio
        if record.document_mass is not None:
            yield metric("grounding.document_mass"), base, record.document_mass
        for document, share in zip(record.context.documents, record.document_share, strict=True):
            if share is not None:
                source = self._document_source(document.source)
                yield metric("grounding.document_share"), (*base, (ATTR_DOCUMENT_SOURCE, source)), share

    def points(self, delivery: Delivery) -> list[Point]:
        """Return the histograms of the requests of *delivery*, each counted as often as it stands for."""
        values: dict[tuple[Source, str, Attributes], tuple[list[float], list[int], list[Exemplar]]] = {}
        for record in delivery.requests:
            weight, trace = request_weight(record), trace_of(record)
            for item, attributes, value in self.values(record):
                series = (engine_source(record.worker), item.name, attributes)
                found, weights, exemplars = values.setdefault(series, ([], [], []))
                found.append(value)
                weights.append(weight)
                if trace is not None and len(exemplars) < MAX_EXEMPLARS:
                    exemplars.append(Exemplar(value, record.ended_ns, *trace))
        start_ns = min((record.started_ns for record in delivery.requests), default=delivery.time_ns)
        return [
            Point(
                metric(name), dict(attributes), start_ns, delivery.time_ns, histogram_of(found, weights), source,
                tuple(exemplars),
            )
            for (source, name, attributes), (found, weights, exemplars) in values.items()
        ]


def request_weight(record: RequestRecord) -> int:
    """Return how many requests *record* stands for, a whole number."""
    return whole_weight(record.context.weight, record.context.engine_id)
