"""The dashboard ``headwatch: grounding``: which panels, in which place, under which variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.model import PHASES
from headwatch_dashboards.grafana import DATASOURCE
from headwatch_dashboards.names import (
    ANNOTATION_TAG,
    DASHBOARD_UID,
    MODEL_VARIABLE,
    PHASE_VARIABLE,
    ROUTE_VARIABLE,
    SCHEMA_VERSION,
)
from headwatch_dashboards.panels import drift, grounding, heads, health, incidents, overview
from headwatch_dashboards.queries import grounding as grounding_queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch_dashboards.grafana import Json, JsonValue

GRID_COLUMNS = 24

# Each row of panels: its height in grid units, and (panel, width) from left to right.
_SECTIONS: tuple[tuple[str, tuple[tuple[int, tuple[tuple[Json, int], ...]], ...]], ...] = (
    ("What this rests on", (
        (4, (
            (overview.request_count(), 3),
            (overview.state_shares(), 7),
            (overview.mean_grounding(), 5),
            (overview.capture_up(), 3),
            (overview.refused_layers(), 3),
            (overview.report_age(), 3),
        )),
    )),
    ("Drift and incidents", (
        (9, ((incidents.incidents(), 20), (drift.detection_state(), 4))),
        (9, ((drift.clock_over_time(), 8), (drift.evidence_over_time(), 8), (drift.canary_deviation(), 8))),
        (8, ((incidents.named_heads(), 10), (incidents.precision(), 7), (incidents.releases(), 7))),
        (8, ((incidents.named_requests(), 24),)),
    )),
    ("Grounding", (
        (10, ((grounding.grounding_over_time(), 16), (grounding.states_over_time(), 8))),
        (10, ((grounding.document_share(), 8), (grounding.least_grounded_requests(), 16))),
    )),
    ("Heads", (
        (16, ((heads.head_grounding(), 15), (heads.worst_heads(), 9))),
    )),
    ("Capture health", (
        (8, ((health.rows_over_time(), 8), (health.frames_lost_over_time(), 8), (health.errors_by_reason(), 8))),
        (8, ((health.overhead_over_time(), 8), (health.exporter_queue_over_time(), 8), (health.exporters(), 8))),
    )),
)


def build_dashboard() -> Json:
    """Return the dashboard as Grafana reads it from a file."""
    return {
        "uid": DASHBOARD_UID,
        "title": "headwatch: grounding",
        "description": "Does the model read the documents that retrieval gave it? Attention is evidence, not proof.",
        "tags": ["headwatch", "llm", "rag"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "annotations": {"list": [_incident_marks()]},
        "templating": {"list": [_route(), _model(), _phase()]},
        "links": _links(),
        "panels": list(_placed()),
    }


def panel_id(dashboard: Json, title: str) -> int:
    """Return the id of the panel of that title.

    Raises:
        KeyError: There is none.
    """
    panels = dashboard["panels"]
    for panel in panels if isinstance(panels, list) else ():
        if panel["title"] == title:
            return int(panel["id"])
    raise KeyError(title)


def _placed() -> Iterator[Json]:
    """Give each panel its id (in order, rows of titles included) and its place."""
    number, y = 0, 0
    for title, rows in _SECTIONS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": GRID_COLUMNS, "h": 1},
        }
        y += 1
        for height, panels in rows:
            x = 0
            for panel, width in panels:
                number += 1
                yield {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **panel}
                x += width
            y += height


def _query_variable(name: str, label: str, description: str, sql: str) -> Json:
    everything: Json = {"text": ["All"], "value": ["$__all"], "selected": True}
    return {
        "name": name,
        "label": label,
        "description": description,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"editorType": "sql", "rawSql": sql, "refId": name},
        "refresh": 2,  # again when the time range changes
        "sort": 0,  # as the query sorts
        "multi": True,
        "includeAll": True,
        "current": everything,
        "options": [],
    }


def _route() -> Json:
    return _query_variable(ROUTE_VARIABLE, "Route", "Routes seen in this range, as clients name them.",
                           grounding_queries.routes())


def _model() -> Json:
    return _query_variable(MODEL_VARIABLE, "Model", "Models seen in this range. Heads of two models cannot be compared.",
                           grounding_queries.models())


def _phase() -> Json:
    phases = tuple(reversed(PHASES))  # decode first: grounding is about what is generated
    options: list[Json] = [{"text": phase, "value": phase, "selected": index == 0} for index, phase in enumerate(phases)]
    return {
        "name": PHASE_VARIABLE,
        "label": "Phase",
        "description": "Rows of generated tokens (decode) or of the prompt (prefill), for the panel of layers and heads. "
                       "All figures of requests are of generated tokens.",
        "type": "custom",
        "query": ",".join(phases),
        "multi": False,
        "includeAll": False,
        "current": options[0],
        "options": options,
    }


def _incident_marks() -> Json:
    """Return the query for the annotations that the sidecar makes (incident.grafana_url)."""
    return {
        "name": "Incidents",
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "iconColor": "red",
        "target": {"type": "tags", "tags": [ANNOTATION_TAG], "matchAny": True, "limit": 100},
    }


def _links() -> list[JsonValue]:
    return [
        _link("headwatch dashboards", "dashboards", icon="apps", tags=["headwatch"], tooltip="Other dashboards of headwatch"),
        _link("Alert rules", "link", icon="bolt", url="/alerting/list?search=headwatch",
              tooltip="The rules of headwatch; each names its runbook"),
    ]


def _link(title: str, kind: str, *, icon: str, tooltip: str, tags: list[str] | None = None, url: str = "") -> Json:
    return {
        "title": title,
        "type": kind,
        "icon": icon,
        "tooltip": tooltip,
        "tags": tags or [],
        "url": url,
        "asDropdown": kind == "dashboards",
        "includeVars": kind == "dashboards",
        "keepTime": kind == "dashboards",
        "targetBlank": False,
    }
