"""``/metrics`` as a real Prometheus and a real promtool see it."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from headwatch.config import PrometheusConfig
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch_exporters.prometheus import PrometheusExporter

from ..peers import peer
from ..programs import free_port, running, wait_for
from ..traffic import EMPTY, delivery, worker
from ..unit.incidents import found

pytestmark = pytest.mark.peer

CONFIG = """\
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
scrape_configs:
  - job_name: headwatch
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class _View:
    """A sidecar without a store whose exposition is that of an exporter."""

    reader = None

    def __init__(self, exporter):
        self.render_metrics = exporter.render

    def health(self):
        return EMPTY.health

    def readiness(self):
        return []


@pytest.fixture(scope="module")
def exporter():
    """Two minutes of two engines that serve the same model."""
    made = PrometheusExporter(PrometheusConfig())
    for number in (0, 1):
        made.export(delivery(number))
    both = delivery(2, identity=worker("engine-2"), route='it\'s "quoted"\\\n')
    made.export(found(both))
    yield made
    made.close()


@pytest.fixture(scope="module")
def prometheus(exporter, tmp_path_factory):
    """A Prometheus that scrapes the exporter over HTTP; calling it asks its API."""
    folder = tmp_path_factory.mktemp("prometheus")

    server = HttpServer(create_app(_View(exporter)), "127.0.0.1", 0)
    server.start()
    (folder / "prometheus.yml").write_text(CONFIG.format(port=server.port))
    port = free_port()

    def ask(path, **parameters):
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def ready():
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2).close()
        except OSError:
            return False
        return True

    command = [
        str(peer("prometheus")), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    try:
        with running(command, folder / "prometheus.log", ready):
            wait_for(lambda: ask("query", query="headwatch_capture_up")["result"], "the first scrape")
            yield ask
    finally:
        server.stop()


def test_promtool_has_no_complaint(exporter):
    """Every metric has help, counters end in _total, units are base units."""
    body, _ = exporter.render(None)
    done = subprocess.run([peer("promtool"), "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("age", "up", "fires"),
    [
        pytest.param(901, {"a": 1, "b": 0}, True, id="behind, and one worker captures"),
        pytest.param(901, {"a": 0, "b": 0}, False, id="behind while no worker captures"),
        pytest.param(901, {}, False, id="behind before any worker came"),
        pytest.param(900, {"a": 1, "b": 1}, False, id="three intervals"),
    ],
)
def test_the_rule_of_the_documentation_fires_where_canaries_are_behind_though_a_worker_captures(tmp_path, age, up, fires):
    """As the page has it, with the names that are exported; the workers of another sidecar do not count."""
    page = (Path(__file__).parents[2] / "docs" / "canaries.md").read_text()
    (rule,) = re.findall(r"```yaml\n(- alert: .*?)```", page, re.DOTALL)
    (tmp_path / "rules.yml").write_text("groups:\n- name: documented\n  rules:\n" + textwrap.indent(rule, "  "))
    here = 'job="headwatch", instance="one:9100"'
    series = {
        f"headwatch_canary_run_age_seconds{{{here}}}": age, f"headwatch_canary_interval_seconds{{{here}}}": 300,
        'headwatch_capture_up{job="headwatch", instance="two:9100", service_instance_id="a"}': 1,
    }  # fmt: skip
    series |= {f'headwatch_capture_up{{{here}, service_instance_id="{name}"}}': value for name, value in up.items()}
    expected = [{"exp_labels": {"job": "headwatch", "instance": "one:9100"}}] if fires else []
    case = {
        "input_series": [{"series": name, "values": f"{value}x10"} for name, value in series.items()],
        "alert_rule_test": [{"eval_time": "6m", "alertname": "HeadwatchCanariesBehind", "exp_alerts": expected}],
    }
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [{"interval": "1m", **case}]}))
    done = subprocess.run([peer("promtool"), "test", "rules", tmp_path / "test.yml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scrape_succeeds(prometheus):
    """Prometheus takes all of it: no duplicate, no parse error, type and help known."""
    (target,) = prometheus("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    about = prometheus("metadata", metric="headwatch_grounding_ratio")["headwatch_grounding_ratio"][0]
    assert about["type"] == "histogram"
    assert about["help"].startswith("Lookback of a request")


def test_grounding_by_route_can_be_asked_for(prometheus):
    """The mean ratio of a route is what was measured."""
    ratios = [
        request.grounding_ratio
        for number in (0, 1)
        for request in delivery(number).requests
        if request.grounding_ratio is not None
    ]
    query = 'headwatch_grounding_ratio_sum{headwatch_heads="all"} / headwatch_grounding_ratio_count'
    by_route = {
        row["metric"]["headwatch_route"]: float(row["value"][1]) for row in prometheus("query", query=query)["result"]
    }
    assert by_route["support"] == pytest.approx(sum(ratios) / len(ratios))
    assert 'it\'s "quoted"\\\n' in by_route, "a route with quotes and line breaks arrives as it was"


def test_layer_bands_and_worst_heads_are_there_and_no_other_heads(prometheus):
    """Few series: bands for every feature, and the ten heads that look back least."""
    bands = prometheus("query", query='headwatch_attention_lookback_count{headwatch_phase="decode"}')["result"]
    assert {row["metric"]["headwatch_layer_band"] for row in bands} == {"0-1", "2-2", "3-3", "4-5"}
    heads = prometheus("query", query='headwatch_attention_worst_lookback{headwatch_route="support"}')["result"]
    assert len(heads) == PrometheusConfig().worst_heads
    with_head = prometheus("query", query='count({headwatch_head!="", __name__!="headwatch_attention_worst_lookback"})')
    assert with_head["result"] == []


def test_health_of_every_part_is_there(prometheus):
    """Each exporter with its own state and duration, ingest, the worker."""
    up = prometheus("query", query="headwatch_exporter_up")["result"]
    assert {row["metric"]["headwatch_exporter"]: row["value"][1] for row in up} == {"clickhouse": "1", "prometheus": "1"}
    assert len(prometheus("query", query="headwatch_exporter_duration_seconds")["result"]) == 2
    (worker_up,) = prometheus("query", query="headwatch_capture_up")["result"]
    assert worker_up["metric"]["service_instance_id"] == "engine-2"


def test_incidents_can_be_paged_from_and_pagers_watched(prometheus):
    """An incident that nobody silenced, and a mirror that is away."""
    open_now = prometheus("query", query="sum by (headwatch_incident_class) (headwatch_incident_open) > 0")["result"]
    assert [(row["metric"]["headwatch_incident_class"], row["value"][1]) for row in open_now] == [("retrieval", "1")]
    near = prometheus("query", query="headwatch_drift_clock / headwatch_drift_threshold")["result"]
    assert [float(row["value"][1]) for row in near] == [pytest.approx(2.5 / 4.6)]
    down = prometheus("query", query="headwatch_pager_up == 0")["result"]
    assert [row["metric"]["headwatch_pager"] for row in down] == ["grafana"]


def test_a_part_that_fails_does_not_fail_the_scrape(exporter, prometheus, monkeypatch):
    """The target stays up and the other parts fresh; the broken one is missing, not wrong."""

    def broken():
        raise RuntimeError("a part is broken")

    monkeypatch.setattr(exporter, "_collect_heads", broken)
    gone = "the worst heads to be stale"
    wait_for(lambda: not prometheus("query", query="headwatch_attention_worst_lookback")["result"], gone)
    assert [row["value"][1] for row in prometheus("query", query="up")["result"]] == ["1"]
    assert prometheus("query", query="headwatch_grounding_ratio_count")["result"]
