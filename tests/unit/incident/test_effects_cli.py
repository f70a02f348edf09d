"""``headwatch incident effects``: asks the running sidecar, and says so where none runs."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from headwatch.cli.main import main
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticReader, StaticView
from headwatch.findings import Exhibits
from headwatch.incident.book import Book

from ..sidecars import health
from .cases import event, signal, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def size(value: float) -> dict[str, float]:
    return {"value": value, "by_chance": value / 4, "rarely_by_chance": value / 2}


def moved(**changes: Any) -> dict[str, Any]:
    kept = {
        "layer": 15, "head": 7, "feature": "distance", "route": "support", "phase": "decode", "requests_before": 412,
        "requests_since": 35, "mean_before": 0.589, "mean_since": 0.525, "wasserstein": size(0.064),
        "jensen_shannon": size(0.44), "psi": size(3.2),
    }  # fmt: skip
    return kept | changes


FEW = moved(head=8, route="", phase="prefill", requests_since=3, wasserstein=None, jensen_shannon=None, psi=None)
TABLE: dict[str, Any] = {
    "model": "smol", "first_ns": 10**18, "since_ns": 10**18 + 3600 * 10**9, "last_ns": 10**18 + 7200 * 10**9,
    "heads": [moved(model="smol"), FEW | {"model": "smol"}],
}  # fmt: skip


@dataclass
class Desk:
    """A sidecar behind a real HTTP server, its book, and the settings that lead to it."""

    book: Book
    config: str
    url: str


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("HEADWATCH_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """What serves a store, or none, to the command line; the file of incidents is not where the settings look."""
    book = Book(tmp_path / "incidents.db")
    servers = []

    def served(reader: StaticReader | None) -> Desk:
        server = HttpServer(create_app(StaticView(health(), incidents=book, reader=reader)), "127.0.0.1", 0)
        server.start()
        servers.append(server)
        config = tmp_path / "headwatch.toml"
        config.write_text(f"[http]\nport = {server.port}\n[drift]\nfolder = '{tmp_path}/elsewhere'\n")
        return Desk(book, str(config), f"http://127.0.0.1:{server.port}")

    yield served
    for server in servers:
        server.stop()
    book.close()


@pytest.fixture
def desk(serve: Any) -> Desk:
    return serve(StaticReader(effect_table=TABLE))


def opened(desk: Desk, route: str = "support", windows: int = 3) -> str:
    found = event(signal("documents_absent", 0.0, 0.9, route=route), windows=windows)
    return desk.book.open(found, verdict(), Exhibits()).incident.id


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["incident", "effects", *arguments]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    return shown.err


def test_the_sizes_are_a_table_with_what_chance_gives_in_brackets(desk: Desk, capsys):
    name = opened(desk)
    assert main(["incident", "effects", name[:8], "--config", desk.config]) == 0
    title, heads, first, second, *notes = capsys.readouterr().out.splitlines()
    assert title == (f"{name}: sampled requests from 2001-09-09 01:46:40, since 2001-09-09 02:46:40, "
                     "to 2001-09-09 03:46:40 UTC")  # fmt: skip
    assert heads.split() == [
        "layer", "head", "feature", "route", "requests", "mean", "Wasserstein", "Jensen-Shannon", "PSI",
    ]  # fmt: skip
    assert first.split("  ")[-1].strip() == "3.2 (0.8, 1.6)"
    assert "412 → 35  0.589 → 0.525  0.064 (0.016, 0.032)  0.44 (0.11, 0.22)" in first
    assert [part.strip() for part in second.split("  ") if part.strip()][-4:] == ["0.589 → 0.525", "-", "-", "-"]
    assert "distance*" in second
    assert " all " in second
    assert [note[:20] for note in notes] == ["In brackets what cha", "-: fewer than 20 req", "*: named for rows of"]


def test_where_every_head_has_its_sizes_nothing_is_explained_that_is_not_shown(serve: Any, capsys):
    desk = serve(StaticReader(effect_table=TABLE | {"heads": [moved()]}))
    assert main(["incident", "effects", opened(desk), "--url", desk.url]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_model_of_a_head_is_shown_where_heads_of_several_are_named(serve: Any, capsys):
    desk = serve(StaticReader(effect_table=TABLE | {"heads": [moved(model="smol"), moved(model="b\x1big")]}))
    opened(desk)
    assert main(["incident", "effects", "--url", desk.url]) == 0
    _, heads, first, second, *_ = capsys.readouterr().out.splitlines()
    assert heads.split()[:3] == ["model", "layer", "head"]
    assert [row.split()[:3] for row in (first, second)] == [["smol", "15", "7"], ["b?ig", "15", "7"]]


def test_json_is_what_the_sidecar_answers(desk: Desk, capsys):
    name = opened(desk)
    assert main(["incident", "effects", name, "--config", desk.config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"incident": name, **TABLE}


def test_without_an_id_it_is_the_latest_that_is_open_else_the_latest(desk: Desk, capsys):
    def asked() -> str:
        assert main(["incident", "effects", "--url", desk.url, "--json"]) == 0
        name: str = json.loads(capsys.readouterr().out)["incident"]
        return name

    assert "no incident has been kept yet" in refused(capsys, "--url", desk.url)
    first, later = opened(desk), opened(desk, "legal", 9)
    assert asked() == later
    desk.book.resolve(later, "ada", "true")
    assert asked() == first
    desk.book.resolve(first, "ada", "true")
    assert asked() == later


def test_an_incident_that_names_no_heads_is_a_sentence(serve: Any, capsys):
    desk = serve(StaticReader(effect_table=TABLE | {"heads": []}))
    name = opened(desk)
    assert main(["incident", "effects", "--url", desk.url]) == 0
    assert capsys.readouterr().out == f"{name} names no heads of traffic.\n"


def test_a_route_cannot_write_to_the_terminal(serve: Any, capsys):
    desk = serve(StaticReader(effect_table=TABLE | {"heads": [moved(route="a\x1b[2J")]}))
    opened(desk)
    assert main(["incident", "effects", "--url", desk.url]) == 0
    shown = capsys.readouterr().out
    assert "a?[2J" in shown
    assert "\x1b" not in shown


def test_what_is_wrong_is_one_line(serve: Any, desk: Desk, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "no sidecar answers there" in refused(capsys, "hw-1", "--url", f"http://127.0.0.1:{port}")
    assert "there is no incident 'hw-1?state=live'" in refused(capsys, "hw-1?state=live", "--url", desk.url)
    without = serve(None)
    assert "the store is off (store.enabled = false)" in refused(capsys, opened(without), "--url", without.url)
