"""From the configuration to senders: one route pages, the others mirror it, and what is missing is said at the start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.config import Config, HttpConfig, IncidentConfig, ServiceConfig
from headwatch.errors import ConfigError
from headwatch.findings import Exhibits
from headwatch.incident.book import Book
from headwatch.incident.outbox import Outbox, routes_of
from headwatch_exporters.paging.links import links
from headwatch_exporters.paging.pager import Pager
from headwatch_exporters.paging.routes import senders

from ...programs import wait_for
from ..incidents import event, incident, verdict
from .receiver import receiving

if TYPE_CHECKING:
    from headwatch.findings import DriftEvent

ALL = {"webhook_url": "http://127.0.0.1:1/w", "alertmanager_url": "http://127.0.0.1:1/a", "grafana_url": "http://127.0.0.1:1/g"}


@pytest.fixture
def token(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text("glsa_0123456789abcdef")
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("route", ["none", "webhook", "alertmanager", "grafana"])
def test_one_pages_and_the_others_mirror_it(route: str, token: str):
    """By the same names as the outbox has them."""
    config = IncidentConfig(route=route, grafana_token_file=token, **ALL)
    paging, mirrors = senders(config)
    names = (paging.name if paging is not None else "", *(mirror.name for mirror in mirrors))
    assert names == routes_of(config)
    for sender in (paging, *mirrors):
        if sender is not None:
            sender.close()


def test_nothing_configured_is_nothing_sent():
    assert senders(IncidentConfig()) == (None, ())


@pytest.mark.parametrize("route", ["webhook", "alertmanager"])
def test_a_route_without_an_address_is_refused_at_the_start(route: str):
    with pytest.raises(ConfigError, match=f"{route}_url is empty"):
        senders(IncidentConfig(route=route))


@pytest.mark.parametrize("route", ["grafana", "prometheus"])
def test_grafana_and_prometheus_page_by_rules_of_their_own(route: str):
    """Also where no annotations are wanted; nothing is sent."""
    paging, mirrors = senders(IncidentConfig(route=route))
    assert (paging is not None and paging.name, mirrors) == (route, ())


def test_where_prometheus_pages_the_others_mirror_it(token: str):
    paging, mirrors = senders(IncidentConfig(route="prometheus", grafana_token_file=token, **ALL))
    assert paging is not None
    assert (paging.name, {mirror.name for mirror in mirrors}) == ("prometheus", {"webhook", "alertmanager", "grafana"})


def test_annotations_without_a_token_are_refused_at_the_start():
    with pytest.raises(ConfigError, match="grafana_token_file"):
        senders(IncidentConfig(grafana_url="http://127.0.0.1:3000"))


def test_a_secret_that_others_can_read_is_refused(token: str):
    Path(token).chmod(0o644)
    with pytest.raises(ConfigError, match=r"incident\.webhook_secret_file.*chmod 600"):
        senders(IncidentConfig(webhook_url=ALL["webhook_url"], webhook_secret_file=token))


@pytest.mark.parametrize(
    ("http", "console", "expected"),
    [
        (HttpConfig(), "", "http://127.0.0.1:9464"),
        (HttpConfig(host="0.0.0.0", allow_remote=True, port=80), "", "http://127.0.0.1:80"),
        (HttpConfig(host="::1"), "", "http://[::1]:9464"),
        (HttpConfig(), "https://headwatch.example/", "https://headwatch.example"),
    ],
)
def test_a_page_leads_to_where_the_console_is_reached(http: HttpConfig, console: str, expected: str):
    made = links(Config(http=http, incident=IncidentConfig(console_url=console), service=ServiceConfig(name="rag")))
    assert made.console(incident(1)) == f"{expected}/api/v1/incidents/hw-0000000001"
    assert made.runbook(incident(1)).endswith("/docs/runbooks/retrieval.md")
    assert made.service == "rag"


def test_the_pager_runs_a_lane_for_each_and_ends_in_time(tmp_path: Path):
    """A mirror that is away delays no page, and the end of the sidecar neither; what it is owed stays in the outbox."""
    with receiving() as receiver:
        config = Config(incident=IncidentConfig(route="webhook", webhook_url=receiver.url, alertmanager_url="http://127.0.0.1:9"))
        path = tmp_path / "incidents.db"
        book, outbox = Book(path, routes=routes_of(config.incident)), Outbox(path)
        pager = Pager(config, outbox, book.open_incidents)
        pager.start()
        book.open(event(), verdict(), Exhibits())
        pager.poke()
        deadline = time.monotonic() + 10
        while not (pager.health()["webhook"].sent and pager.health()["alertmanager"].failed) and time.monotonic() < deadline:
            time.sleep(0.01)
        health = pager.health()
        started = time.monotonic()
        pager.stop()
        assert time.monotonic() - started < 2
    assert (health["webhook"].pages, health["webhook"].up, health["webhook"].opened) == (True, True, {"retrieval": 1})
    assert (health["alertmanager"].pages, health["alertmanager"].up) == (False, False)
    assert outbox.waiting() == 1
    book.close()
    outbox.close()


def test_what_waits_for_a_sender_that_is_gone_holds_up_nothing(tmp_path: Path):
    """However much it is; and it goes out where the sender is configured again."""
    path = tmp_path / "incidents.db"
    waiting = 210  # more than one look at the outbox takes, twice
    gone, outbox = Book(path, routes=("alertmanager",)), Outbox(path)
    for number in range(waiting):
        gone.open(_of_model(f"model-{number}"), verdict(), Exhibits())
    book = Book(path, routes=("webhook",))
    book.open(_of_model("small"), verdict(), Exhibits())
    with receiving() as receiver:
        pager = Pager(Config(incident=IncidentConfig(route="webhook", webhook_url=receiver.url)), outbox, book.open_incidents)
        pager.start()
        wait_for(lambda: pager.health()["webhook"].sent, "the page")
        pager.stop()
        assert outbox.waiting() == waiting, "what waits for the sender that is gone is kept"
        back = IncidentConfig(route="alertmanager", alertmanager_url=receiver.url)
        pager = Pager(Config(incident=back), outbox, book.open_incidents)
        pager.start()
        wait_for(lambda: outbox.waiting() == 0, "what waited for it")
        pager.stop()
    for file in (gone, book, outbox):
        file.close()


def _of_model(name: str) -> DriftEvent:
    """Return an event that is taken for no cause of another model."""
    return event(model=name, evidence=tuple(msgspec.structs.replace(item, model=name) for item in event().evidence))
