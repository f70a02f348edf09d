"""OTLP over gRPC or HTTP through the OpenTelemetry SDK's own exporters.

The points are built here and handed to the exporter as ``MetricsData``: instruments would cap attribute sets at 2,000 and
cannot be given whole histograms.  Only the low-cardinality set goes this way; series of single heads go to ClickHouse.
Everything is cumulative, so a delivery that is lost or sent twice changes no total.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.addresses import mask_url
from headwatch.errors import ConfigError, ExportError
from headwatch_exporters.cumulative import CumulativeHistograms
from headwatch_exporters.grounding import Grounding
from headwatch_exporters.layer_bands import band_points, norm_points
from headwatch_exporters.totals import Totals

if TYPE_CHECKING:
    from headwatch.config import OtlpConfig
    from headwatch.records import Delivery
    from headwatch_exporters.points import Point

LAYER_BANDS = 4
_RECONNECT = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1_000))
"""gRPC's own are one second and two minutes: so long would a receiver that is back still be taken for dead."""


class OtlpExporter:
    """Sends the low-cardinality points of each delivery to an OTLP receiver."""

    name = "otlp"

    def __init__(self, config: OtlpConfig) -> None:
        """Prepare the connection; the receiver is first needed by :meth:`export`.

        Raises:
            ConfigError: The OpenTelemetry libraries are not installed.
        """
        self._config = config
        try:
            self._exporter = _sdk_exporter(config)
        except ImportError as error:
            raise ConfigError(f"otlp.endpoint needs {error.name}; run: pip install 'headwatch[sidecar]'") from error
        self._totals = Totals()
        self._grounding = Grounding()
        self._histograms = CumulativeHistograms()
        self._last_ns = -1
        self._points: list[Point] = []

    def export(self, delivery: Delivery) -> int:
        """Send *delivery* and return the number of data points.  A delivery that is given again is sent, not counted, again.

        Raises:
            ExportError: The receiver cannot be reached or refuses.
        """
        from opentelemetry.sdk.metrics.export import MetricExportResult  # noqa: PLC0415 - heavy; only where OTLP is on

        from headwatch_exporters.otlp_data import metrics_data  # noqa: PLC0415 - the same

        if delivery.time_ns != self._last_ns:
            self._points = self._build(delivery)
            self._last_ns = delivery.time_ns
        if not self._points:
            return 0
        try:
            result = self._exporter.export(metrics_data(self._points, delivery.service))
        except Exception as error:  # the SDK's transports have no common root
            raise ExportError(f"OTLP receiver {mask_url(self._config.endpoint)}: {error}") from error
        if result is not MetricExportResult.SUCCESS:
            raise ExportError(
                f"OTLP receiver {mask_url(self._config.endpoint)} cannot be reached or refused the data "
                f"({self._config.protocol})"
            )
        return len(self._points)

    def close(self) -> None:
        """Close the connection."""
        self._exporter.shutdown(timeout_millis=1000)

    def _build(self, delivery: Delivery) -> list[Point]:
        windows = (
            point for window in delivery.windows for point in band_points(window, LAYER_BANDS, self._grounding.route)
        )
        return [
            *self._histograms.add((*windows, *self._grounding.points(delivery)), delivery.time_ns),
            *(
                point
                for window in delivery.windows
                for point in norm_points(window, LAYER_BANDS, self._grounding.route)
            ),
            *self._totals.points(delivery),
        ]


def _sdk_exporter(config: OtlpConfig) -> Any:
    """Return the SDK's exporter.  It retries by itself, for at most ``timeout_seconds``."""
    if config.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc  # noqa: PLC0415 - one of two

        return grpc.OTLPMetricExporter(
            endpoint=config.endpoint,
            insecure=config.insecure,
            timeout=config.timeout_seconds,
            channel_options=_RECONNECT,  # type: ignore[arg-type]  # annotated as one pair of strings; gRPC takes pairs
        )
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http  # noqa: PLC0415 - one of two

    return http.OTLPMetricExporter(endpoint=config.endpoint, timeout=config.timeout_seconds)
