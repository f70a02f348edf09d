"""What can be configured: one frozen object, its sections and their defaults.

Where the values come from is in :mod:`headwatch.config_file`.  The worker and the sidecar read the same file: capture takes
``[capture]`` and ``[wire]``, the sidecar the rest.
"""

from __future__ import annotations

import msgspec

from headwatch.config.capture import CaptureConfig, Marker, RouteConfig, WireConfig
from headwatch.config.keeping import (
    EvidenceConfig,
    GroundingConfig,
    OtlpConfig,
    PrivacyConfig,
    RequestsConfig,
    SpoolConfig,
    StoreConfig,
    WindowConfig,
)
from headwatch.config.kinds import LAST_PORT, RouteName
from headwatch.config.serving import AuditConfig, ClickHouseConfig, ClickHouseUser, HttpConfig, PrometheusConfig
from headwatch.config.text import RedactPattern, TextConfig, TextRoute, TextRule
from headwatch.config.watching import CanaryConfig, DriftConfig, IncidentConfig

__all__ = [
    "LAST_PORT",
    "AuditConfig",
    "CanaryConfig",
    "CaptureConfig",
    "ClickHouseConfig",
    "ClickHouseUser",
    "Config",
    "DriftConfig",
    "EvidenceConfig",
    "GroundingConfig",
    "HttpConfig",
    "IncidentConfig",
    "Marker",
    "OtlpConfig",
    "PrivacyConfig",
    "PrometheusConfig",
    "RedactPattern",
    "RequestsConfig",
    "RouteConfig",
    "RouteName",
    "ServiceConfig",
    "SpoolConfig",
    "StoreConfig",
    "TextConfig",
    "TextRoute",
    "TextRule",
    "WindowConfig",
    "WireConfig",
]


class ServiceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OpenTelemetry resource attributes."""

    name: str = "vllm"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is in force."""

    capture: CaptureConfig = CaptureConfig()
    wire: WireConfig = WireConfig()
    http: HttpConfig = HttpConfig()
    window: WindowConfig = WindowConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    grounding: GroundingConfig = GroundingConfig()
    store: StoreConfig = StoreConfig()
    spool: SpoolConfig = SpoolConfig()
    clickhouse: ClickHouseConfig = ClickHouseConfig()
    audit: AuditConfig = AuditConfig()
    otlp: OtlpConfig = OtlpConfig()
    requests: RequestsConfig = RequestsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    text: TextConfig = TextConfig()
    prometheus: PrometheusConfig = PrometheusConfig()
    drift: DriftConfig = DriftConfig()
    canary: CanaryConfig = CanaryConfig()
    incident: IncidentConfig = IncidentConfig()
    service: ServiceConfig = ServiceConfig()
