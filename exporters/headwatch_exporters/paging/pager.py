"""The pager: takes messages from the outbox to the operator's one route, and shows them to the mirrors.

A message is forgotten once the route has taken it, and not before: a kill in between sends it again under the same key, so
delivery is at least once.  What the route refuses is tried again, after a pause that doubles with each attempt up to
:data:`MAX_PAUSE_SECONDS` and is spread by a quarter, for as long as it takes.  Messages of one incident go out in their
order; those of others do not wait for it.

All of it happens on a thread of its own, so that a peer that is slow or away holds up neither windows nor exporters.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from headwatch.errors import HeadwatchError
from headwatch.health import PagerHealth
from headwatch_exporters.paging.mirror import Mirror
from headwatch_exporters.paging.page import OPENING, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.findings import Incident
    from headwatch_exporters.paging.links import Links
    from headwatch_exporters.paging.page import Entry, Outbox, Sender

logger = logging.getLogger("headwatch.pager")

POLL_SECONDS = 2.0
"""How often the outbox is looked at: a command of another process may have written to it."""
MAX_PAUSE_SECONDS = 600.0
_SPREAD = 0.25
STOP_SECONDS = 15.0


class Pager:
    """Owns the senders.  *route* None: nobody is paged, mirrors are told all the same."""

    def __init__(
        self,
        outbox: Outbox,
        open_incidents: Callable[[], Sequence[Incident]],
        links: Links,
        route: Sender | None,
        mirrors: Sequence[Sender] = (),
        *,
        retry_seconds: float = 5.0,
        now_ns: Callable[[], int] = time.time_ns,
        chance: random.Random | None = None,
    ) -> None:
        self._outbox = outbox
        self._open_incidents = open_incidents
        self._links = links
        self._route = route
        self._mirrors = [Mirror(sender) for sender in mirrors]
        self._retry_seconds = retry_seconds
        self._now_ns = now_ns
        self._chance = chance or random.Random()  # noqa: S311 - jitter
        self._refreshed_ns: dict[str, int] = {}
        self._opened: Counter[str] = Counter()
        self._sent = self._failed = self._pending = 0
        self._up, self._last_error = True, ""
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-pager", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        for mirror in self._mirrors:
            mirror.start()
        self._thread.start()

    def poke(self) -> None:
        """Have the outbox looked at now: something was just written to it."""
        self._wake.set()

    def stop(self) -> None:
        """Try once more what waits, and end.  What is left stays in the outbox for the next start."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)
        for mirror in self._mirrors:
            mirror.stop()
        if self._route is not None and not self._thread.is_alive():
            self._route.close()

    def health(self) -> dict[str, PagerHealth]:
        """Return what each sender has done so far, by name."""
        found = {mirror.name: mirror.health() for mirror in self._mirrors}
        if self._route is not None:
            found[self._route.name] = PagerHealth(
                pages=True, up=self._up, sent=self._sent, failed=self._failed, dropped=0, pending=self._pending,
                opened=dict(self._opened), last_error=self._last_error,
            )  # fmt: skip
        return found

    def drain(self) -> int:
        """Send what is due and return how many messages are left."""
        now_ns, held = self._now_ns(), set[str]()
        entries = self._outbox.pending()
        left = self._pending = len(entries)
        for entry in entries:
            incident = entry.incident.id
            if incident in held or entry.next_ns > now_ns or not self._deliver(entry):
                held.add(incident)
            else:
                left -= 1
                self._pending = left
        return left

    def refresh(self) -> None:
        """Say again what is open, to the peers that would forget it."""
        due = [mirror for mirror in self._mirrors if self._is_due(mirror)]
        route = self._route if self._route is not None and self._is_due(self._route) else None
        if not due and route is None:
            return
        pages = [self._page("updated", f"{incident.id}:open", incident) for incident in self._open_incidents()
                 if not incident.silenced and incident.verdict.drift_class != "traffic"]  # fmt: skip
        for mirror in due:
            mirror.refresh(pages)
        if route is not None:
            self._attempt(lambda: route.refresh(pages))

    def _deliver(self, entry: Entry) -> bool:
        """Return whether *entry* is done with."""
        page = self._page(entry.kind, entry.key, entry.incident)
        if entry.attempts == 0:
            for mirror in self._mirrors:
                mirror.send(page)
        route = self._route
        if route is not None:
            if error := self._attempt(lambda: route.send(page)):
                self._outbox.failed(entry.id, error, self._now_ns() + self._pause_ns(entry.attempts))
                return False
            self._sent += 1
            if entry.kind in OPENING:
                self._opened[entry.incident.verdict.drift_class] += 1
        self._outbox.done(entry.id)
        return True

    def _attempt(self, job: Callable[[], None]) -> str:
        """Return why *job* failed; empty where it did not."""
        try:
            job()
        except Exception as error:  # noqa: BLE001 - one page that cannot be sent must not keep others from it
            self._note(error)
            return self._last_error
        if not self._up:
            logger.warning("pages go out again")
        self._up, self._last_error = True, ""
        return ""

    def _note(self, error: Exception) -> None:
        self._failed += 1
        self._last_error = f"{type(error).__name__}: {error}"
        if self._up:
            logger.error("cannot page: %s", self._last_error, exc_info=None if isinstance(error, HeadwatchError) else error)
        self._up = False

    def _pause_ns(self, attempts: int) -> int:
        pause = min(self._retry_seconds * 2 ** min(attempts, 20), MAX_PAUSE_SECONDS)
        return int(pause * self._chance.uniform(1 - _SPREAD, 1 + _SPREAD) * 1e9)

    def _is_due(self, sender: Sender | Mirror) -> bool:
        if not sender.refresh_seconds:
            return False
        now_ns = self._now_ns()
        if 0 <= now_ns - self._refreshed_ns.get(sender.name, -(10**18)) < sender.refresh_seconds * 1e9:
            return False
        self._refreshed_ns[sender.name] = now_ns
        return True

    def _page(self, kind: str, key: str, incident: Incident) -> Page:
        return Page(key, kind, self._links.service, incident, self._links.runbook(incident), self._links.console(incident))

    def _run(self) -> None:
        while True:
            ending = self._stopping.is_set()
            try:
                self.drain()
                self.refresh()
            except Exception:
                logger.exception("the outbox cannot be read; it is tried again")
            if ending:
                return
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
