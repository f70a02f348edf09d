"""What is to be sent: at least once, in order, with a stable key, for each route by itself; and a kill loses nothing."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headwatch.config import IncidentConfig
from headwatch.incident import outbox as module
from headwatch.incident.book import Book
from headwatch.incident.outbox import Outbox, routes_of

from .cases import NOTHING, START, event, signal, verdict

ABSENT = signal("documents_absent", 0.0, 0.9)


@pytest.fixture
def files(tmp_path: Path):
    path = tmp_path / "incidents.db"
    book, box = Book(path, lambda: START, routes=("webhook", "grafana")), Outbox(path, lambda: START)
    yield book, box
    book.close()
    box.close()


def test_an_entry_stays_with_its_key_until_it_is_done(files):
    book, box = files
    book.open(event(ABSENT), verdict(), NOTHING)
    first, again = box.pending(), box.pending()
    assert [entry.key for entry in first] == [entry.key for entry in again]
    assert len({entry.key for entry in first}) == 2
    for entry in first:
        box.done(entry.id)
        box.done(entry.id)
    assert box.pending() == []
    assert [line.what for line in book.history(first[0].incident.id)] == ["opened", "paged", "mirrored"]


def test_a_failed_entry_waits_for_its_time_and_delays_no_other_route(files, tmp_path):
    book, box = files
    book.open(event(ABSENT), verdict(), NOTHING)
    page, mirror = box.pending()
    box.failed(mirror.id, "connection refused", START + 5_000_000_000)
    assert [entry.route for entry in box.pending()] == ["webhook"]
    box.done(page.id)
    assert (box.pending(), box.waiting()) == ([], 1)
    later = Outbox(tmp_path / "incidents.db", lambda: START + 5_000_000_000)
    (entry,) = later.pending()
    assert (entry.key, entry.attempts, entry.next_ns) == (mirror.key, 1, START + 5_000_000_000)
    later.close()


def test_entries_of_one_incident_leave_in_order_even_when_the_first_has_to_wait(files):
    book, box = files
    id_ = book.open(event(ABSENT), verdict(), NOTHING).incident.id
    book.resolve(id_, "ada", "true")
    page = next(entry for entry in box.pending() if entry.page)
    assert page.kind == "opened"
    box.failed(page.id, "timeout", START + 1)
    assert not [entry for entry in box.pending() if entry.page], "it must not hear of the end before the beginning"


def test_what_waits_for_one_route_hides_nothing_that_is_due_for_another(files):
    book, box = files
    for number in range(3):
        book.open(event(signal("documents_absent", 0, 0.9, route=f"r{number}"), windows=number + 3), verdict(), NOTHING)
    for entry in box.pending("webhook")[:2]:
        box.done(entry.id)
    (page,) = box.pending("webhook", limit=1)
    assert (page.route, page.page) == ("webhook", True), "though three older ones wait for grafana"
    assert [entry.route for entry in box.pending("grafana")] == ["grafana"] * 3


def test_an_entry_carries_the_incident_as_it_was(files):
    book, box = files
    id_ = book.open(event(ABSENT), verdict(), NOTHING).incident.id
    book.resolve(id_, "ada", "true")
    assert {entry.incident.state for entry in box.pending()} == {"open"}


def test_the_outbox_is_bounded_and_says_what_it_dropped(files, monkeypatch):
    book, box = files
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    for number in range(5):
        book.open(event(signal("documents_absent", 0, 0.9, route=f"r{number}"), windows=number + 3), verdict(), NOTHING)
    assert box.waiting() == 6
    assert next(line.note for line in book.changes(0) if line.what == "dropped") == "opened, never sent to webhook"


def test_the_first_route_is_the_one_that_pages_and_the_others_mirror():
    config = IncidentConfig(route="alertmanager", webhook_url="http://h/x", alertmanager_url="http://a", grafana_url="")
    assert routes_of(config) == ("alertmanager", "webhook")
    assert routes_of(IncidentConfig()) == ("",)
    assert routes_of(IncidentConfig(grafana_url="http://g")) == ("", "grafana")


def test_without_routes_nothing_piles_up(tmp_path):
    book, box = Book(tmp_path / "incidents.db", routes=routes_of(IncidentConfig())), Outbox(tmp_path / "incidents.db")
    book.open(event(ABSENT), verdict(), NOTHING)
    assert box.waiting() == 0
    book.close()
    box.close()


CHILD = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import importlib
    cases = importlib.import_module("incident.cases")
    from headwatch.incident.book import Book

    book = Book(Path({path!r}), routes=("webhook",))
    for number in range(100_000):
        found = cases.event(cases.signal("documents_absent", 0, 0.9, route=f"r{{number}}"), windows=number + 3)
        book.open(found, cases.verdict(), cases.NOTHING)
        print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 23])
def test_a_kill_at_any_instant_leaves_an_incident_and_its_page_or_neither(tmp_path, after):
    """A child that opens incidents is killed; a replay of its windows then gives every incident once, and every page once."""
    path = tmp_path / "incidents.db"
    code = textwrap.dedent(CHILD).format(tests=str(Path(__file__).parents[1]), path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        for _ in range(after):
            child.stdout.readline()
        os.kill(child.pid, signals.SIGKILL)
        child.wait()
    book, box = Book(path, routes=("webhook",)), Outbox(path)
    assert len(book.list()) == box.waiting() >= after
    for number in range(after + 3):
        book.open(
            event(signal("documents_absent", 0, 0.9, route=f"r{number}"), windows=number + 3), verdict(), NOTHING
        )
    assert len(book.list()) == box.waiting() == len({entry.key for entry in box.pending()})
    book.close()
    box.close()
