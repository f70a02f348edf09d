"""Which Host headers are answered.

A page in a browser can reach a loopback port by rebinding its own name to 127.0.0.1 (DNS rebinding); its requests then
carry that name as Host.  So only loopback names and the configured host are answered.  A server bound to every address
(``0.0.0.0``, ``::``) cannot know its names: there, a proxy or a network policy has to decide, see docs/security.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, never bound


REFUSED = "headwatch.refused"
"""What the guard says in the scope of a request that it refused, for whoever notes it."""


class HostGuard:
    """ASGI middleware that answers 400 to a Host header that is not this server's."""

    def __init__(self, app: ASGIApp, host: str, headers: Mapping[str, str]) -> None:
        self._app = app
        self._open = host in EVERY_ADDRESS
        self._names = LOOPBACK_NAMES | {host.strip("[]").lower()}
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] == "http" and not self._open:
            given = Headers(scope=scope).get("host", "")
            if host_name(given) not in self._names:
                scope[REFUSED] = True
                body = msgspec.json.encode({"error": f"Host {given[:256]!r} is not this server's"})
                refusal = Response(body, 400, headers={**self._headers, "Content-Type": "application/json"})
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def host_name(header: str) -> str:
    """Return the name in a Host *header*, in lower case and without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
