"""A dashboard of ours: which panels, in which place, under which variables, marks and links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from headwatch_dashboards.grafana import target
from headwatch_dashboards.names import ANNOTATION_TAG, SCHEMA_VERSION, dashboard_uid
from headwatch_dashboards.queries.incidents import release_marks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch_dashboards.grafana import Json, JsonValue

GRID_COLUMNS = 24

Line: TypeAlias = "tuple[int, tuple[tuple[Json, int], ...]]"
"""Its height in units of the grid, and (panel, width) from left to right."""
Section: TypeAlias = "tuple[str, tuple[Line, ...]]"
"""A title that folds away what is below it, and the lines of panels there."""


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    slug: str
    """Names its file and its uid."""
    title: str
    description: str
    sections: tuple[Section, ...]
    variables: tuple[Json, ...]
    since: str = "now-6h"
    """Where its time range begins."""

    @property
    def uid(self) -> str:
        """Return its id in Grafana, to which links and alert rules point."""
        return dashboard_uid(self.slug)

    def build(self) -> Json:
        """Return the dashboard as Grafana reads it from a file."""
        return {
            "uid": self.uid,
            "title": f"headwatch: {self.title}",
            "description": self.description,
            "tags": ["headwatch", "llm", "rag"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": self.since, "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "annotations": {"list": [_incident_marks(), _release_marks()]},
            "templating": {"list": list(self.variables)},
            "links": _links(),
            "panels": list(self._placed()),
        }

    def _placed(self) -> Iterator[Json]:
        """Give each panel its id (in order, rows of titles included) and its place."""
        number, y = 0, 0
        for title, lines in self.sections:
            number += 1
            yield {
                "id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
                "gridPos": {"x": 0, "y": y, "w": GRID_COLUMNS, "h": 1},
            }  # fmt: skip
            y += 1
            for height, panels in lines:
                x = 0
                for panel, width in panels:
                    number += 1
                    yield {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **panel}
                    x += width
                y += height


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


def _incident_marks() -> Json:
    """Return the query for the annotations that the sidecar makes (incident.grafana_url)."""
    return {
        "name": "Incidents",
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "iconColor": "red",
        "target": {"type": "tags", "tags": [ANNOTATION_TAG], "matchAny": True, "limit": 100},
    }


def _release_marks() -> Json:
    """Return the query for marks at releases: what changed just before a line moved is the first thing to look at."""
    asked = target(release_marks(), query_type="table", ref_id="Releases")
    return {"name": "Releases", "datasource": asked["datasource"], "enable": True, "iconColor": "blue", "target": asked}


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
