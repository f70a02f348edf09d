"""Every name that a panel, a query or a rule shares with something outside this package.

Tables and columns are those of the store (docs/architecture.md), metric names come from :mod:`headwatch.metrics`,
versions are those of the Grafana and of the plugin whose formats are written.
"""

from __future__ import annotations

from headwatch.config import IncidentConfig

GRAFANA_VERSION = "13.2.3"
SCHEMA_VERSION = 42
DATASOURCE_TYPE = "grafana-clickhouse-datasource"
DATASOURCE_PLUGIN_VERSION = "4.20.0"

DATASOURCE_UID = "headwatch-store"
"""Pinned: dashboards and alert rules point to it, so it must not be left to Grafana."""
DASHBOARD_UID_PREFIX = "headwatch-"
"""Of every dashboard; its file's name follows."""
ALERT_UID = "headwatch-grounding-fell"
INCIDENT_ALERT_UID = "headwatch-incident"
CANARY_ALERT_UID = "headwatch-canaries-behind"
CAPTURE_ALERT_UID = "headwatch-capture-down"
RETRIEVAL_ALERT_UID = "headwatch-retrieval-absent"
SPOOL_ALERT_UID = "headwatch-spool-filling"
STALE_ALERT_UID = "headwatch-data-stale"
FOLDER = "headwatch"
RUNBOOK = "docs/runbooks/grounding.md"
RUNBOOKS = IncidentConfig().runbook_url
"""Of incidents; ``/<class>.md`` is added."""
ANNOTATION_TAG = "headwatch"
"""Tag of the annotations that the sidecar makes in Grafana, one for each incident."""

DATABASE = "default"
"""Of the embedded store.  On a server it is the one in store.url."""
REQUESTS = "headwatch_requests"
DOCUMENTS = "headwatch_documents"
REQUEST_HEADS = "headwatch_request_heads"
HEAD_WINDOWS = "headwatch_heads_1m"
INCIDENTS = "headwatch_incidents"
EVIDENCE = "headwatch_drift_evidence"
CANARIES = "headwatch_canaries"
DEPLOYS = "headwatch_deploys"
BASELINES = "headwatch_baselines"
FINGERPRINTS = "headwatch_fingerprints"
GAUGES = "otel_metrics_gauge"
SUMS = "otel_metrics_sum"

ROUTE_VARIABLE = "route"
MODEL_VARIABLE = "model"
PHASE_VARIABLE = "phase"
FEATURE_VARIABLE = "feature"
INCIDENT_VARIABLE = "incident"

UNNAMED_ROUTE = "unnamed"
"""Shown for requests whose client named no route."""
NO_ARM = "no arm"
NO_SOURCE = "no source"

RETRIEVAL_HEADS = "retrieval heads"
ALL_HEADS = "all heads"


def dashboard_uid(slug: str) -> str:
    """Return the id in Grafana of the dashboard whose file is named *slug*."""
    return DASHBOARD_UID_PREFIX + slug
