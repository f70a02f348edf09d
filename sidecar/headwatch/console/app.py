"""The sidecar's HTTP surface: read only, JSON, bounded.

Parameters are checked before the store is asked; an error is one JSON object and never a traceback.  Requests with a Host
header that is not this server's are refused, so that a web page cannot reach a loopback port by rebinding a name.
"""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.routing import Route

from headwatch.errors import HeadwatchError
from headwatch.model import REQUEST_FEATURES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from headwatch.console.view import Reader, SidecarView

logger = logging.getLogger("headwatch.console")

MAX_ROWS = 1000
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


def create_app(view: SidecarView, host: str = "127.0.0.1") -> Starlette:
    """Return the application over *view*; *host* is the address that it is bound to."""

    async def metrics(request: Request) -> Response:
        body, content_type = await run_in_threadpool(view.render_metrics, request.headers.get("accept"))
        return Response(body, headers={**_HEADERS, "Content-Type": content_type})

    async def healthz(_: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reasons = await run_in_threadpool(view.readiness)
        return _json({"ready": not reasons, "reasons": reasons}, 200 if not reasons else 503)

    async def status(_: Request) -> Response:
        return _json(await run_in_threadpool(view.health))

    async def index(_: Request) -> Response:
        page = files("headwatch.console").joinpath("index.html").read_bytes()
        return Response(page, headers={**_HEADERS, "Content-Type": "text/html; charset=utf-8"})

    def stored(read: Callable[[Reader, Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if view.reader is None:
                return _json({"error": "the store is off (store.enabled = false)"}, 503)
            try:
                return _json(await run_in_threadpool(read, view.reader, request))
            except HeadwatchError as error:
                return _json({"error": str(error)}, 503)

        return endpoint

    routes = [
        Route("/", index),
        Route("/metrics", metrics),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/api/v1/status", status),
        Route("/api/v1/arms", stored(lambda reader, request: reader.arms(_integer(request, "since_ns", 0, 0, 2**63 - 1)))),
        Route("/api/v1/requests", stored(lambda reader, request: reader.requests(
            _text(request, "arm"), _text(request, "route"), _limit(request)))),
        Route("/api/v1/heads", stored(lambda reader, request: reader.heads(
            _text(request, "arm"), _choice(request, "feature", REQUEST_FEATURES, "lookback")))),
        Route("/api/v1/documents", stored(lambda reader, request: reader.documents(_text(request, "arm"), _limit(request)))),
        Route("/api/v1/counts", stored(lambda reader, _: reader.counts())),
    ]  # fmt: skip
    allowed = ["*"] if host in {"0.0.0.0", "::"} else [*LOOPBACK_HOSTS, host]  # noqa: S104 - compared, not bound
    return Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed)],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


def _json(document: Any, code: int = 200) -> Response:
    return Response(msgspec.json.encode(document), code, headers={**_HEADERS, "Content-Type": "application/json"})


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)


def _failed(request: Request, error: Exception) -> Response:
    logger.error("%s failed", request.url.path, exc_info=error)
    return _json({"error": "internal error; the sidecar's log has the details"}, 500)


def _text(request: Request, name: str) -> str:
    return request.query_params.get(name, "")


def _limit(request: Request) -> int:
    return _integer(request, "limit", 200, 1, MAX_ROWS)


def _integer(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > len(str(high)) or not low <= int(text) <= high:
        raise HTTPException(400, f"{name}={text!r}: give a whole number from {low} to {high}")
    return int(text)


def _choice(request: Request, name: str, known: tuple[str, ...], default: str) -> str:
    text = request.query_params.get(name, default)
    if text not in known:
        raise HTTPException(400, f"{name}={text!r}: known are {', '.join(known)}")
    return text
