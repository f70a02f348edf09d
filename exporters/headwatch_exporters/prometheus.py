"""``/metrics``: layer bands, the worst heads, grounding by route, and the health of every part.

A collector of our own over the latest state: a scrape reads, and never waits for a window.  Each part of it is collected by
itself, so that one that fails is logged and left out while the rest is served.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
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

from headwatch.metrics import ATTR_HEAD, ATTR_LAYER, ATTR_MODEL, ATTR_ROUTE, Metric, metric
from headwatch.model import REQUEST_FEATURES
from headwatch_exporters.points import HistogramValue, Point, Totals, band_points, request_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.metrics_core import Metric as Family

    from headwatch.config import PrometheusConfig
    from headwatch.model import Delivery

logger = logging.getLogger("headwatch.prometheus")

BOUNDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Buckets of the grounding histograms.  Ratios of healthy traffic lie between 0.1 and 0.6."""
MAX_SERIES = 5_000
"""Band series kept; further ones are not shown."""
_LOOKBACK = REQUEST_FEATURES.index("lookback")

Labels = tuple[tuple[str, str], ...]


class PrometheusExporter(Collector):
    """Keeps what ``/metrics`` shows."""

    name = "prometheus"

    def __init__(self, config: PrometheusConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._totals = Totals()
        self._points: list[Point] = []
        self._grounding: dict[tuple[str, Labels], _Buckets] = defaultdict(_Buckets)
        self._bands: dict[tuple[str, Labels], list[float]] = {}
        self._heads: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._last: Delivery | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def export(self, delivery: Delivery) -> int:
        """Take *delivery* into the state and return the number of points that it changed."""
        with self._lock:
            self._points = self._totals.points(delivery)
            if delivery is self._last:
                return 0
            self._last = delivery
            changed = len(self._points)
            for record in delivery.requests:
                for item, attributes, value in request_values(record):
                    self._grounding[item.name, attributes].observe(value)
                    changed += 1
                self._worst(record.worker.model, record.context.route, record.head_means[_LOOKBACK])
            for window in delivery.windows:
                for point in band_points(window, self._config.layer_bands):
                    changed += self._band(point)
            return changed

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Return the exposition in the format that *accept* asks for, and its content type."""
        encoder, content_type = choose_encoder(accept or "")
        return encoder(self._registry), content_type

    def close(self) -> None:
        """Forget everything."""
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

    def _band(self, point: Point) -> int:
        if not isinstance(point.value, HistogramValue):
            return 0
        key = (point.metric.name, tuple(point.attributes.items()))
        if key not in self._bands and len(self._bands) >= MAX_SERIES:
            return 0
        kept = self._bands.setdefault(key, [0.0, 0.0])
        kept[0] += point.value.count
        kept[1] += point.value.total
        return 1

    def _worst(self, model: str, route: str, lookback: Any) -> None:
        defined = ~np.isnan(lookback)
        if not defined.any():
            return
        total, count = self._heads.get((model, route), (0.0, 0))
        self._heads[model, route] = (total + np.where(defined, lookback, 0.0), count + defined)

    def _collect_points(self) -> list[Family]:
        families: dict[str, Any] = {}
        for point in self._points:
            if isinstance(point.value, HistogramValue):
                continue
            family = families.get(point.metric.name)
            if family is None:
                kind = CounterMetricFamily if point.metric.instrument == "sum" else GaugeMetricFamily
                family = families[point.metric.name] = kind(
                    point.metric.prometheus_name, point.metric.description, labels=_names(point.attributes)
                )
            family.add_metric(list(point.attributes.values()), point.value)
        return list(families.values())

    def _collect_grounding(self) -> list[Family]:
        families: dict[str, HistogramMetricFamily] = {}
        for (name, labels), kept in self._grounding.items():
            family = families.get(name)
            if family is None:
                item = metric(name)
                family = families[name] = HistogramMetricFamily(
                    item.prometheus_name, item.description, labels=_names(dict(labels))
                )
            family.add_metric([value for _, value in labels], kept.cumulative(), kept.total)
        return list(families.values())

    def _collect_bands(self) -> list[Family]:
        families: dict[str, SummaryMetricFamily] = {}
        for (name, labels), (count, total) in self._bands.items():
            family = families.get(name)
            if family is None:
                item = metric(name)
                family = families[name] = SummaryMetricFamily(
                    item.prometheus_name, item.description, labels=_names(dict(labels))
                )
            family.add_metric([value for _, value in labels], int(count), total)
        return list(families.values())

    def _collect_heads(self) -> list[Family]:
        item: Metric = metric("attention.worst_lookback")
        family = GaugeMetricFamily(
            item.prometheus_name, item.description, labels=_names(dict.fromkeys(item.attributes, ""))
        )
        assert item.attributes == (ATTR_MODEL, ATTR_ROUTE, ATTR_LAYER, ATTR_HEAD)
        for (model, route), (total, count) in self._heads.items():
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.where(count > 0, total / count, np.inf)
            for place in np.argsort(mean, axis=None)[: self._config.worst_heads].tolist():
                layer, head = divmod(place, mean.shape[1])
                if np.isfinite(mean[layer, head]):
                    family.add_metric([model, route, str(layer), str(head)], float(mean[layer, head]))
        return [family] if family.samples else []


class _Buckets:
    """A classic histogram."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self._counts[int(np.searchsorted(BOUNDS, value))] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        running = np.cumsum(self._counts).tolist()
        return [(str(bound), count) for bound, count in zip((*BOUNDS, "+Inf"), running, strict=True)]


def _names(attributes: dict[str, str]) -> list[str]:
    return [name.replace(".", "_") for name in attributes]
