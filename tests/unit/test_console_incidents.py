"""Drift and incidents over HTTP, against the real book of incidents: anybody may look, only the token may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticReader, StaticView
from headwatch.errors import StoreError
from headwatch.findings import Exhibits, Incident
from headwatch.incident.book import Book

from .incidents import OPENED_NS, event, status, verdict
from .sidecars import health, reporting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = b"0123456789abcdef0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN.decode()}"}
ACK = {"who": "ada", "note": "looking"}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(tmp_path / "incidents.db")
    yield made
    made.close()


@pytest.fixture
def client(book: Book) -> Iterator[httpx.Client]:
    yield from serve(StaticView(health(reporting()), incidents=book, drift_status=status()))


def serve(view: StaticView, token: bytes = TOKEN) -> Iterator[httpx.Client]:
    server = HttpServer(create_app(view, token=token), "127.0.0.1", 0)
    server.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            yield client
    finally:
        server.stop()


@pytest.fixture
def opened(book: Book) -> str:
    return book.open(event(), verdict(), Exhibits()).incident.id


def test_an_incident_is_listed_and_shown(client: httpx.Client, opened: str):
    (row,) = client.get("/api/v1/incidents").json()
    shown = client.get(f"/api/v1/incidents/{opened}")
    assert (shown.status_code, shown.json()) == (200, row)
    assert (row["id"], row["state"], row["verdict"]["drift_class"]) == (opened, "open", "retrieval")
    assert client.get(f"/api/v1/incidents/{opened[:8]}").json() == row, "an unambiguous beginning will do"


def test_the_list_is_narrowed_by_state(client: httpx.Client, opened: str):
    counts = {state: len(client.get(f"/api/v1/incidents?state={state}").json())
              for state in ("live", "open", "acknowledged", "resolved")}
    assert counts == {"live": 1, "open": 1, "acknowledged": 0, "resolved": 0}
    assert client.get("/api/v1/incidents?state=closed").status_code == 400
    assert client.get("/api/v1/incidents?limit=0").status_code == 400


def test_drift_says_where_detection_stands(client: httpx.Client):
    found = client.get("/api/v1/drift").json()
    assert (found["state"], found["clock"], found["threshold"]) == ("watching", 2.5, 4.6)


def test_the_effects_of_an_incident_are_what_the_store_says_of_it(book: Book, opened: str):
    view = StaticView(health(), incidents=book, reader=StaticReader(effect_table={"heads": [{"layer": 3}]}))
    for client in serve(view):
        found = client.get(f"/api/v1/incidents/{opened[:8]}/effects")
        assert (found.status_code, found.json()) == (200, {"incident": opened, "heads": [{"layer": 3}]})
        assert client.get("/api/v1/incidents/hw-none/effects").status_code == 404
        assert client.get(f"/api/v1/incidents/{opened}/effects?limit=5").status_code == 400
        assert client.post(f"/api/v1/incidents/{opened}/effects", json={}, headers=BEARER).status_code == 405


def test_without_a_store_there_are_no_effects_and_the_answer_says_why(client: httpx.Client, opened: str):
    answer = client.get(f"/api/v1/incidents/{opened}/effects")
    assert (answer.status_code, answer.json()) == (503, {"error": "the store is off (store.enabled = false)"})
    assert client.get(f"/api/v1/incidents/{opened}").status_code == 200


class Refusing(StaticReader):
    """A store that does not answer."""

    def effects(self, incident: Incident, /) -> dict[str, Any]:
        raise StoreError("query on the store failed: disk full")


def test_a_store_that_refuses_the_effects_is_told(book: Book, opened: str):
    for client in serve(StaticView(health(), incidents=book, reader=Refusing())):
        answer = client.get(f"/api/v1/incidents/{opened}/effects")
        assert (answer.status_code, answer.json()) == (503, {"error": "query on the store failed: disk full"})


def test_with_the_token_an_incident_is_acknowledged_and_resolved(client: httpx.Client, book: Book, opened: str):
    acked = client.post(f"/api/v1/incidents/{opened}/ack", json=ACK, headers=BEARER)
    assert (acked.status_code, acked.json()["state"], acked.json()["acknowledged_by"]) == (200, "acknowledged", "ada")
    body = {"who": "ada", "ruling": "true", "note": "index was empty"}
    closed = client.post(f"/api/v1/incidents/{opened}/resolve", json=body, headers=BEARER).json()
    assert (closed["state"], closed["ruling"], closed["note"]) == ("resolved", "true", "index was empty")
    assert book.get(opened).ruling == "true"
    late = client.post(f"/api/v1/incidents/{opened}/ack", json=ACK, headers=BEARER)
    assert late.status_code == 409
    assert "resolved already" in late.json()["error"]


def test_who_acknowledges_may_rule_and_who_resolves_may_rule_otherwise(client: httpx.Client, book: Book, opened: str):
    acked = client.post(f"/api/v1/incidents/{opened}/ack", json={**ACK, "ruling": "true"}, headers=BEARER).json()
    assert (acked["state"], acked["ruling"]) == ("acknowledged", "true")
    assert "acknowledged by ada, ruled true" in client.get("/").text
    assert client.post(f"/api/v1/incidents/{opened}/ack", json=ACK, headers=BEARER).json()["ruling"] == "true"
    body = {"who": "ada", "ruling": "known_change"}
    assert client.post(f"/api/v1/incidents/{opened}/resolve", json=body, headers=BEARER).json()["ruling"] == "known_change"
    assert book.precision() == {"retrieval": (0, 1)}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN.decode()}"])
@pytest.mark.parametrize("action", ["ack", "resolve"])
def test_without_the_token_nothing_is_changed(client: httpx.Client, book: Book, opened: str, header: str, action: str):
    body = ACK if action == "ack" else {"who": "eve", "ruling": "false_page"}
    answer = client.post(f"/api/v1/incidents/{opened}/{action}", json=body, headers={"Authorization": header})
    assert answer.status_code == 401
    assert book.get(opened).state == "open"


def test_where_no_token_is_configured_nobody_changes_anything(book: Book, opened: str):
    for client in serve(StaticView(health(), incidents=book), b""):
        assert client.post(f"/api/v1/incidents/{opened}/ack", json=ACK, headers=BEARER).status_code == 403
        assert client.get(f"/api/v1/incidents/{opened}").status_code == 200
    assert book.get(opened).state == "open"


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("ack", {}), ("ack", {"who": ""}), ("ack", {"who": "x" * 200}), ("ack", {**ACK, "extra": 1}), ("ack", [1]),
        ("ack", {**ACK, "ruling": "maybe"}),
        ("resolve", ACK), ("resolve", {"who": "ada", "ruling": "maybe"}), ("ack", {"who": "ada", "note": "x" * 5000}),
    ],
)
def test_a_body_that_is_wrong_is_refused(client: httpx.Client, book: Book, opened: str, action: str, body: object):
    answer = client.post(f"/api/v1/incidents/{opened}/{action}", json=body, headers=BEARER)
    assert answer.status_code == 400
    assert book.get(opened).state == "open"


def test_a_form_of_another_page_is_refused(client: httpx.Client, book: Book, opened: str):
    plain = {**BEARER, "Content-Type": "text/plain"}
    assert client.post(f"/api/v1/incidents/{opened}/ack", content=b"{}", headers=plain).status_code == 415
    assert client.get(f"/api/v1/incidents/{opened}/ack", headers=BEARER).status_code == 405
    assert book.get(opened).state == "open"


def test_an_incident_that_does_not_exist_is_404(client: httpx.Client):
    assert client.get("/api/v1/incidents/hw-none").status_code == 404
    assert client.post("/api/v1/incidents/hw-none/ack", json=ACK, headers=BEARER).status_code == 404


def test_a_sidecar_without_drift_detection_says_so():
    for client in serve(StaticView(health())):
        assert client.get("/api/v1/drift").json() == {"state": "off"}
        answer = client.get("/api/v1/incidents")
        assert answer.status_code == 409
        assert answer.json() == {"error": "this sidecar keeps no incidents (drift.enabled = false)"}
    for client in serve(StaticView(health(), reader=StaticReader())):
        assert client.get("/api/v1/incidents/hw-1/effects").status_code == 409


def test_the_page_shows_what_is_not_resolved_and_how_near_a_page_is(client: httpx.Client, book: Book, opened: str):
    page = client.get("/").text
    assert "Documents of route support are given and not read." in page
    assert opened in page
    assert "The clock shows 10^2.5 and pages at 10^4.6." in page
    book.resolve(opened, "ada", "true")
    assert opened not in client.get("/").text


def test_the_page_escapes_what_others_wrote(client: httpx.Client, book: Book):
    book.open(event(), verdict(sentence="<script>alert(1)</script>"), Exhibits())
    page = client.get("/").text
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_is_there_also_where_the_file_of_incidents_is_not(book: Book, opened: str):
    """It says what is wrong instead of what it cannot know."""
    broken = Book(book._ledger.path)
    broken.close()
    for client in serve(StaticView(health(reporting()), incidents=broken)):
        answer = client.get("/")
        assert answer.status_code == 200
        assert "cannot be read" in answer.text
        assert client.get("/api/v1/incidents").status_code == 503


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"state": "warming_up", "pages_from_ns": OPENED_NS}, "pages from 2027-01-15 08:00 UTC"),
        ({"state": "warming_up"}, "the baseline is too short."),
        ({"state": "shadow", "clock": float("-inf")}, "nothing is sent. The clock shows 10^0.0"),
    ],
)
def test_the_page_says_what_detection_does(changes: dict[str, object], text: str):
    for client in serve(StaticView(health(), drift_status=status(**changes))):
        assert text in client.get("/").text
