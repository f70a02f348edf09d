"""Mistakes that somebody who changes the dashboards will make: each is planted in what is shipped, and found by name."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from headwatch_dashboards.boards import BOARDS
from headwatch_dashboards.check import check_dashboard
from headwatch_dashboards.colours import LEAST_DISTANCE, distance
from headwatch_dashboards.lint import link_problems, panels

if TYPE_CHECKING:
    from collections.abc import Callable

PANEL = "Grounding ratio by route"


@pytest.fixture(scope="module")
def dashboards() -> dict[str, Any]:
    return {board.slug: json.loads(json.dumps(board.build())) for board in BOARDS}


def _panel(dashboard: dict[str, Any], title: str = PANEL) -> dict[str, Any]:
    return next(panel for panel in panels(dashboard) if panel["title"] == title)


def _set(value: object, *path: str | int) -> Callable[[dict[str, Any]], None]:
    """Return what sets a place of the panel."""
    def change(dashboard: dict[str, Any]) -> None:
        place: Any = _panel(dashboard)
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return change


def _drop(*path: str) -> Callable[[dict[str, Any]], None]:
    """Return what takes a place of the panel away."""
    def change(dashboard: dict[str, Any]) -> None:
        place: Any = _panel(dashboard)
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
    return change


def _ask(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    """Return what changes the text of the panel's query."""
    def change(dashboard: dict[str, Any]) -> None:
        query = _panel(dashboard)["targets"][0]
        assert old in query["rawSql"]
        query["rawSql"] = query["rawSql"].replace(old, new)
    return change


def _second_query(dashboard: dict[str, Any]) -> None:
    targets = _panel(dashboard)["targets"]
    targets.append(targets[0] | {"rawSql": "SELECT 1 FROM otel_metrics_sum"})


def _marks(dashboard: dict[str, Any]) -> None:
    dashboard["annotations"]["list"][1]["target"]["rawSql"] = "SELECT d.time AS time FROM headwatch_deploys AS d"


def _variable(dashboard: dict[str, Any], sql: str) -> None:
    dashboard["templating"]["list"][0]["query"]["rawSql"] = sql


def _unused(dashboard: dict[str, Any]) -> None:
    listed = dashboard["templating"]["list"]
    listed.append({**listed[0], "name": "tenant"})


def _missing(dashboard: dict[str, Any]) -> None:
    del dashboard["templating"]["list"][0]


def _override(setting: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(dashboard: dict[str, Any]) -> None:
        _panel(dashboard)["fieldConfig"]["overrides"][0]["properties"].append({"id": setting, "value": value})
    return change


def _alike(dashboard: dict[str, Any]) -> None:
    overrides = _panel(dashboard)["fieldConfig"]["overrides"]
    for name, colour in (("good", "green"), ("bad", "red")):
        overrides.append({
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        })  # fmt: skip


PLANTED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no unit": (_drop("fieldConfig", "defaults", "unit"), "has no unit"),
    "unit that Grafana does not know": (_set("percentage", "fieldConfig", "defaults", "unit"), "unit 'percentage' is none"),
    "unit of a column that Grafana does not know": (_override("unit", "seconds"), "unit 'seconds' is none"),
    "no description": (_drop("description"), "has no description"),
    "description that says nothing": (_set("The ratio.", "description"), "has no description"),
    "no title": (_drop("title"), "has no title"),
    "no text for an empty panel": (_drop("fieldConfig", "defaults", "noValue"), "noValue"),
    "no query": (_set([], "targets"), "has no query"),
    "query that is not bounded in time": (_ask("$__timeFilter(r.time)", "1"), "not bounded in time"),
    "second query that is not bounded": (_second_query, "not bounded in time"),
    "marks that are not bounded": (_marks, "marks 'Releases': not bounded in time"),
    "variable that is not bounded": (lambda board: _variable(board, "SELECT r.route FROM headwatch_requests AS r"),
                                     "variable 'route': not bounded in time"),
    "macro that does not exist": (_ask("$__timeInterval(", "$__timeGroup("), "unknown macro $__timeGroup"),
    "bracket that is not closed": (_ask("$__timeInterval(r.time)", "$__timeInterval((r.time"), "a bracket is not closed"),
    "variable that is not quoted": (_ask("${route:singlequote}", "${route}"), "so that values are quoted"),
    "variable that the dashboard has not": (_missing, "uses the variable 'route', which the dashboard has not"),
    "variable that no query uses": (_unused, "variable 'tenant': no query uses it"),
    "metric that nobody exports": (_ask("SELECT", "SELECT 'headwatch.grounding.ration' AS metric,"),
                                   "asks for 'headwatch.grounding.ration'"),
    "attribute that no metric has": (_ask("r.arm", "m.Attributes['headwatch.rute']"),
                                     "asks for the attribute 'headwatch.rute'"),
    "panel type that is not ours": (_set("layerheadmap", "type"), "type 'layerheadmap' is none"),
    "id given twice": (_set(2, "id"), "id 2 is given to 2 panels"),
    "panels that overlap": (_set({"x": 0, "y": 0, "w": 4, "h": 4}, "gridPos"), "lies over"),
    "panel that leaves the grid": (_set({"x": 20, "y": 90, "w": 8, "h": 4}, "gridPos"), "leaves the grid"),
    "key that Grafana does not know": (_set("x", "descripton"), "descripton"),
    "option that the panel type does not know": (_set(True, "options", "showLegendd"), "showLegendd"),
    "setting that the panel type does not know": (_set(3, "fieldConfig", "defaults", "custom", "lineWeight"), "lineWeight"),
    "setting of a column that the panel type does not know": (_override("custom.widht", 3), "widht"),
    "value of the wrong type": (_set("3", "fieldConfig", "defaults", "decimals"), "'3'"),
    "draw style that does not exist": (_set("dots", "fieldConfig", "defaults", "custom", "drawStyle"), "drawStyle"),
    "other data source": (_set({"type": "prometheus", "uid": "x"}, "targets", 0, "datasource"), "data source"),
    "format of the other kind": (_set(1, "targets", 0, "format"), "format 1"),
    "colour that Grafana does not know": (_override("color", {"mode": "fixed", "fixedColor": "crimson"}),
                                          "colour 'crimson' is none"),
    "series that look alike to the colour-blind": (_alike, "look alike with deuteranopia"),
}  # fmt: skip


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_found_by_name(dashboards: dict[str, Any], error: str) -> None:
    """The dashboard without it passes; with it, the check says what is wrong."""
    change, expected = PLANTED[error]
    broken = copy.deepcopy(dashboards["grounding"])
    assert check_dashboard(broken) == []
    change(broken)
    problems = check_dashboard(broken)
    assert any(expected in problem for problem in problems), problems


LINKS = {
    "link to a dashboard that is not there": ("/d/headwatch-incidents?", "'headwatch-incidents', which is no dashboard"),
    "link with a variable that is not there": ("/d/headwatch-incident?var-id=1&", "sets 'id', which 'headwatch-incident'"),
}


@pytest.mark.parametrize("error", LINKS)
def test_a_link_that_leads_nowhere_is_found(dashboards: dict[str, Any], error: str) -> None:
    wrong, expected = LINKS[error]
    broken = json.loads(json.dumps(dashboards["overview"]).replace("/d/headwatch-incident?", wrong))
    others = [dashboard for slug, dashboard in dashboards.items() if slug != "overview"]
    problems = link_problems([broken, *others])
    assert any(expected in problem for problem in problems), problems


def test_a_uid_given_to_two_dashboards_is_found(dashboards: dict[str, Any]) -> None:
    (problem,) = link_problems([copy.deepcopy(dashboards["heads"]), *dashboards.values()])
    assert problem == "uid 'headwatch-heads' is given to several dashboards"


def test_there_are_enough_of_them() -> None:
    assert len(PLANTED) + len(LINKS) + 1 >= 25


def test_distances_are_those_of_what_is_seen() -> None:
    """Red and green are far apart for most people and hardly for one man in twelve; orange and blue are for all."""
    assert distance("red", "green", "deuteranopia") < LEAST_DISTANCE / 2
    assert min(distance("orange", "blue", vision) for vision in ("protanopia", "deuteranopia")) > 3 * LEAST_DISTANCE
    assert distance("red", "red", "protanopia") == 0
