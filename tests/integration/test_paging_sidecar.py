"""A whole sidecar tells of an incident: by webhook, over HTTP, in /metrics and in its store; and says where it cannot."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from headwatch.config import Config, DriftConfig, HttpConfig, IncidentConfig, StoreConfig, WireConfig
from headwatch.findings import Exhibits
from headwatch.incident.book import Book
from headwatch.incident.ledger import FILE_NAME
from headwatch.incident.outbox import routes_of
from headwatch.pipeline import Sidecar

from ..programs import free_port, wait_for
from ..unit.incidents import SECOND, event, evidence, verdict
from ..unit.paging.receiver import Answer, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..unit.paging.receiver import Receiver

pytestmark = pytest.mark.store

TOKEN = "0123456789abcdef0123456789abcdef"


class Running:
    """A sidecar, and the file of incidents as a command of another process opens it."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        token = folder / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        port = free_port()
        self.config = Config(
            wire=WireConfig(endpoint=f"ipc://{folder}/wire", control_endpoint=f"ipc://{folder}/control"),
            http=HttpConfig(port=port, token_file=str(token)),
            store=StoreConfig(url=f"chdb://{folder}/store"),
            drift=DriftConfig(folder=str(folder / "drift")),
            incident=IncidentConfig(route="webhook", webhook_url=receiver.url, retry_seconds=0.1),
        )
        self.receiver = receiver
        self.sidecar = Sidecar(self.config)
        self.sidecar.start()
        self.book = Book(folder / "drift" / FILE_NAME, routes=routes_of(self.config.incident))
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"})

    def told(self) -> list[str]:
        return [json.loads(got.body)["kind"] for got in self.receiver.received]

    def series(self, name: str) -> float:
        self.sidecar.tick(everything=True)

        def shown() -> re.Match[str] | None:
            return re.search(rf"^{re.escape(name)} (\S+)$", self.client.get("/metrics").text, re.MULTILINE)

        wait_for(lambda: shown() is not None, name)
        found = shown()
        assert found is not None
        return float(found[1])

    def close(self) -> None:
        self.client.close()
        self.book.close()
        self.sidecar.stop()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with receiving() as receiver:
        made = Running(tmp_path, receiver)
        yield made
        made.close()


def happened() -> object:
    """Return an event of now: the store forgets what is old."""
    now_ns = time.time_ns()
    return event(time_ns=now_ns, since_ns=now_ns - 300 * SECOND, evidence=(evidence(since_ns=now_ns - 300 * SECOND),))


def test_an_incident_goes_everywhere_and_a_person_closes_it(running: Running):
    opened = running.book.open(happened(), verdict(), Exhibits()).incident
    wait_for(lambda: running.told() == ["opened"], "the page")
    assert running.client.get("/api/v1/incidents?state=live").json()[0]["id"] == opened.id
    sizes = running.client.get(f"/api/v1/incidents/{opened.id}/effects").json()["heads"]
    assert [(one["layer"], one["head"], one["requests_since"]) for one in sizes] == [(0, 0, 0), (0, 1, 0)]
    assert running.series('headwatch_incident_pages_total{headwatch_incident_class="retrieval"}') == 1
    assert running.series('headwatch_pager_up{headwatch_pager="webhook",headwatch_pager_role="page"}') == 1
    labels = 'headwatch_incident_class="retrieval",headwatch_incident_severity="'
    assert running.series(f'headwatch_incident_open{{{labels}{opened.severity}"}}') == 1
    body = {"who": "ada", "ruling": "true", "note": "the index was empty"}
    closed = running.client.post(f"/api/v1/incidents/{opened.id}/resolve", json=body)
    assert (closed.status_code, closed.json()["state"]) == (200, "resolved")
    wait_for(lambda: running.told() == ["opened", "resolved"], "the end to be told")
    running.sidecar.tick(everything=True)
    reader = running.sidecar._reader
    assert reader is not None
    wait_for(lambda: [one.state for one in reader.stored_incidents()] == ["resolved"], "the store to have it")
    (stored,) = reader.stored_incidents()
    assert stored == running.book.get(opened.id)
    rows = reader._connection.query("SELECT page_route, ruling FROM headwatch_incidents FINAL")
    assert rows == [{"page_route": "webhook", "ruling": "true"}]


def test_what_a_command_closed_while_no_sidecar_ran_reaches_the_store(tmp_path: Path):
    """Else Grafana's rule, which reads the store, would go on firing."""
    with receiving() as receiver:
        first = Running(tmp_path, receiver)
        opened = first.book.open(happened(), verdict(), Exhibits()).incident
        first.sidecar.tick(everything=True)
        reader = first.sidecar._reader
        assert reader is not None
        wait_for(lambda: [one.state for one in reader.stored_incidents()] == ["open"], "the store to have it")
        first.close()
        between = Book(tmp_path / "drift" / FILE_NAME, routes=routes_of(first.config.incident))
        between.resolve(opened.id, "ada", "false_page")
        between.close()
        second = Running(tmp_path, receiver)
        wait_for(lambda: second.told() == ["opened", "resolved"], "the end to be told")
        second.sidecar.tick(everything=True)
        again = second.sidecar._reader
        assert again is not None
        wait_for(lambda: [one.ruling for one in again.stored_incidents()] == ["false_page"], "the store to have the end")
        second.close()


def test_a_sidecar_that_cannot_page_is_not_ready_and_says_why(running: Running):
    running.receiver.answer = lambda _: Answer(503)
    running.book.open(happened(), verdict(), Exhibits())
    wait_for(lambda: bool(running.told()), "the attempt")
    wait_for(lambda: "pages by webhook" in str(running.client.get("/readyz").json()), "readiness to say so")
    assert running.client.get("/readyz").status_code == 503
    assert running.series('headwatch_pager_pending{headwatch_pager="webhook",headwatch_pager_role="page"}') == 1
    running.receiver.answer = lambda _: Answer(200)
    wait_for(lambda: "pages by webhook" not in str(running.client.get("/readyz").json()), "the page to go out")
