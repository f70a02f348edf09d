"""What is noted of every read: who, what without its literals, how much, and how it ended."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import msgspec

logger = logging.getLogger("headwatch.audit")


@dataclass(frozen=True, slots=True)
class Read:
    """One read through the endpoint."""

    time_ns: int
    peer: str
    """The address that asked."""
    outcome: str
    """``ok``, ``cancelled``, or the name of the error, such as ``READONLY``."""
    user: str = ""
    """Empty where nobody was admitted."""
    tried: str = ""
    """Where nobody was admitted, the user that was named, if there is one of that name: what else is sent may be a secret."""
    query_id: str = ""
    query: str = ""
    """Without literals and comments; empty where it was not parsed."""
    rows: int = 0
    """Of the answer."""
    bytes: int = 0
    """Of the answer as it was sent."""
    read_rows: int = 0
    seconds: float = 0.0


class Audit(Protocol):
    """Keeps reads."""

    def record(self, read: Read) -> None:
        """Keep *read*.  May block; is not called from the thread that answers requests."""
        ...


class LogAudit:
    """Writes each read as one line of JSON into the log ``headwatch.audit``, at level info."""

    def record(self, read: Read) -> None:
        """Write *read*."""
        logger.info(msgspec.json.encode(read).decode())
