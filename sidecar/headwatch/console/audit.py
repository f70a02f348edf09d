"""Reads and changes through the API, noted: which path, by which parameters and never their values, from where, how it ended.

One line of JSON into the log ``headwatch.audit`` at level info, where reads through the ClickHouse endpoint stand as well.
Metrics and health are no reads: they name nobody, and are asked every few seconds.  The API knows no users: who changed what
is in the audits of live control and of incidents; here stands what was tried, also where the token was wrong.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from headwatch.console.guard import REFUSED

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("headwatch.audit")

_READ_AT = "/api/"
_NOT_READS = frozenset({"/api/v1/status"})
_MAX_PATH = 256
_MAX_METHOD = 16
_MAX_PARAMETERS = 16
_FAILED = 500
"""What a handler that raises is answered with, further out."""


class ApiRead(msgspec.Struct, frozen=True):
    """One read, or one change that was asked for."""

    time_ns: int
    surface: str
    method: str
    path: str
    parameters: list[str]
    """Names alone, in order, each once."""
    peer: str
    status: int
    """Of HTTP; 0: the client left before there was any."""
    seconds: float


class ApiAudit:
    """ASGI middleware that notes each request below ``/api/``, and whatever the guard of hosts refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and note how it ended."""
        path = scope.get("path", "")
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started, now = 0, time.monotonic(), time.time_ns()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = status or _FAILED
            raise
        finally:
            if (path.startswith(_READ_AT) and path not in _NOT_READS) or scope.get(REFUSED):
                _note(scope, now, status, time.monotonic() - started)


def _note(scope: Scope, now_ns: int, status: int, seconds: float) -> None:
    asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    names = dict.fromkeys(name[:_MAX_PATH] for name, _ in asked)
    peer = scope.get("client") or ("", 0)
    read = ApiRead(
        now_ns, "api", scope["method"][:_MAX_METHOD], scope["path"][:_MAX_PATH], sorted(names)[:_MAX_PARAMETERS], peer[0],
        status, round(seconds, 6),
    )  # fmt: skip
    logger.info(msgspec.json.encode(read).decode())
