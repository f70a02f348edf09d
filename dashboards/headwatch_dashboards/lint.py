"""What a panel of ours must have beyond what Grafana's schema asks: meaning, unit, bounds, an id of its own.

Works on the dashboard as it is in a file, so that a hand-edited copy can be checked as well.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

from headwatch_dashboards.grafana import PanelKind
from headwatch_dashboards.names import DATASOURCE_TYPE, DATASOURCE_UID

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLE = re.compile(r"\b(?:FROM|JOIN)\s+((?:headwatch|otel)_\w+)", re.IGNORECASE)
_GRID_COLUMNS = 24
_SHORTEST_DESCRIPTION = 40
"""Characters.  Whoever can say what a number means and what it does not in fewer has not said it."""


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels, those inside collapsed rows included, without the rows."""
    for panel in dashboard.get("panels", []):
        if panel.get("type") == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def lint(dashboard: dict[str, Any]) -> list[str]:
    """Return every breach of the rules, as one line each that names the panel."""
    problems = [*_duplicate_ids(dashboard), *_overlaps(dashboard)]
    for panel in panels(dashboard):
        where = f"panel {panel.get('id')} {panel.get('title', '')!r}"
        problems += [f"{where}: {problem}" for problem in _panel_problems(panel)]
    for variable in dashboard.get("templating", {}).get("list", []):
        query = variable.get("query")
        if isinstance(query, dict):
            problems += [f"variable {variable.get('name')!r}: {problem}" for problem in bound_problems(query.get("rawSql", ""))]
    return problems


def bound_problems(sql: str) -> list[str]:
    """Return which tables of a query are read without a bound on time."""
    if not sql.strip():
        return ["the query is empty"]
    tables, filters = _TABLE.findall(sql), sql.count("$__timeFilter(")
    if filters < len(tables):
        read = ", ".join(tables)
        return [f"not bounded in time: {len(tables)} tables are read ({read}) and $__timeFilter stands {filters} times"]
    return []


def _panel_problems(panel: dict[str, Any]) -> Iterator[str]:
    kind = panel.get("type")
    if kind not in get_args(PanelKind):
        yield f"type {kind!r} is none that these dashboards know: {', '.join(get_args(PanelKind))}"
    if not panel.get("title"):
        yield "has no title"
    if len(panel.get("description", "")) < _SHORTEST_DESCRIPTION:
        yield "has no description that says what the number means and does not mean"
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    if not defaults.get("unit"):
        yield "has no unit"
    if not defaults.get("noValue"):
        yield "has no text (noValue) for when there is nothing to show"
    if not panel.get("targets"):
        yield "has no query"
    for query in panel.get("targets", []):
        yield from bound_problems(query.get("rawSql", ""))
        if query.get("datasource") != {"type": DATASOURCE_TYPE, "uid": DATASOURCE_UID}:
            yield f"data source {query.get('datasource')} is not {DATASOURCE_UID!r}"
        if query.get("format") != (0 if query.get("queryType") == "timeseries" else 1):
            yield f"format {query.get('format')!r} does not go with query type {query.get('queryType')!r}"


def _duplicate_ids(dashboard: dict[str, Any]) -> Iterator[str]:
    rows = [panel for panel in dashboard.get("panels", []) if panel.get("type") == "row"]
    counts = Counter(panel.get("id") for panel in (*rows, *panels(dashboard)))
    for identifier, count in counts.items():
        if count > 1:
            yield f"id {identifier} is given to {count} panels"


def _overlaps(dashboard: dict[str, Any]) -> Iterator[str]:
    taken: dict[tuple[int, int], object] = {}
    for panel in dashboard.get("panels", []):
        place = panel.get("gridPos")
        if place is None:
            yield f"panel {panel.get('id')}: has no place (gridPos)"
            continue
        if place["x"] + place["w"] > _GRID_COLUMNS:
            yield f"panel {panel.get('id')}: leaves the grid of {_GRID_COLUMNS} columns"
        cells = [(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])]
        others = {taken[cell] for cell in cells if cell in taken}
        for other in others:
            yield f"panel {panel.get('id')}: lies over panel {other}"
        taken.update(dict.fromkeys(cells, panel.get("id")))
