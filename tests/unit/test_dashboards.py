"""The generated Grafana files: what is committed, what an operator sees in them, and that planted errors are found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from headwatch.config import IncidentConfig
from headwatch.metrics import BY_NAME
from headwatch_dashboards import build, names
from headwatch_dashboards.boards import BOARDS
from headwatch_dashboards.check import check_files
from headwatch_dashboards.lint import link_problems, panels
from headwatch_dashboards.macros import QueryRange, expand
from headwatch_dashboards.queries.alert import (
    CANARY_INTERVALS,
    CANARY_RANGE_SECONDS,
    INCIDENT_RANGE_SECONDS,
    canaries_behind,
    grounding_drop,
    paging_incidents,
)
from headwatch_exporters.paging.grafana import TAG

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "dashboards"


@pytest.fixture
def dashboards():
    return {board.slug: json.loads(json.dumps(board.build())) for board in BOARDS}


@pytest.fixture
def dashboard(dashboards):
    return dashboards["grounding"]


@pytest.fixture(scope="module")
def rule():
    document = yaml.safe_load((COMMITTED / "grafana" / "alerting" / "headwatch.yaml").read_text(encoding="utf-8"))
    (group,) = document["groups"]
    return next(one for one in group["rules"] if one["uid"] == names.ALERT_UID)


@pytest.fixture(scope="module")
def incident_rule():
    document = yaml.safe_load((COMMITTED / "grafana" / "alerting" / "headwatch.yaml").read_text(encoding="utf-8"))
    (group,) = document["groups"]
    return next(one for one in group["rules"] if one["uid"] == names.INCIDENT_ALERT_UID)


@pytest.fixture(scope="module")
def canary_rule():
    document = yaml.safe_load((COMMITTED / "grafana" / "alerting" / "headwatch.yaml").read_text(encoding="utf-8"))
    (group,) = document["groups"]
    return next(one for one in group["rules"] if one["uid"] == names.CANARY_ALERT_UID)


def titled(dashboard, title):
    return next(panel for panel in panels(dashboard) if panel["title"] == title)


def test_committed_files_are_those_the_code_generates():
    """What is committed is what `make dashboards` writes, and passes every check that needs no store."""
    assert check_files(COMMITTED) == []


def test_generating_twice_gives_the_same_bytes(tmp_path):
    """A second run changes nothing."""
    first, second = tmp_path / "a", tmp_path / "b"
    build.write(first)
    build.write(second)
    files = {str(path.relative_to(first)) for path in first.rglob("*") if path.is_file()}
    assert files == set(build.generated_files())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_a_changed_or_missing_file_is_reported(tmp_path):
    """A file edited by hand, and one that is not there, are each named with what to do."""
    build.write(tmp_path)
    edited, missing = tmp_path / "grafana/alerting/headwatch.yaml", tmp_path / "grafana/datasources/headwatch.yaml"
    edited.write_text(edited.read_text().replace("for: 5m", "for: 1s"))
    missing.unlink()
    problems = check_files(tmp_path)
    assert len(problems) == 2
    assert any(str(edited) in problem and "headwatch dashboards build" in problem for problem in problems)
    assert any(str(missing) in problem and "missing" in problem for problem in problems)


WANTED = {
    "overview": {"Incidents not resolved", "Detection", "Capture", "Newest report", "Incidents", "Routes", "Releases",
                 "Pages and rulings"},
    "grounding": {"Could grounding be measured?", "Grounding ratio by route", "Requests by grounding state",
                  "Document share by source", "Document share by rank", "Document share by age", "Preference by source",
                  "Least grounded requests"},
    "heads": {"Heads that fell most", "Heads that incidents name", "Feature by layer and head: earlier half",
              "Feature by layer and head: later half", "Feature by layer over time", "Grounding by layer and head"},
    "drift": {"Clock", "Evidence by place", "Effect sizes", "Strata", "Baselines in force"},
    "canaries": {"Canary deviation", "Canary deviation by layer", "Canary runs", "Releases", "Fingerprints in force"},
    "incident": {"Verdict", "What happened", "Why this class", "Evidence at the opening", "Evidence over the range", "Heads",
                 "Documents", "Requests"},
    "health": {"Overhead of capture", "Stride of the budget", "Query rows", "Frames lost", "Thinning of ingest",
               "Errors by reason", "Refused layers", "Spool", "Spool: share of its room", "Exporters", "Exporter lag"},
}


def test_the_panels_an_operator_needs_are_there(dashboards):
    """Each question of the on-call engineer has its panel, on the dashboard of its kind."""
    assert list(dashboards) == list(WANTED)
    for slug, wanted in WANTED.items():
        assert wanted <= {panel["title"] for panel in panels(dashboards[slug])}


def test_variables_choose_route_model_phase_and_feature(dashboards):
    """Route and model start at All and follow the time range; phase starts at decode, the feature at lookback."""
    route, model, phase, feature = dashboards["heads"]["templating"]["list"]
    assert [variable["name"] for variable in (route, model, phase, feature)] == ["route", "model", "phase", "feature"]
    for variable in (route, model):
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["current"]["value"] == ["$__all"]
        assert variable["refresh"] == 2
    assert (phase["current"]["value"], feature["current"]["value"]) == ("decode", "lookback")


def test_an_incident_in_a_table_leads_to_its_dashboard(dashboards):
    assert link_problems(list(dashboards.values())) == []
    linked = json.dumps(titled(dashboards["overview"], "Incidents"))
    assert "/d/headwatch-incident?${__url_time_range}&var-incident=${__value.raw}" in linked


def test_data_source_is_the_one_that_dashboard_and_rule_point_to(dashboard, rule):
    """The uid is pinned, and points to the sidecar's own port on loopback."""
    document = yaml.safe_load((COMMITTED / "grafana" / "datasources" / "headwatch.yaml").read_text(encoding="utf-8"))
    (source,) = document["datasources"]
    assert source["uid"] == names.DATASOURCE_UID
    assert source["type"] == "grafana-clickhouse-datasource"
    assert (source["jsonData"]["host"], source["jsonData"]["port"]) == ("127.0.0.1", 9464)
    assert (source["jsonData"]["protocol"], source["jsonData"]["path"]) == ("http", "clickhouse")
    assert all(panel["datasource"]["uid"] == source["uid"] for panel in panels(dashboard))
    assert rule["data"][0]["datasourceUid"] == source["uid"]


def test_commented_alternative_for_a_server_is_valid_when_uncommented():
    """An operator who takes the commented lines gets a file that Grafana reads, with the password from the environment."""
    text = (COMMITTED / "grafana" / "datasources" / "headwatch.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    start = lines.index("    # jsonData:")
    alternative = yaml.safe_load("\n".join(line.replace("    # ", "", 1) for line in lines[start:]))
    assert set(alternative) == {"jsonData", "secureJsonData"}
    assert alternative["secureJsonData"]["password"].startswith("$")


def test_alert_rule_reduces_then_thresholds_and_opens_a_panel(rule, dashboard):
    """The rule is a query, a reduction and a threshold with hysteresis, and leads to its panel and its runbook."""
    query, reduced, threshold = rule["data"]
    assert query["model"]["rawSql"] == grounding_drop()
    assert query["relativeTimeRange"] == {"from": 22200, "to": 0}
    assert (reduced["datasourceUid"], reduced["model"]["type"], reduced["model"]["expression"]) == ("__expr__", "reduce", "A")
    assert (threshold["model"]["type"], threshold["model"]["expression"], rule["condition"]) == ("threshold", "B", "C")
    (condition,) = threshold["model"]["conditions"]
    assert condition["evaluator"] == {"type": "gt", "params": [1]}
    assert condition["unloadEvaluator"] == {"type": "lt", "params": [0.5]}
    assert rule["noDataState"] in {"Alerting", "NoData", "OK", "KeepLast"}
    assert rule["execErrState"] in {"Alerting", "Error", "OK", "KeepLast"}
    assert rule["dashboardUid"] == dashboard["uid"]
    assert titled(dashboard, "Grounding ratio by route")["id"] == rule["panelId"]
    assert (ROOT / rule["annotations"]["runbook_url"]).is_file()


@pytest.mark.parametrize("sql", [grounding_drop(), canaries_behind(), paging_incidents()])
def test_alert_query_uses_no_dashboard_variable(sql):
    """Grafana expands no variables in alert queries: one that needs any would fail at every evaluation."""
    assert "$" not in expand(sql, QueryRange(0, 22200), {})


def test_one_cause_is_one_page(rule, incident_rule):
    """The rule on grounding is delivered paused: a fall of grounding opens an incident, and that one pages."""
    assert (rule["isPaused"], incident_rule["isPaused"]) == (True, False)


def test_incident_rule_has_a_series_for_each_incident_and_leads_to_its_runbook(incident_rule, dashboards):
    """Class and severity are labels of the series; nothing has to be read twice before it fires."""
    query, _, threshold = incident_rule["data"]
    assert query["model"]["rawSql"] == paging_incidents()
    assert query["relativeTimeRange"] == {"from": INCIDENT_RANGE_SECONDS, "to": 0}
    (condition,) = threshold["model"]["conditions"]
    assert condition["evaluator"] == {"type": "gt", "params": [0.5]}
    assert incident_rule["for"] == "0s"
    assert titled(dashboards["overview"], "Incidents")["id"] == incident_rule["panelId"]
    assert incident_rule["dashboardUid"] == dashboards["overview"]["uid"]
    assert incident_rule["annotations"]["runbook_url"] == f"{IncidentConfig().runbook_url}/{{{{ $labels.class }}}}.md"
    assert set(incident_rule["labels"]) == {"component"}


def test_canary_rule_waits_for_three_intervals_and_leads_to_the_panel_and_a_runbook_that_is_there(canary_rule, dashboards):
    query, _, threshold = canary_rule["data"]
    assert query["model"]["rawSql"] == canaries_behind()
    assert query["relativeTimeRange"] == {"from": CANARY_RANGE_SECONDS, "to": 0}
    (condition,) = threshold["model"]["conditions"]
    assert condition["evaluator"] == {"type": "gt", "params": [CANARY_INTERVALS]}
    assert titled(dashboards["canaries"], "Canary deviation")["id"] == canary_rule["panelId"]
    assert canary_rule["dashboardUid"] == dashboards["canaries"]["uid"]
    assert canary_rule["annotations"]["runbook_url"] == f"{IncidentConfig().runbook_url}/telemetry.md"
    assert "canaries do not run" in (ROOT / "docs/runbooks/telemetry.md").read_text(encoding="utf-8")
    named = set(re.findall(r"headwatch_[a-z_]+", canary_rule["annotations"]["description"]))
    assert named <= {metric.prometheus_name for metric in BY_NAME.values()}, "it names figures that are exported"
    assert named


def test_marks_of_incidents_are_found_by_the_tag_that_the_sidecar_gives_them(dashboard):
    marks, releases = dashboard["annotations"]["list"]
    assert marks["target"]["tags"] == [TAG]
    assert "headwatch_deploys" in releases["target"]["rawSql"]
