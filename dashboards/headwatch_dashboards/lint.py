"""What a panel of ours must have beyond what Grafana's schema asks: meaning, unit, bounds, an id of its own.

Works on the dashboard as it is in a file, so that a hand-edited copy can be checked as well.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

from headwatch.errors import CommandError
from headwatch.metrics import BY_NAME
from headwatch_dashboards.colours import colour_problems
from headwatch_dashboards.grafana import PanelKind
from headwatch_dashboards.macros import ALL, QueryRange, expand
from headwatch_dashboards.names import DATASOURCE_TYPE, DATASOURCE_UID

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLE = re.compile(r"\b(?:FROM|JOIN)\s+((?:headwatch|otel)_\w+)", re.IGNORECASE)
_LINK = re.compile(r"/d/([\w-]+)(\?[^\"\\]*)?")
_LINK_VARIABLE = re.compile(r"[?&]var-(\w+)=")
_USED = re.compile(r"\$\{?((?!__)[a-zA-Z]\w*)")
_METRIC = re.compile(r"(?<!Attributes\[)'(headwatch\.[\w.]+)'")
_ATTRIBUTE = re.compile(r"(?<!Resource)Attributes\['([^']+)'\]")
_GRID_COLUMNS = 24
UNITS = ("none", "short", "percentunit", "s", "bytes", "dateTimeAsIso")
"""Grafana's names (@grafana/data, valueFormats): one that it does not know is shown as text behind the number."""
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
    problems = [*_duplicate_ids(dashboard), *_overlaps(dashboard), *_variable_problems(dashboard)]
    listed = dashboard.get("templating", {}).get("list", [])
    known: dict[str, tuple[str, ...]] = {variable.get("name"): ("value",) for variable in listed}
    for panel in panels(dashboard):
        where = f"panel {panel.get('id')} {panel.get('title', '')!r}"
        found = [*_panel_problems(panel), *colour_problems(panel)]
        for query in panel.get("targets", []):
            found += text_problems(query.get("rawSql", ""), known)
        problems += [f"{where}: {problem}" for problem in found]
    for mark in dashboard.get("annotations", {}).get("list", []):
        if mark.get("datasource", {}).get("type") == DATASOURCE_TYPE:
            problems += [f"marks {mark.get('name')!r}: {problem}" for problem in _query_problems(mark.get("target", {}))]
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


def link_problems(dashboards: list[dict[str, Any]]) -> list[str]:
    """Return which links between *dashboards* lead nowhere: to one that is not there, or with a variable that it has not."""
    variables = {
        dashboard.get("uid"): {variable.get("name") for variable in dashboard.get("templating", {}).get("list", [])}
        for dashboard in dashboards
    }
    problems = [f"uid {uid!r} is given to several dashboards"
                for uid, count in Counter(dashboard.get("uid") for dashboard in dashboards).items() if count > 1]  # fmt: skip
    for dashboard in dashboards:
        for panel in panels(dashboard):
            where = f"{dashboard.get('uid')}: panel {panel.get('id')} {panel.get('title', '')!r}"
            for uid, query in _LINK.findall(json.dumps(panel)):
                if uid not in variables:
                    problems.append(f"{where}: a link leads to {uid!r}, which is no dashboard of these")
                    continue
                problems += [f"{where}: a link sets {name!r}, which {uid!r} does not have"
                             for name in _LINK_VARIABLE.findall(query) if name not in variables[uid]]  # fmt: skip
    return problems


def _variable_problems(dashboard: dict[str, Any]) -> Iterator[str]:
    """Yield which variables queries use that the dashboard does not have, and which it has and no query uses."""
    known = {variable.get("name") for variable in dashboard.get("templating", {}).get("list", [])}
    used: set[str] = set()
    for panel in panels(dashboard):
        asked = {name for query in panel.get("targets", []) for name in _USED.findall(query.get("rawSql", ""))}
        used |= asked
        for name in sorted(asked - known):
            yield f"panel {panel.get('id')} {panel.get('title', '')!r}: uses the variable {name!r}, which the dashboard has not"
    for name in sorted(known - used):
        yield f"variable {name!r}: no query uses it"


def text_problems(sql: str, variables: dict[str, tuple[str, ...]]) -> list[str]:
    """Return what is wrong with the text of a query: macros, variables that are not quoted, metrics that nobody exports."""
    attributes = {attribute for metric in BY_NAME.values() for attribute in metric.attributes}
    problems = [f"asks for {name!r}, which nobody exports" for name in _METRIC.findall(sql) if name not in BY_NAME]
    unknown = [name for name in _ATTRIBUTE.findall(sql) if name not in attributes]
    problems += [f"asks for the attribute {name!r}, which no metric has" for name in unknown]
    for values in (variables, dict.fromkeys(variables, ALL)):
        try:
            expand(sql, QueryRange(0, 3600), values)
        except CommandError as error:
            word = str(error)
            if "'All' is chosen" not in word and not word.startswith("unknown variable"):  # said of the dashboard
                problems.append(word)
                break
    return problems


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
    overrides = panel.get("fieldConfig", {}).get("overrides", [])
    units = [item.get("value") for override in overrides for item in override.get("properties", []) if item.get("id") == "unit"]
    for unit in filter(None, (defaults.get("unit"), *units)):
        if unit not in UNITS:
            yield f"unit {unit!r} is none that these dashboards know: {', '.join(UNITS)}"
    if not defaults.get("noValue"):
        yield "has no text (noValue) for when there is nothing to show"
    if not panel.get("targets"):
        yield "has no query"
    for query in panel.get("targets", []):
        yield from _query_problems(query)


def _query_problems(query: dict[str, Any]) -> Iterator[str]:
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
