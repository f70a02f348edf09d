"""OTLP over gRPC or HTTP through the OpenTelemetry SDK's own exporters.

The points are built here and handed to the exporter as ``MetricsData``: instruments would cap attribute sets at 2,000 and
cannot be given whole histograms.  Only the low-cardinality set goes this way; series of single heads go to ClickHouse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from headwatch import __version__
from headwatch.errors import ExportError
from headwatch_exporters.points import HistogramValue, Point, Totals, band_points, request_points

if TYPE_CHECKING:
    from headwatch.config import OtlpConfig
    from headwatch.model import Delivery

LAYER_BANDS = 4


class OtlpExporter:
    """Sends the low-cardinality points of each delivery to an OTLP receiver."""

    name = "otlp"

    def __init__(self, config: OtlpConfig) -> None:
        self._config = config
        self._exporter = _sdk_exporter(config)
        self._totals = Totals()

    def export(self, delivery: Delivery) -> int:
        """Send *delivery* and return the number of data points.

        Raises:
            ExportError: The receiver cannot be reached or refuses.
        """
        points = [
            *(point for window in delivery.windows for point in band_points(window, LAYER_BANDS)),
            *request_points(delivery),
            *self._totals.points(delivery),
        ]
        if not points:
            return 0
        try:
            result = self._exporter.export(
                metrics_data(points, delivery.service), timeout_millis=self._config.timeout_seconds * 1000
            )
        except Exception as error:  # the SDK's transports have no common root
            raise ExportError(f"OTLP receiver {self._config.endpoint}: {error}") from error
        if result is not MetricExportResult.SUCCESS:
            raise ExportError(f"OTLP receiver {self._config.endpoint} cannot be reached or refused the data "
                              f"({self._config.protocol})")
        return len(points)

    def close(self) -> None:
        """Close the connection."""
        self._exporter.shutdown(timeout_millis=1000)


def metrics_data(points: list[Point], service: str) -> MetricsData:
    """Return *points* as the SDK's own objects: a resource for each engine, grouped by metric in it."""
    engines: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        engines.setdefault(point.instance, {}).setdefault(point.metric.name, []).append(point)
    resources = []
    for instance, by_name in engines.items():
        metrics = [
            Metric(name, group[0].metric.description, group[0].metric.unit, _data(group)) for name, group in by_name.items()
        ]
        attributes = {"service.name": service, "service.version": __version__}
        if instance:
            attributes["service.instance.id"] = instance
        scope = ScopeMetrics(InstrumentationScope("headwatch", __version__), metrics, "")
        resources.append(ResourceMetrics(Resource(attributes), [scope], ""))
    return MetricsData(resources)


def _data(points: list[Point]) -> Sum | Gauge | ExponentialHistogram:
    instrument = points[0].metric.instrument
    if instrument == "exp_histogram":
        return ExponentialHistogram([_histogram(point) for point in points], AggregationTemporality.DELTA)
    numbers = [
        NumberDataPoint(point.attributes, point.start_ns, point.time_ns, point.value)
        for point in points
        if isinstance(point.value, float)
    ]
    if instrument == "sum":
        return Sum(numbers, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Gauge(numbers)


def _histogram(point: Point) -> ExponentialHistogramDataPoint:
    value = point.value
    assert isinstance(value, HistogramValue)
    return ExponentialHistogramDataPoint(
        attributes=point.attributes,
        start_time_unix_nano=point.start_ns,
        time_unix_nano=point.time_ns,
        count=value.count,
        sum=value.total,
        scale=value.scale,
        zero_count=value.zero_count,
        positive=Buckets(value.offset, value.buckets.tolist()),
        negative=Buckets(0, []),
        flags=0,
        min=value.minimum,
        max=value.maximum,
    )


def _sdk_exporter(config: OtlpConfig) -> Any:
    if config.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc  # noqa: PLC0415 - one of two

        return grpc.OTLPMetricExporter(
            endpoint=config.endpoint, insecure=config.insecure, timeout=int(config.timeout_seconds)
        )
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http  # noqa: PLC0415

    return http.OTLPMetricExporter(endpoint=config.endpoint, timeout=int(config.timeout_seconds))
