"""Every alert rule for Prometheus, as promtool runs it: it fires where it should, and is silent where it should be."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwatch_dashboards.build import generated_files, write
from headwatch_dashboards.prometheus import drift_rules, grounding_rules, health_rules

from ..peers import peer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dashboards" / "prometheus"
ONE = 'job="headwatch", instance="one:9464"'
MODEL = 'gen_ai_request_model="smol"'
INCIDENT = (
    f'headwatch_incident_paging{{{ONE}, {MODEL}, headwatch_incident_id="hw-1", headwatch_incident_class="retrieval", '
    'headwatch_incident_severity="critical", headwatch_route="support", headwatch_incident_heads="L3.H4 L5.H1"}'
)
SPOOL = {f"headwatch_spool_limit_bytes{{{ONE}}}": "1000x90"}


def _requests(absent: str, measured: str) -> dict[str, str]:
    name = f"headwatch_grounding_requests_total{{{ONE}, {MODEL}, headwatch_route="
    return {f'{name}"support", headwatch_state="absent"}}': absent, f'{name}"support", headwatch_state="measured"}}': measured}


def _ratio(total: str) -> dict[str, str]:
    labels = f'{ONE}, {MODEL}, headwatch_route="support", headwatch_heads="all"'
    return {
        f"headwatch_grounding_ratio_sum{{{labels}}}": total, f"headwatch_grounding_ratio_count{{{labels}}}": "0+10x400",
        **_requests("0x400", "0+10x400"),
    }  # fmt: skip


CAPTURING = {f"headwatch_capture_up{{{ONE}}}": "1x90", f"headwatch_canary_interval_seconds{{{ONE}}}": "300x90"}
UP = f"up{{{ONE}}}"
PAGER = f'headwatch_pager_up{{{ONE}, headwatch_pager="webhook", headwatch_pager_role="'
CASES: tuple[tuple[str, str, dict[str, str], str, int], ...] = (
    ("HeadwatchIncident", "an incident pages", {INCIDENT: "1x90"}, "1m", 1),
    ("HeadwatchIncident", "a scrape that failed ends no page", {INCIDENT: "1x5 _x3 1x9"}, "7m", 1),
    ("HeadwatchIncident", "it is over", {INCIDENT: "1x5 _x40"}, "20m", 0),
    ("HeadwatchIncident", "another route pages, and there is no series", {UP: "1x90"}, "20m", 0),
    ("HeadwatchWatchdog", "it is well while it fires", {UP: "1x90"}, "1m", 1),
    ("HeadwatchWatchdog", "the sidecar is away", {UP: "0x90"}, "1m", 0),
    ("HeadwatchSidecarDown", "it does not answer", {UP: "0x90"}, "6m", 1),
    ("HeadwatchSidecarDown", "nobody scrapes it", {'up{job="other"}': "1x90"}, "6m", 1),
    ("HeadwatchSidecarDown", "it starts again", {UP: "1x5 0x3 1x90"}, "9m", 0),
    ("HeadwatchCaptureDown", "a worker is silent", {f"headwatch_capture_up{{{ONE}}}": "1x5 0x90"}, "12m", 1),
    ("HeadwatchCaptureDown", "it captures", {f"headwatch_capture_up{{{ONE}}}": "1x90"}, "12m", 0),
    ("HeadwatchDataStale", "the store is away", {f"headwatch_spool_age_seconds{{{ONE}}}": "0+60x90"}, "15m", 1),
    ("HeadwatchDataStale", "deliveries wait for seconds", {f"headwatch_spool_age_seconds{{{ONE}}}": "4x90"}, "15m", 0),
    ("HeadwatchSpoolFilling", "it is nearly full", {f"headwatch_spool_bytes{{{ONE}}}": "900x90", **SPOOL}, "15m", 1),
    ("HeadwatchSpoolFilling", "it will be", {f"headwatch_spool_bytes{{{ONE}}}": "300+4x90", **SPOOL}, "60m", 1),
    ("HeadwatchSpoolFilling", "it breathes", {f"headwatch_spool_bytes{{{ONE}}}": "100 120 90 110x90", **SPOOL}, "60m", 0),
    ("HeadwatchCanariesBehind", "runs fail though a worker captures",
     {f"headwatch_canary_run_age_seconds{{{ONE}}}": "901x90", **CAPTURING}, "6m", 1),
    ("HeadwatchCanariesBehind", "no worker captures",
     {f"headwatch_canary_run_age_seconds{{{ONE}}}": "901x90", **CAPTURING, f"headwatch_capture_up{{{ONE}}}": "0x90"}, "6m", 0),
    ("HeadwatchCanariesBehind", "three intervals",
     {f"headwatch_canary_run_age_seconds{{{ONE}}}": "900x90", **CAPTURING}, "6m", 0),
    ("HeadwatchPagerDown", "the route does not take messages", {f'{PAGER}page"}}': "0x90"}, "12m", 1),
    ("HeadwatchPagerDown", "a mirror does not", {f'{PAGER}mirror"}}': "0x90"}, "12m", 0),
    ("HeadwatchGroundingLost", "from 0.6 to 0.3", _ratio("0+6x380 2283+3x20"), "400m", 1),
    ("HeadwatchGroundingLost", "from 0.6 to 0.55", _ratio("0+6x380 2285+5.5x20"), "400m", 0),
    ("HeadwatchRetrievalAbsent", "documents cease to come", _requests("0x380 10+10x20", "0+10x380 3800x20"), "400m", 1),
    ("HeadwatchRetrievalAbsent", "they never came", _requests("0+10x400", "0x400"), "400m", 0),
    ("HeadwatchRetrievalAbsent", "two requests without", _requests("0x380 1 2x20", "0+1x400"), "390m", 0),
)
"""Alert, what happens, the series, when it is looked at, and how many alerts fire then."""


def _promtool(folder: Path, case: dict[str, Any]) -> None:
    (folder / "test.yml").write_text(json.dumps({"rule_files": [str(FOLDER / "*.rules.yaml")], "tests": [case]}))
    done = subprocess.run([peer("promtool"), "test", "rules", folder / "test.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def _fires(folder: Path, alert: str, series: dict[str, str], at: str) -> bool:
    """Return whether *alert* fires; promtool fails a test that names none where one does."""
    listed = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": listed, "alert_rule_test": [
        {"eval_time": at, "alertname": alert, "exp_alerts": []},
    ]}  # fmt: skip
    (folder / "test.yml").write_text(json.dumps({"rule_files": [str(FOLDER / "*.rules.yaml")], "tests": [test]}))
    done = subprocess.run([peer("promtool"), "test", "rules", folder / "test.yml"], capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 0 or f"alertname: {alert}" in told, told
    return done.returncode != 0


@pytest.mark.parametrize(("alert", "when", "series", "at", "firing"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES])
def test_a_rule_fires_and_is_silent(
    tmp_path: Path, alert: str, when: str, series: dict[str, str], at: str, firing: int
) -> None:
    assert _fires(tmp_path, alert, series, at) == bool(firing), when


def test_every_rule_is_seen_firing_and_silent() -> None:
    names = {rule.name for rule in (*drift_rules(), *health_rules(), *grounding_rules())}
    assert names == {alert for alert, *_, firing in CASES if firing} == {alert for alert, *_, firing in CASES if not firing}


def test_an_incident_carries_its_names_and_links(tmp_path: Path) -> None:
    """Class, severity, route, model and heads are in the alert; runbook and dashboard lead to those of this incident."""
    labels = {
        "job": "headwatch", "instance": "one:9464", "gen_ai_request_model": "smol", "headwatch_incident_id": "hw-1",
        "headwatch_incident_class": "retrieval", "headwatch_incident_severity": "critical", "headwatch_route": "support",
        "headwatch_incident_heads": "L3.H4 L5.H1", "severity": "critical", "component": "headwatch", "class": "retrieval",
        "incident": "hw-1", "route": "support", "model": "smol",
    }  # fmt: skip
    annotations = {
        "summary": "[critical] retrieval: hw-1 on smol support",
        "description": "Heads: L3.H4 L5.H1. `headwatch incident show hw-1` has what happened, how sure that is, and the heads, "
                       "documents and requests to look at.",
        "runbook_url": "https://github.com/headwatch/headwatch/blob/main/docs/runbooks/retrieval.md",
        "dashboard_url": "http://localhost:3000/d/headwatch-incident?var-incident=hw-1",
    }  # fmt: skip
    _promtool(tmp_path, {
        "interval": "1m", "input_series": [{"series": INCIDENT, "values": "1x9"}],
        "alert_rule_test": [{"eval_time": "1m", "alertname": "HeadwatchIncident",
                             "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}]}],
    })  # fmt: skip


def test_promtool_and_amtool_read_the_files() -> None:
    for path in FOLDER.glob("*.rules.yaml"):
        done = subprocess.run([peer("promtool"), "check", "rules", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    example = FOLDER / "alertmanager.example.yaml"
    done = subprocess.run([peer("amtool"), "check-config", example], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook_that_is_there_and_its_dashboard() -> None:
    files = generated_files()
    uids = {json.loads(text)["uid"] for name, text in files.items() if name.endswith(".json")}
    rules = [rule for name in ("headwatch", "headwatch-without-drift")
             for rule in yaml.safe_load(files[f"prometheus/{name}.rules.yaml"])["groups"][0]["rules"]]  # fmt: skip
    for rule in rules:
        runbook = rule["annotations"]["runbook_url"].rpartition("/")[2]
        assert "{{" in runbook or (ROOT / "docs" / "runbooks" / runbook).is_file(), rule["alert"]
        assert rule["annotations"]["dashboard_url"].partition("/d/")[2].partition("?")[0] in uids, rule["alert"]
        assert rule["labels"]["component"] == "headwatch"


def test_links_lead_to_ones_own_grafana(tmp_path: Path) -> None:
    write(tmp_path, "https://grafana.example/")
    text = (tmp_path / "prometheus" / "headwatch.rules.yaml").read_text()
    assert "https://grafana.example/d/headwatch-health" in text
    assert "localhost" not in text
