"""One sender on a thread of its own: what the outbox holds for it, in order, until it is delivered.

A message is taken out of the outbox once the peer has it, and not before: a kill in between sends it again under the same key,
so delivery is at least once.  What fails is tried again, after a pause that doubles with each attempt up to
:data:`MAX_PAUSE_SECONDS` and is spread by a quarter either way, for as long as it takes.

A thread each, so that a mirror that is slow or away delays no page, and none of them delays a window.
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
from headwatch_exporters.paging.page import OPENED, Page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.findings import Incident
    from headwatch_exporters.paging.links import Links
    from headwatch_exporters.paging.page import Entry, Outbox, Sender

logger = logging.getLogger("headwatch.pager")

POLL_SECONDS = 2.0
"""How often the outbox is looked at: a command of another process may have written to it."""
MAX_PAUSE_SECONDS = 600.0
SPREAD = 0.25
_LAST_DOUBLING = 20


class Lane:
    """Takes messages from *outbox* to *sender*; *pages* says whether it is the operator's one route, or mirrors it."""

    def __init__(
        self,
        sender: Sender,
        outbox: Outbox,
        open_incidents: Callable[[], Sequence[Incident]],
        links: Links,
        *,
        pages: bool,
        retry_seconds: float = 5.0,
        now_ns: Callable[[], int] = time.time_ns,
        chance: random.Random | None = None,
    ) -> None:
        self.name = sender.name
        self._sender = sender
        self._outbox = outbox
        self._open_incidents = open_incidents
        self._links = links
        self._pages = pages
        self._retry_seconds = retry_seconds
        self._now_ns = now_ns
        self._chance = chance or random.Random()  # noqa: S311 - jitter
        self._refreshed_ns: int | None = None
        self._opened: Counter[str] = Counter()
        self._waiting: set[int] = set()
        self._sent = self._failed = 0
        self._up, self._last_error = True, ""
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"headwatch-{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def poke(self) -> None:
        """Have the outbox looked at now."""
        self._wake.set()

    def tell_to_stop(self) -> None:
        """Have the thread try once more what is due, and end."""
        self._stopping.set()
        self._wake.set()

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, for at most *seconds*, and close the sender.  What is left stays in the outbox."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        if not self._thread.is_alive():
            self._sender.close()

    def health(self) -> PagerHealth:
        """Return what the sender has done so far."""
        return PagerHealth(
            pages=self._pages, up=self._up, sent=self._sent, failed=self._failed, pending=len(self._waiting),
            opened=dict(self._opened), last_error=self._last_error,
        )  # fmt: skip

    def drain(self) -> None:
        """Send what is due for this sender."""
        for entry in self._outbox.pending(self.name):
            self._waiting.add(entry.id)
            self._deliver(entry)

    def refresh(self) -> None:
        """Say again what is open, where the peer would forget it and the time has come."""
        now_ns, interval_ns = self._now_ns(), self._sender.refresh_seconds * 1e9
        if not interval_ns or (self._refreshed_ns is not None and 0 <= now_ns - self._refreshed_ns < interval_ns):
            return
        self._refreshed_ns = now_ns
        pages = [self._page("updated", f"{incident.id}:open", incident) for incident in self._open_incidents()
                 if not self._pages or _wakes(incident)]  # fmt: skip
        if pages:
            self._attempt(lambda: self._sender.refresh(pages))

    def _deliver(self, entry: Entry) -> None:
        page = self._page(entry.kind, entry.key, entry.incident)
        if error := self._attempt(lambda: self._sender.send(page)):
            self._outbox.failed(entry.id, error, self._now_ns() + self._pause_ns(entry.attempts))
            return
        self._outbox.done(entry.id)
        self._waiting.discard(entry.id)
        self._sent += 1
        if entry.kind == OPENED and self._pages:
            self._opened[entry.incident.verdict.drift_class] += 1

    def _attempt(self, job: Callable[[], None]) -> str:
        """Return why *job* failed; empty where it did not."""
        try:
            job()
        except Exception as error:  # noqa: BLE001 - one page that cannot be sent must not keep others from it
            self._note(error)
            return self._last_error
        if not self._up:
            logger.warning("%s takes pages again", self.name)
        self._up, self._last_error = True, ""
        return ""

    def _note(self, error: Exception) -> None:
        self._failed += 1
        self._last_error = f"{type(error).__name__}: {error}"
        if self._up:
            logger.error("%s takes no pages: %s", self.name, self._last_error,
                         exc_info=None if isinstance(error, HeadwatchError) else error)
        self._up = False

    def _pause_ns(self, attempts: int) -> int:
        pause = min(self._retry_seconds * 2 ** min(attempts, _LAST_DOUBLING), MAX_PAUSE_SECONDS)
        return int(pause * self._chance.uniform(1 - SPREAD, 1 + SPREAD) * 1e9)

    def _page(self, kind: str, key: str, incident: Incident) -> Page:
        links = self._links
        return Page(key, kind, links.service, incident, links.runbook(incident), links.console(incident))

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


def _wakes(incident: Incident) -> bool:
    """Return whether the route was told of *incident*; what is silenced is shown by mirrors alone."""
    return incident.paged and not incident.silenced
