"""The doctor on what answers, and what is held, at the addresses that it was told."""

from __future__ import annotations

import fcntl
import http.server
import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headwatch.cli.main import main
from headwatch.config_file import load
from headwatch.console.static import StaticView
from headwatch.doctor import endpoints
from headwatch.doctor.context import Context, Finding, sidecar_url
from headwatch.doctor.probe import Probe, probe
from headwatch.errors import CommandError

from .doctors import DOWN, SOUND, closed_port, with_settings
from .sidecars import health, serving

if TYPE_CHECKING:
    from collections.abc import Iterator



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
