"""Live control over HTTP: anybody on the machine may look, only the token may change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticView
from headwatch.errors import ControlError

from .sidecars import health, reporting

TOKEN = b"0123456789abcdef0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN.decode()}"}


@dataclass
class Recording:
    """A live control that keeps what it was told."""

    changes: list[tuple[bytes, str]] = field(default_factory=list)

    def show(self) -> dict[str, Any]:
        return {"live": True, "changes": len(self.changes)}

    def audit(self, limit: int) -> list[dict[str, Any]]:
        return [{"epoch": number} for number in range(limit)]

    def change(self, body: bytes, peer: str) -> dict[str, Any]:
        if body in {b"off", b"invalid", b"unrecorded"}:
            raise ControlError(body.decode(), f"because it is {body.decode()}")
        self.changes.append((body, peer))
        return self.show()


@pytest.fixture
def control() -> Recording:
    return Recording()


def serve(view: StaticView, token: bytes) -> Iterator[httpx.Client]:
    server = HttpServer(create_app(view, token=token), "127.0.0.1", 0)
    server.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            yield client
    finally:
        server.stop()


@pytest.fixture
def client(control: Recording) -> Iterator[httpx.Client]:
    yield from serve(StaticView(health(reporting()), control=control), TOKEN)


@pytest.fixture
def closed(control: Recording) -> Iterator[httpx.Client]:
    yield from serve(StaticView(health(reporting()), control=control), b"")


def test_with_the_token_a_change_is_made(client: httpx.Client, control: Recording):
    answer = client.post("/api/v1/control", json={"action": "off"}, headers=BEARER)
    assert (answer.status_code, answer.json()) == (200, {"live": True, "changes": 1})
    assert [(json.loads(body), peer) for body, peer in control.changes] == [({"action": "off"}, "http 127.0.0.1")]


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", "Bearer  x", "Bearer wrong", f"Basic {TOKEN.decode()}", TOKEN.decode(), f"Bearer {TOKEN.decode()}x",
        "Bearer é",
    ],
)
def test_without_the_token_nothing_is_changed(client: httpx.Client, control: Recording, header: str):
    answer = client.post("/api/v1/control", json={"action": "off"}, headers={"Authorization": header.encode()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert control.changes == []


@pytest.mark.parametrize("headers", [{}, BEARER, {"Authorization": "Bearer"}])
def test_where_no_token_is_configured_nobody_changes_anything(
    closed: httpx.Client, control: Recording, headers: dict[str, str]
):
    answer = closed.post("/api/v1/control", json={"action": "off"}, headers=headers)
    assert answer.status_code == 403
    assert "http.token_file" in answer.json()["error"]
    assert control.changes == []
    assert closed.get("/api/v1/control").json()["live"] is True


def test_a_page_of_another_origin_can_neither_ask_nor_send(client: httpx.Client, control: Recording):
    """A browser asks (OPTIONS) before it sends the header or the type; without asking it can send neither."""
    assert client.options("/api/v1/control", headers={"Origin": "http://evil", **BEARER}).status_code == 405
    plain = client.post("/api/v1/control", content=b"{}", headers={"Content-Type": "text/plain", **BEARER})
    assert plain.status_code == 415
    rebound = client.post("/api/v1/control", json={}, headers={"Host": "evil.example", **BEARER})
    assert rebound.status_code == 400
    assert control.changes == []


@pytest.mark.parametrize(("reason", "code"), [("off", 409), ("invalid", 400), ("unrecorded", 503)])
def test_a_change_that_cannot_be_made_says_why(client: httpx.Client, reason: str, code: int):
    answer = client.post("/api/v1/control", content=reason.encode(), headers={"Content-Type": "application/json", **BEARER})
    assert (answer.status_code, answer.json()) == (code, {"error": f"because it is {reason}"})


def test_a_large_body_is_not_read_to_its_end(client: httpx.Client, control: Recording):
    headers = {"Content-Type": "application/json", **BEARER}
    assert client.post("/api/v1/control", content=b"x" * 70_000, headers=headers).status_code == 413
    assert control.changes == []


def test_reading_needs_no_token_and_checks_its_parameters(client: httpx.Client):
    assert client.get("/api/v1/control").json() == {"live": True, "changes": 0}
    assert len(client.get("/api/v1/control/audit?limit=3").json()) == 3
    assert client.get("/api/v1/control?x=1").status_code == 400
    assert client.get("/api/v1/control/audit?limit=0").status_code == 400
    assert client.head("/api/v1/control").status_code == 200
    for method in ("PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/v1/control", headers=BEARER).status_code == 405
    assert client.post("/api/v1/control/audit", headers=BEARER).status_code == 405


def test_a_sidecar_without_live_control_says_so():
    for client in serve(StaticView(health()), TOKEN):
        for answer in (client.get("/api/v1/control"), client.post("/api/v1/control", json={}, headers=BEARER)):
            assert (answer.status_code, answer.json()) == (409, {"error": "this sidecar has no live control"})
