"""The law of delivery: whatever fails, and wherever the process is killed, every message arrives, in order, under its key."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from headwatch.errors import ExportError, IncidentError
from headwatch.findings import Exhibits
from headwatch.incident.book import Book
from headwatch.incident.outbox import Outbox
from headwatch_exporters.paging.lane import MAX_PAUSE_SECONDS, Lane
from headwatch_exporters.paging.links import Links

from ..incidents import OPENED_NS, SECOND, event, evidence, verdict

if TYPE_CHECKING:
    from headwatch_exporters.paging.page import Page

ROUTES = ("route", "mirror")


class Killed(BaseException):
    """The process ends between the peer's answer and the outbox."""


class Peer:
    """A receiver that can be away, and whose sender's process can be killed once it has the page."""

    refresh_seconds = 0.0

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[tuple[str, str]] = []
        self.away = self.kills = False

    def send(self, page: Page) -> None:
        if self.away:
            raise ExportError("away")
        self.got.append((page.incident.id, page.key))
        if self.kills:
            self.kills = False
            raise Killed

    def refresh(self, pages: list[Page]) -> None:
        """Nothing to say."""

    def close(self) -> None:
        """Nothing to close."""


class Delivery(RuleBasedStateMachine):
    """Three causes that open and end as they like, a route and a mirror that fail as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.now = OPENED_NS
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name, "incidents.db")
        self.book, self.outbox = Book(path, self.clock, routes=ROUTES), Outbox(path, self.clock)
        self.peers = {name: Peer(name) for name in ROUTES}
        self.ids: dict[int, str] = {}
        self.written: dict[str, dict[tuple[str, str], None]] = {name: {} for name in ROUTES}
        """Whatever was in the outbox, by route: incident and key, in order."""

    def clock(self) -> int:
        return self.now

    def _note(self) -> None:
        self.now += SECOND
        for row in self.book._ledger.read("SELECT * FROM outbox ORDER BY number"):
            self.written[row["route"]][row["incident"], row["key"]] = None

    @rule(cause=st.integers(0, 2))
    def open(self, cause: int) -> None:
        since_ns, model = self.now - 60 * SECOND, f"m-{cause}"
        found = (evidence(model=model, stratum=model, since_ns=since_ns),)
        happened = event(time_ns=self.now, since_ns=since_ns, model=model, evidence=found)
        self.ids[cause] = self.book.open(happened, verdict(), Exhibits()).incident.id
        self._note()

    @rule(cause=st.integers(0, 2), ending=st.booleans())
    def close(self, cause: int, ending: bool) -> None:
        with suppress(IncidentError, KeyError):  # none was opened, or it is resolved already
            if ending:
                self.book.resolve(self.ids[cause], "ada", "true")
            else:
                self.book.ack(self.ids[cause], "ada")
        self._note()

    @rule(name=st.sampled_from(ROUTES), away=st.booleans())
    def fail_or_mend(self, name: str, away: bool) -> None:
        self.peers[name].away = away

    @rule(name=st.sampled_from(ROUTES))
    def kill_at_the_next_page(self, name: str) -> None:
        self.peers[name].kills = True

    @rule(seconds=st.integers(1, 3000))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(name=st.sampled_from(ROUTES))
    def drain(self, name: str) -> None:
        """Look at the outbox, in a new life of the process each time."""
        links = Links("vllm", "r", "c")
        lane = Lane(self.peers[name], self.outbox, self.book.open_incidents, links, pages=name == "route", now_ns=self.clock,
                    chance=Random(0))
        with suppress(Killed):
            lane.drain()

    def teardown(self) -> None:
        """Let every peer come back: all that was written has arrived, each incident's messages in their order."""
        for peer in self.peers.values():
            peer.away = peer.kills = False
        while self.outbox.waiting():
            self.wait(int(2 * MAX_PAUSE_SECONDS))
            for name in ROUTES:
                self.drain(name)
        for name, peer in self.peers.items():
            assert set(peer.got) == set(self.written[name]), "lost, or made up"
            for incident in self.ids.values():
                first = [key for owner, key in dict.fromkeys(peer.got) if owner == incident]
                assert first == [key for owner, key in self.written[name] if owner == incident], "out of order"
        self.book.close()
        self.outbox.close()
        self.folder.cleanup()


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=40, stateful_step_count=40)
