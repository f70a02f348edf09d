"""What a person is told, and the seams on both sides of it: where pages wait, and what carries them.

A page is a message about one incident: that it opened, changed, or was resolved.  Its *key* is the same whenever the same
message is sent again, so that whoever receives it may throw the second one away; delivery is at least once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from headwatch.findings import Incident

if TYPE_CHECKING:
    from collections.abc import Sequence

OPENED = "opened"
"""The kind of message that calls a person; all others tell how it goes on."""


class Page(msgspec.Struct, frozen=True):
    """One message about one incident."""

    key: str
    """Stable: a message that is sent again has the key that it had."""
    kind: str
    """``opened`` (for the first time, or again), ``updated`` or ``resolved``."""
    service: str
    """``service.name`` of what is observed."""
    incident: Incident
    runbook_url: str
    console_url: str
    """Where the incident stands in full."""

    @property
    def title(self) -> str:
        """Return one line: how bad, what kind of thing, and what happened."""
        incident = self.incident
        state = "resolved" if incident.state == "resolved" else incident.severity
        return f"[{state}] {incident.verdict.drift_class}: {incident.verdict.sentence}"


class Sender(Protocol):
    """Carries pages to one peer.  It may block for some seconds: it runs on a thread of its own."""

    @property
    def name(self) -> str:
        """Return the word that labels this sender's metrics: ``webhook``, ``alertmanager``, ``grafana``."""
        ...

    @property
    def refresh_seconds(self) -> float:
        """Return how often the peer must be told of what is still open; 0: never."""
        ...

    def send(self, page: Page) -> None:
        """Deliver *page*.  Safe to repeat.

        Raises:
            ExportError: The peer cannot be reached or refuses.
        """
        ...

    def refresh(self, pages: Sequence[Page]) -> None:
        """Say again that these are open.

        Raises:
            ExportError: The peer cannot be reached or refuses.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Entry(Protocol):
    """A message that waits in the outbox."""

    @property
    def id(self) -> int:
        """Return its number in the outbox; later ones are larger."""
        ...

    @property
    def kind(self) -> str:
        """Return what is told: ``opened``, ``resolved``, ..."""
        ...

    @property
    def incident(self) -> Incident:
        """Return the incident as it was when the message was written."""
        ...

    @property
    def key(self) -> str:
        """Return the idempotency key."""
        ...

    @property
    def attempts(self) -> int:
        """Return how often it was tried."""
        ...


class Outbox(Protocol):
    """Messages that were written in one transaction with what they tell of, and wait to be sent."""

    def pending(self, route: str, /) -> Sequence[Entry]:
        """Return what is due now of *route*, the oldest first; of one incident one at a time."""
        ...

    def done(self, entry_id: int, /) -> None:
        """Forget a message that was delivered."""
        ...

    def failed(self, entry_id: int, error: str, next_ns: int, /) -> None:
        """Keep a message that was not, until *next_ns*."""
        ...
