"""From the real outbox to a real receiver: at least once, in order, under the same key, and no faster than agreed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.findings import Exhibits
from headwatch.incident.book import Book
from headwatch.incident.outbox import Outbox
from headwatch_exporters.paging.lane import MAX_PAUSE_SECONDS, SPREAD, Lane
from headwatch_exporters.paging.links import Links
from headwatch_exporters.paging.webhook import WebhookSender

from ..incidents import OPENED_NS, SECOND, event, verdict
from .receiver import Answer, receiving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.findings import Incident
    from headwatch_exporters.paging.page import Page

    from .receiver import Receiver

LINKS = Links("vllm", "https://runbooks", "http://console:9464")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = OPENED_NS

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "incidents.db"


@pytest.fixture
def book(path: Path, clock: Clock) -> Iterator[Book]:
    made = Book(path, clock, routes=("webhook",))
    yield made
    made.close()


@pytest.fixture
def outbox(path: Path, clock: Clock, book: Book) -> Iterator[Outbox]:
    made = Outbox(path, clock)
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def lane(outbox: Outbox, book: Book, receiver: Receiver, clock: Clock) -> Iterator[Lane]:
    sender = WebhookSender(receiver.url)
    yield Lane(sender, outbox, book.open_incidents, LINKS, pages=True, retry_seconds=5.0, now_ns=clock, chance=Random(1))
    sender.close()


def opened(book: Book, minute: int = 0, **changes: object) -> Incident:
    """Open an incident of a model of its own, so that it is not taken for the same cause."""
    time_ns = OPENED_NS + minute * 60 * SECOND
    model = f"model-{minute}"
    happened = event(time_ns=time_ns, model=model, evidence=tuple(
        msgspec.structs.replace(item, model=model, stratum=item.stratum and f"{model}|") for item in event().evidence
    ))
    return book.open(happened, verdict(**changes), Exhibits()).incident


def told(receiver: Receiver) -> list[tuple[str, str]]:
    documents = [json.loads(got.body) for got in receiver.received]
    return [(document["kind"], document["incident"]["id"]) for document in documents]


def test_an_incident_is_told_once_from_its_opening_to_its_end(lane: Lane, book: Book, receiver: Receiver, outbox: Outbox):
    incident = opened(book)
    lane.drain()
    lane.drain()
    book.resolve(incident.id, "ada", "true")
    lane.drain()
    assert told(receiver) == [("opened", incident.id), ("resolved", incident.id)]
    assert outbox.waiting() == 0
    health = lane.health()
    assert (health.up, health.sent, health.failed, health.pending, health.opened) == (True, 2, 0, 0, {"retrieval": 1})


def test_a_page_carries_its_links(lane: Lane, book: Book, receiver: Receiver):
    incident = opened(book)
    lane.drain()
    document = json.loads(receiver.received[0].body)
    assert document["runbook_url"] == "https://runbooks/retrieval.md"
    assert document["console_url"] == f"http://console:9464/api/v1/incidents/{incident.id}"


def test_a_receiver_that_is_down_is_tried_with_pauses_that_double(
    lane: Lane, book: Book, receiver: Receiver, clock: Clock, outbox: Outbox
):
    """5 s, 10 s, 20 s ... up to ten minutes, each spread by a quarter, and always the same key."""
    opened(book)
    receiver.answer = lambda _: Answer(503)
    pauses = []
    for attempt in range(12):
        lane.drain()
        assert len(receiver.received) == attempt + 1
        began = clock.now
        while not outbox.pending():
            clock.sleep(0.5)
        pauses.append((clock.now - began) / SECOND)
    for attempt, pause in enumerate(pauses):
        wanted = min(5.0 * 2**attempt, MAX_PAUSE_SECONDS)
        assert (1 - SPREAD) * wanted <= pause <= (1 + SPREAD) * wanted + 0.5
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len({round(pause / min(5.0 * 2**n, MAX_PAUSE_SECONDS), 2) for n, pause in enumerate(pauses)}) > 3, "no jitter"
    receiver.answer = lambda _: Answer(204)
    lane.drain()
    assert (outbox.waiting(), lane.health().up, lane.health().failed, lane.health().sent) == (0, True, 12, 1)


def test_messages_of_one_incident_keep_their_order(lane: Lane, book: Book, receiver: Receiver, clock: Clock):
    """The end is not told while the beginning waits; other incidents do not wait for it."""
    first = opened(book, 0)
    receiver.answer = lambda _: Answer(500)
    lane.drain()
    book.resolve(first.id, "ada", "false_page")
    second = opened(book, 1)
    receiver.answer = lambda _: Answer(200)
    lane.drain()
    clock.sleep(60)
    lane.drain()
    lane.drain()
    assert told(receiver) == [("opened", first.id), ("opened", second.id), ("opened", first.id), ("resolved", first.id)]


def test_what_is_silenced_pages_nobody(lane: Lane, book: Book, receiver: Receiver, outbox: Outbox):
    book.calendar.silence(3600, "ada", "load test")
    opened(book)
    lane.drain()
    assert (receiver.received, outbox.waiting()) == ([], 0)


def test_traffic_pages_nobody(lane: Lane, book: Book, receiver: Receiver, outbox: Outbox):
    opened(book, drift_class="traffic", cause="length")
    lane.drain()
    assert (receiver.received, outbox.waiting()) == ([], 0)


def test_entries_of_another_sender_are_left_to_it(path: Path, clock: Clock, receiver: Receiver):
    """The mirror's lane takes the mirror's entries, and pages nobody."""
    book, outbox = Book(path, clock, routes=("alertmanager", "webhook")), Outbox(path, clock)
    sender = WebhookSender(receiver.url, pages=False)
    mirror = Lane(sender, outbox, book.open_incidents, LINKS, pages=False, now_ns=clock)
    opened(book)
    mirror.drain()
    assert [json.loads(got.body)["role"] for got in receiver.received] == ["mirror"]
    assert [entry.route for entry in outbox.pending()] == ["alertmanager"]
    assert (mirror.health().pages, mirror.health().opened) == (False, {})
    for thing in (book, outbox, sender):
        thing.close()


class Kept:
    """A peer that forgets, and remembers what it was reminded of."""

    name = "webhook"
    refresh_seconds = 60.0

    def __init__(self) -> None:
        self.reminded: list[list[str]] = []

    def send(self, page: Page) -> None:
        pass

    def refresh(self, pages: list[Page]) -> None:
        self.reminded.append(sorted(page.incident.id for page in pages))

    def close(self) -> None:
        pass


@pytest.mark.parametrize("pages", [True, False])
def test_a_peer_that_forgets_is_reminded_of_what_is_open(outbox: Outbox, book: Book, clock: Clock, pages: bool):
    """Once a minute; the route of what it was told alone, a mirror of what is silenced and of traffic as well."""
    sender = Kept()
    lane = Lane(sender, outbox, book.open_incidents, LINKS, pages=pages, now_ns=clock)
    paged, traffic = opened(book, 0), opened(book, 1, drift_class="traffic", cause="length")
    lane.refresh()
    lane.refresh()
    clock.sleep(59)
    lane.refresh()
    assert sender.reminded == [[paged.id] if pages else sorted([paged.id, traffic.id])]
    clock.sleep(1)
    book.resolve(paged.id, "ada", "true")
    lane.refresh()
    assert sender.reminded[1:] == ([] if pages else [[traffic.id]]), "nothing open is nothing to say"


KILLED = """
import sys
from pathlib import Path
from headwatch.incident.outbox import Outbox
from headwatch_exporters.paging.lane import Lane
from headwatch_exporters.paging.links import Links
from headwatch_exporters.paging.webhook import WebhookSender

outbox = Outbox(Path(sys.argv[1]))
lane = Lane(WebhookSender(sys.argv[2]), outbox, lambda: [], Links("vllm", "r", "c"), pages=True)
print("ready", flush=True)
lane.drain()
print("done", flush=True)
"""


def test_a_kill_between_sending_and_forgetting_sends_the_same_key_again(
    path: Path, book: Book, outbox: Outbox, lane: Lane, receiver: Receiver
):
    """The receiver has the page when the process dies; the next one sends it again, and it can tell that it has it."""
    incident = opened(book)
    command = [sys.executable, "-c", KILLED, str(path), receiver.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:

        def kill(_: object) -> Answer:
            os.kill(child.pid, signal.SIGKILL)
            return Answer(200)

        receiver.answer = kill
        said, _ = child.communicate(timeout=60)
    assert (child.returncode, said) == (-signal.SIGKILL, "ready\n")
    assert outbox.waiting() == 1
    receiver.answer = lambda _: Answer(200)
    lane.drain()
    assert told(receiver) == [("opened", incident.id)] * 2
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert outbox.waiting() == 0


def test_a_running_lane_sends_what_is_written_to_the_file_and_ends_at_once(path: Path, receiver: Receiver):
    book, outbox = Book(path, routes=("webhook",)), Outbox(path)
    lane = Lane(WebhookSender(receiver.url), outbox, book.open_incidents, LINKS, pages=True)
    lane.start()
    incident = opened(book)
    lane.poke()
    deadline = time.monotonic() + 10
    while not receiver.received and time.monotonic() < deadline:
        time.sleep(0.01)
    started = time.monotonic()
    lane.tell_to_stop()
    lane.join(5)
    assert time.monotonic() - started < 1
    assert told(receiver) == [("opened", incident.id)]
    book.close()
    outbox.close()


def test_an_outbox_that_cannot_be_read_does_not_end_the_lane(path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture):
    """A file that is closed under it is logged; the thread goes on until it is told to stop."""
    book, outbox = Book(path, routes=("webhook",)), Outbox(path)
    lane = Lane(WebhookSender(receiver.url), outbox, book.open_incidents, LINKS, pages=True)
    outbox.close()
    lane.start()
    deadline = time.monotonic() + 10
    while "cannot be read" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lane._thread.is_alive()
    lane.tell_to_stop()
    lane.join(5)
    assert not lane._thread.is_alive()
    book.close()
