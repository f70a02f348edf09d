"""Sessions: settings that a client made once and that hold for its later requests.

There is nothing else to keep where nothing can be created.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch_exporters.clickhouse.http.asked import Asked

MAX_SESSIONS = 1024
DEFAULT_SECONDS = 60
MAX_SECONDS = 3600


@dataclass(slots=True)
class Session:
    """One session."""

    settings: dict[str, str] = field(default_factory=dict)
    ends: float = 0.0
    held_by: str = ""
    """Id of the query that it belongs to at the moment."""


class Sessions:
    """Every session, by user and id; the one that ends first makes room for a new one.  For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[tuple[str, str], Session] = {}

    def take(self, user: str, asked: Asked) -> Session:
        """Return the session of *asked*, its own from now on; one without a name where it names none.

        Raises:
            QueryError: It is busy, is not there though it has to be, or is to last too long.
        """
        if not asked.session_id:
            return Session(held_by=asked.query_id)
        seconds = _seconds(asked.session_timeout)
        now = self._clock()
        for key in [key for key, session in self._sessions.items() if session.ends < now and not session.held_by]:
            del self._sessions[key]
        session = self._sessions.get((user, asked.session_id))
        if session is None:
            if asked.session_check:
                raise QueryError("SESSION_NOT_FOUND", f"Session {asked.session_id} not found.")
            self._make_room()
            session = self._sessions[user, asked.session_id] = Session()
        elif session.held_by:
            raise QueryError("SESSION_IS_LOCKED", f"Session {asked.session_id} is locked by a concurrent client.")
        session.held_by, session.ends = asked.query_id, now + seconds
        return session

    def give_back(self, user: str, asked: Asked, session: Session) -> None:
        """Let the next request of *session* in, or end it where *asked* says so."""
        session.held_by = ""
        if asked.close_session:
            self._sessions.pop((user, asked.session_id), None)

    def _make_room(self) -> None:
        if len(self._sessions) < MAX_SESSIONS:
            return
        idle = [key for key, session in self._sessions.items() if not session.held_by]
        if not idle:
            raise QueryError("TOO_MANY_SIMULTANEOUS_QUERIES", f"{MAX_SESSIONS} sessions are busy")
        del self._sessions[min(idle, key=lambda key: self._sessions[key].ends)]


def _seconds(text: str) -> int:
    if not text:
        return DEFAULT_SECONDS
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SECONDS)) and 0 < int(text) <= MAX_SECONDS):
        raise QueryError("INVALID_SESSION_TIMEOUT", f"session_timeout={text[:32]!r}: give 1 to {MAX_SECONDS} seconds")
    return int(text)
