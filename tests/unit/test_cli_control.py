"""``headwatch control``: what a person types becomes the change that was meant, and what comes back can be read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headwatch.cli.main import main
from headwatch.config import RouteConfig
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticView
from headwatch.control.controller import Controller
from headwatch.health import WorkerHealth
from headwatch.wire.control import Target

from .controls import Clock, controller
from .sidecars import health, reporting

TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class Desk:
    """A sidecar's live control behind a real HTTP server, and a command line that knows its token."""

    config: Path
    url: str
    made: Controller
    workers: list[WorkerHealth] = field(default_factory=list)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    workers: list[WorkerHealth] = []
    made = controller(tmp_path, Clock(), workers)
    made.start()
    server = HttpServer(create_app(StaticView(health(), control=made), token=TOKEN.encode()), "127.0.0.1", 0)
    server.start()
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    config = tmp_path / "headwatch.toml"
    config.write_text(f"[http]\nport = {server.port}\ntoken_file = '{tmp_path}/token'\n")
    yield Desk(config, f"http://127.0.0.1:{server.port}", made, workers)
    server.stop()
    made.stop()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("HEADWATCH_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def ask(desk: Desk, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command with ``--json`` and return its document."""

    def run(*words: str) -> Any:
        assert main(["control", *words, "--json", "--config", str(desk.config)]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_what_is_typed_is_what_is_ordered(ask: Callable[..., Any], desk: Desk):
    assert ask("set", "--rate", "0.5", "--step-stride", "2")["everything"] == {"sample_rate": 0.5, "step_stride": 2}
    routes = ask("set", "--route", "hr", "--detail", "0", "--prefill-stride", "0")["routes"]
    assert routes == {"hr": {"detail": 0, "prefill_stride": 0}}
    off = ask("off", "--for", "600", "--why", "it is hot")
    assert (off["enabled"], off["seconds_left"]) == (False, 600.0)
    assert ask("on")["enabled"] is True
    assert ask("set", "--rate", "1", "--for", "0")["seconds_left"] is None
    raised = ask("raise", "--route", "hr", "--context-from", "512", "--detail", "1", "--for", "60")["raises"]
    number = raised[0]["number"]
    assert (raised[0]["target"], raised[0]["to"]) == ({"route": "hr", "context_from": 512}, {"detail": 1})
    assert ask("end", str(number))["raises"] == []
    assert ask("reset", "--route", "hr")["routes"] == {}
    state = ask("reset")
    assert (state["everything"], state["routes"], state["raises"]) == ({}, {}, [])
    assert ask("show") == state
    entries = ask("audit", "--limit", "3")
    assert [entry["action"] for entry in entries] == ["reset", "reset", "end"]
    assert all("@" in entry["who"] for entry in entries)


def test_the_state_can_be_read_by_people(ask: Callable[..., Any], desk: Desk, capsys: pytest.CaptureFixture[str]):
    ask("set", "--rate", "0.5")
    desk.made.make(_raise(), "incident 7")
    desk.workers.append(reporting(control_epoch=1002, sample_rate=0.5, errors={"control_mac": 3}))
    assert main(["control", "show", "--config", str(desk.config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "epoch 1002, acknowledged by 1 of 1 workers",
        "capture: on",
        "ordered: sample_rate 0.5",
        "raise 1002: detail 1 where route hr, for 30 s more, by incident 7: evidence",
    ]
    assert lines[4].split() == ["worker", "epoch", "follows", "rate", "step", "stride", "detail", "messages", "refused"]
    assert lines[5].split() == ["engine-1/0", "1002", "yes", "0.5", "8", "1", "control_mac", "3"]
    assert main(["control", "audit", "--config", str(desk.config)]) == 0
    shown = capsys.readouterr().out
    assert "  1002  raise  incident 7: evidence\n" in shown
    assert "    everything.sample_rate: None → 0.5\n" in shown


def test_a_change_waits_until_the_workers_follow(ask: Callable[..., Any], desk: Desk):
    desk.workers.append(reporting(control_epoch=0))
    slow = ask("set", "--rate", "0.5", "--wait", "0.5")
    assert (slow["acknowledged"], slow["of"]) == (0, 1)
    desk.workers[:] = [reporting(control_epoch=1002)]
    assert ask("off")["acknowledged"] == 1


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["set"], "nothing to set: give a sample_rate", 1),
        (["set", "--rate", "2"], "Expected `float` <= 1.0", 1),
        (["set", "--rate", "nan"], "JSON is malformed", 1),
        (["set", "--detail", "99"], "Expected `int` <= ", 1),
        (["raise", "--detail", "1"], "required: --for", 2),
        (["end", "5"], "there is no raise 5", 1),
        (["reset", "--route", "nowhere"], "route 'nowhere' has no orders", 1),
        (["sett"], "invalid choice: 'sett'", 2),
        (["audit", "--limit", "0"], "limit='0': give a whole number", 1),
    ],
)
def test_a_mistake_is_one_line(desk: Desk, capsys: pytest.CaptureFixture[str], words: list[str], message: str, code: int):
    assert main(["control", *words, *(["--config", str(desk.config)] if code == 1 else [])]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert desk.made.audit(10) == []


def test_without_the_token_the_sidecars_words_are_shown(desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["control", "off", "--url", desk.url]) == 1
    assert "the bearer token is missing or wrong (http.token_file) (401)" in capsys.readouterr().err
    (tmp_path / "other").write_text("x" * 32)
    (tmp_path / "other").chmod(0o644)
    assert main(["control", "off", "--url", desk.url, "--token-file", str(tmp_path / "other")]) == 2
    assert "chmod 600" in capsys.readouterr().err
    assert main(["control", "off", "--url", desk.url, "--token-file", str(tmp_path / "token")]) == 0
    assert "capture: off" in capsys.readouterr().out


def test_where_nothing_answers_it_says_so(capsys: pytest.CaptureFixture[str]):
    assert main(["control", "show", "--url", "http://127.0.0.1:9"]) == 1
    assert "http://127.0.0.1:9: no sidecar answers there" in capsys.readouterr().err


def test_live_control_that_is_off_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    view = StaticView(health(), control=controller(tmp_path, Clock(), secret=b""))
    server = HttpServer(create_app(view, token=TOKEN.encode()), "127.0.0.1", 0)
    server.start()
    try:
        assert main(["control", "show", "--url", f"http://127.0.0.1:{server.port}"]) == 0
    finally:
        server.stop()
    assert capsys.readouterr().out.startswith("live control is off: wire.control_secret_file names no secret")


def _raise() -> Any:
    from headwatch.control.orders import Change

    return Change("raise", target=Target(route="hr"), to=RouteConfig(detail=1), seconds=30.0, why="evidence")
