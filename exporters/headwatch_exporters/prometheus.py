"""``/metrics``: layer bands, the worst heads, grounding by route, and the health of every part.

A collector of our own over the latest state: a scrape reads, and never waits for a window.  Each part of it is collected by
itself, so that one that fails is logged and left out while the rest is served.  Series of the model are merged over the
engines behind this sidecar, those of a worker carry ``service_instance_id``; the number of series is bounded.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from headwatch.metrics import ATTR_HEAD, ATTR_LAYER, ATTR_MODEL, ATTR_RANK, ATTR_ROUTE, metric
from headwatch.model import REQUEST_FEATURES
from headwatch_exporters.grounding import Grounding, request_weight
from headwatch_exporters.layer_bands import band_points, norm_points
from headwatch_exporters.points import HistogramValue
from headwatch_exporters.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray
    from prometheus_client.metrics_core import Metric as Family

    from headwatch.config import PrometheusConfig
    from headwatch.records import Delivery, RequestRecord
    from headwatch_exporters.points import Point

logger = logging.getLogger("headwatch.prometheus")

BOUNDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Buckets of the grounding histograms.  Ratios of healthy traffic lie between 0.1 and 0.6."""
MAX_SERIES = 5_000
"""Band series kept, and as many of grounding; further ones are not shown."""
INSTANCE_LABEL = "service_instance_id"
_LOOKBACK = REQUEST_FEATURES.index("lookback")

Labels = tuple[tuple[str, str], ...]


class PrometheusExporter(Collector):
    """Keeps what ``/metrics`` shows.  Safe from threads."""

    name = "prometheus"

    def __init__(self, config: PrometheusConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._totals = Totals()
        self._values = Grounding()
        self._points: list[Point] = []
        self._grounding: dict[tuple[str, Labels], _Buckets] = {}
        self._bands: dict[tuple[str, Labels], tuple[int, float]] = {}
        self._norms: dict[tuple[str, Labels], float] = {}
        self._heads: dict[tuple[str, str], tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
        self._last_ns = -1
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def export(self, delivery: Delivery) -> int:
        """Take *delivery* into the state and return how many points it changed; given again it changes nothing."""
        with self._lock:
            self._points = self._totals.points(delivery)
            if delivery.time_ns == self._last_ns:
                return 0
            self._last_ns = delivery.time_ns
            changed = len(self._points)
            changed += sum(self._request(record) for record in delivery.requests)
            for window in delivery.windows:
                for point in band_points(window, self._config.layer_bands, self._values.route):
                    changed += self._band(point)
                for point in norm_points(window, self._config.layer_bands, self._values.route):
                    changed += self._norm(point)
            return changed

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Return the exposition in the format that *accept* asks for, and its content type."""
        encoder, content_type = choose_encoder(accept or "")
        return encoder(self._registry), content_type

    def close(self) -> None:
        """Show nothing any more."""
        self._registry.unregister(self)

    def describe(self) -> Iterable[Family]:
        """Return nothing: what there is to show depends on the traffic."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield every family; a part that fails is logged and left out."""
        parts: tuple[Callable[[], list[Family]], ...] = (
            self._collect_points, self._collect_grounding, self._collect_bands, self._collect_heads,
        )  # fmt: skip
        with self._lock:
            for part in parts:
                try:
                    families = part()
                except Exception:
                    logger.exception("a part of /metrics failed")
                else:
                    yield from families

    def _request(self, record: RequestRecord) -> int:
        changed, weight = 0, request_weight(record)
        for item, attributes, value in self._values.values(record):
            key = (item.name, attributes)
            if key in self._grounding or len(self._grounding) < MAX_SERIES:
                self._grounding.setdefault(key, _Buckets()).observe(value, weight)
                changed += 1
        self._add_heads(record, weight)
        return changed

    def _add_heads(self, record: RequestRecord, weight: int) -> None:
        lookback = record.head_means[_LOOKBACK].astype(np.float64)
        defined = ~np.isnan(lookback)
        if not defined.any():
            return
        key = (record.worker.model, self._values.route(record.context.route))
        total, count = self._heads.get(key, (np.zeros(lookback.shape), np.zeros(lookback.shape, np.int64)))
        if total.shape != lookback.shape:  # the model was loaded anew with other layers
            total, count = np.zeros(lookback.shape), np.zeros(lookback.shape, np.int64)
        self._heads[key] = (total + np.where(defined, lookback, 0.0) * weight, count + defined * weight)

    def _band(self, point: Point) -> int:
        key = (point.metric.name, tuple(point.attributes.items()))
        if not isinstance(point.value, HistogramValue) or (key not in self._bands and len(self._bands) >= MAX_SERIES):
            return 0
        count, total = self._bands.get(key, (0, 0.0))
        self._bands[key] = (count + point.value.count, total + point.value.total)
        return 1

    def _norm(self, point: Point) -> int:
        key = (point.metric.name, tuple(point.attributes.items()))
        if not isinstance(point.value, float) or (key not in self._norms and len(self._norms) >= MAX_SERIES):
            return 0
        self._norms[key] = point.value
        return 1

    def _collect_points(self) -> list[Family]:
        values: dict[tuple[str, Labels], float] = {}
        for point in self._points:
            if isinstance(point.value, float):
                labels = tuple(point.attributes.items())
                if ATTR_RANK in point.attributes:
                    labels = (*labels, (INSTANCE_LABEL, point.source.instance))
                key = (point.metric.name, labels)
                values[key] = values.get(key, 0.0) + point.value
        families = _Families()
        for (name, labels), value in values.items():
            kind = CounterMetricFamily if metric(name).instrument == "sum" else GaugeMetricFamily
            families.of(name, labels, kind).add_metric([value for _, value in labels], value)
        return families.all()

    def _collect_grounding(self) -> list[Family]:
        families = _Families()
        for (name, labels), kept in self._grounding.items():
            family = families.of(name, labels, HistogramMetricFamily)
            family.add_metric([value for _, value in labels], kept.cumulative(), kept.total)
        return families.all()

    def _collect_bands(self) -> list[Family]:
        families = _Families()
        for (name, labels), (count, total) in self._bands.items():
            families.of(name, labels, SummaryMetricFamily).add_metric([value for _, value in labels], count, total)
        for (name, labels), norm in self._norms.items():
            families.of(name, labels, GaugeMetricFamily).add_metric([value for _, value in labels], norm)
        return families.all()

    def _collect_heads(self) -> list[Family]:
        families = _Families()
        for (model, route), (total, count) in self._heads.items():
            mean = np.divide(total, count, out=np.full(total.shape, np.inf), where=count > 0)
            for place in np.argsort(mean, axis=None, kind="stable")[: self._config.worst_heads].tolist():
                layer, head = divmod(place, mean.shape[1])
                if np.isfinite(mean[layer, head]):
                    values = (model, route, str(layer), str(head))
                    labels = tuple(zip((ATTR_MODEL, ATTR_ROUTE, ATTR_LAYER, ATTR_HEAD), values, strict=True))
                    family = families.of("attention.worst_lookback", labels, GaugeMetricFamily)
                    family.add_metric(list(values), float(mean[layer, head]))
        return families.all()


class _Families:
    """Families made as their first sample comes, each with the help text of the metric table."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def of(self, name: str, labels: Labels, kind: type[Family]) -> Any:
        """Return the family of the metric *name*; all its samples have the label names of the first."""
        if name not in self._made:
            item = metric(name)
            names = [label.replace(".", "_") for label, _ in labels]
            self._made[name] = kind(item.prometheus_name, item.description, labels=names)  # type: ignore[call-arg]  # every family takes labels
        return self._made[name]

    def all(self) -> list[Family]:
        return list(self._made.values())


class _Buckets:
    """A classic histogram."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, value: float, weight: int) -> None:
        self._counts[int(np.searchsorted(BOUNDS, value))] += weight
        self.total += value * weight

    def cumulative(self) -> list[tuple[str, float]]:
        running = np.cumsum(self._counts).tolist()
        return [(str(bound), count) for bound, count in zip((*BOUNDS, "+Inf"), running, strict=True)]
