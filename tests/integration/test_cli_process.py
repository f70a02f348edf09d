"""Commands as processes: what stands on stdout and stderr, how they end, and the real sidecar from start to stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from headwatch import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADWATCH = [sys.executable, "-m", "headwatch.cli.main"]
START_SECONDS = 60.0
STOP_SECONDS = 10.0


def clean_environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWATCH_", "VLLM_PLUGINS"))}
    return {**kept, **settings}


def headwatch(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HEADWATCH, *arguments], capture_output=True, text=True, check=False, timeout=120, env=clean_environment(**settings)
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def settings_of(path: Path, port: int, **settings: str) -> dict[str, str]:
    return {
        "HEADWATCH_HTTP_PORT": str(port),
        "HEADWATCH_WIRE_ENDPOINT": f"ipc://{path}/wire",
        "HEADWATCH_STORE_URL": f"chdb://{path}/store",
        **settings,
    }


def answers(url: str) -> bool:
    try:
        return bool(httpx.get(url).json() == {"status": "ok"})
    except httpx.TransportError:
        return False


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


@contextmanager
def sidecar(settings: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the sidecar and give its process once it answers; end it hard where the test has not ended it."""
    url = f"http://127.0.0.1:{settings['HEADWATCH_HTTP_PORT']}/healthz"
    with subprocess.Popen(
        [*HEADWATCH, "sidecar", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(**settings),
    ) as process:  # fmt: skip
        try:
            until(lambda: process.poll() is not None or answers(url))
            assert process.poll() is None, process.communicate()[1]
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_the_installed_command_and_the_module_are_the_same():
    script = Path(sys.executable).with_name("headwatch")
    done = subprocess.run([script, "version", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(headwatch("version", "--json").stdout)
    assert json.loads(done.stdout)["headwatch"] == __version__


def test_an_error_is_one_line_and_stdout_stays_empty():
    done = headwatch("config", "show", "--json", HEADWATCH_CAPTURE_SAMPLE_RATTE="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("headwatch: error: environment variable HEADWATCH_CAPTURE_SAMPLE_RATTE: unknown key")


def test_a_reader_that_goes_away_is_no_traceback():
    """As in `headwatch config show | head -1`."""
    with subprocess.Popen(
        [*HEADWATCH, "config", "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_what_an_engine_writes_to_stdout_lands_on_stderr():
    """Logs of C libraries and child processes, which know nothing of sys.stdout, included."""
    code = (
        "import os, subprocess\n"
        "from headwatch.cli.output import print_json, stdout_to_stderr\n"
        "with stdout_to_stderr():\n"
        "    print('python log')\n"
        "    os.write(1, b'native log\\n')\n"
        "    subprocess.run(['echo', 'child log'])\n"
        "print_json({'rows': 1})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"rows": 1}
    assert sorted(done.stderr.splitlines()) == ["child log", "native log", "python log"]


@pytest.mark.store
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_sidecar_runs_answers_and_ends_with_code_0(tmp_path: Path, number: signal.Signals):
    """Within ten seconds, with one JSON document at the end and logs on stderr; and the port is free again."""
    port = free_port()
    settings = settings_of(tmp_path, port)
    with sidecar(settings, "--json") as process, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reasons"] == ["no worker has reported yet"]
        assert client.get("/api/v1/status").json()["workers"] == []
        assert client.get("/api/v1/counts").json()["requests"] == 0
        until(lambda: b"headwatch_exporter_up" in client.get("/metrics").content)
        assert "no worker has reported yet" in client.get("/").text
        process.send_signal(number)
        out, log = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 0, log
    assert json.loads(out)["exit_code"] == 0
    assert f"http://127.0.0.1:{port}" in log
    assert "Traceback" not in log
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.store
def test_what_the_sidecar_needs_and_another_holds_is_one_clear_line(tmp_path: Path):
    """HTTP port, workers' endpoint, store: each in use by a running sidecar, met by a second one, and by the doctor."""
    settings = settings_of(tmp_path, free_port())
    other = tmp_path / "other"
    other.mkdir()
    away = settings_of(other, free_port())
    with sidecar(settings):
        for name, words in (
            ("HEADWATCH_HTTP_PORT", "http.port"),
            ("HEADWATCH_WIRE_ENDPOINT", "wire.endpoint"),
            ("HEADWATCH_STORE_URL", "in use by another process"),
        ):
            done = headwatch("sidecar", **{**away, name: settings[name]})
            assert (done.returncode, done.stdout) == (1, ""), name
            errors = [line for line in done.stderr.splitlines() if line.startswith("headwatch: error: ")]
            assert len(errors) == 1
            assert words in errors[0]
            assert "Traceback" not in done.stderr
        found = headwatch("doctor", "--json", **settings)
        held = headwatch("doctor", "--json", **{**settings, "HEADWATCH_HTTP_PORT": away["HEADWATCH_HTTP_PORT"]})
    checks = {check["name"]: check for check in json.loads(found.stdout)["checks"]}
    assert found.returncode == 1
    assert [name for name, check in checks.items() if check["status"] == "fail"] == ["workers"], "no vLLM runs in this test"
    checks = {check["name"]: check for check in json.loads(held.stdout)["checks"]}
    assert "is in use by process" in checks["store"]["message"]
    assert "is in use by another program" in checks["wire"]["message"]
    assert "nothing listens there" in checks["sidecar"]["message"]
