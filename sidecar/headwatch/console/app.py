"""The sidecar's HTTP surface: JSON, bounded, and read only but for live control and incidents, which need a token to change.

Parameters are checked before the store is asked; reads run in a thread pool; an error is one JSON object and never a
traceback.  Only GET and HEAD are answered, and POST where something may be changed.  Texts need the token to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route

from headwatch import __version__
from headwatch.console.audit import ApiAudit
from headwatch.console.canary import canary_routes
from headwatch.console.control import control_routes
from headwatch.console.guard import HostGuard
from headwatch.console.heads import KNOWN, head_history
from headwatch.console.incidents import incident_routes
from headwatch.console.page import MAX_INCIDENTS, render_page
from headwatch.console.parameters import MAX_TIME_NS, Parameters
from headwatch.console.texts import text_routes
from headwatch.console.view import STORE_OFF
from headwatch.errors import HeadwatchError, IncidentError
from headwatch.model import HEAD_FEATURES
from headwatch.records import Selection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from headwatch.console.view import CanaryView, Reader, SidecarView

VERSION_HEADER = "X-Headwatch-Version"
HEADERS = {
    VERSION_HEADER: __version__,
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
                               "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}  # fmt: skip


def create_app(
    view: SidecarView, host: str = "127.0.0.1", token: bytes = b"", canary: CanaryView | None = None,
    clickhouse: ASGIApp | None = None,
) -> Starlette:  # fmt: skip
    """Return the application over *view* and *canary*; *host* is the address it is bound to, *token* allows changes.

    *clickhouse* answers ``/clickhouse``.
    """

    async def metrics(request: Request) -> Response:
        body, content_type = await run_in_threadpool(view.render_metrics, request.headers.get("accept"))
        return Response(body, headers={**HEADERS, "Content-Type": content_type})

    async def healthz(_: Request) -> Response:
        return _json({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reasons = await run_in_threadpool(view.readiness)
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def status(_: Request) -> Response:
        return _json(await run_in_threadpool(view.health))

    async def index(_: Request) -> Response:
        page = await run_in_threadpool(_index, view)
        return Response(page, headers={**HEADERS, "Content-Type": "text/html; charset=utf-8"})

    routes = [
        Route("/", index),
        Route("/metrics", metrics),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/api/v1/status", status),
        *control_routes(view, token, _json),
        *incident_routes(view, token, _json),
        *canary_routes(canary, token, _json),
        *text_routes(view, token, _json),
        *(
            Route(f"/api/v1/{name}", _stored(view, known, read))
            for name, (known, read) in _READS.items()
        ),
        *([Route("/clickhouse", clickhouse), Mount("/clickhouse", clickhouse)] if clickhouse is not None else ()),
    ]  # fmt: skip
    return Starlette(
        routes=routes,
        middleware=[Middleware(ApiAudit), Middleware(HostGuard, host=host, headers=HEADERS)],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


MAX_UNITS = 256
_SELECTED = ("model", "revision", "adapter", "arm")
_UNITS = (*_SELECTED, "length", "limit", "since_ns", "until_ns")


def _units(given: Parameters) -> dict[str, Any]:
    """Return which units are meant."""
    return {
        "selection": Selection(**{name: given.optional(name) for name in _SELECTED}),
        "length": given.integer("length", 1, 1, 1000),
        "limit": given.integer("limit", 96, 1, MAX_UNITS),
        "since_ns": given.integer("since_ns", 0, 0, MAX_TIME_NS),
        "until_ns": given.integer("until_ns", MAX_TIME_NS, 0, MAX_TIME_NS),
    }


_READS: dict[str, tuple[tuple[str, ...], Callable[[Reader, Parameters], Any]]] = {
    "arms": (("since_ns",), lambda reader, given: reader.arms(given.integer("since_ns", 0, 0, MAX_TIME_NS))),
    "requests": (("arm", "route", "limit"),
                 lambda reader, given: reader.requests(given.text("arm"), given.text("route"), given.limit())),
    "heads": (("arm", "feature"),
              lambda reader, given: reader.heads(given.text("arm"), given.choice("feature", HEAD_FEATURES, "lookback"))),
    "heads/history": (KNOWN, head_history),
    "documents": (("arm", "limit"), lambda reader, given: reader.documents(given.text("arm"), given.limit())),
    "units": ((*_UNITS, "feature"),
              lambda reader, given: reader.units(feature=given.choice("feature", ("", *HEAD_FEATURES), ""), **_units(given))),
    "signals": ((*_UNITS, "first"),
                lambda reader, given: reader.signals(first=given.integer("first", 0, 0, MAX_UNITS), **_units(given))),
    "counts": ((), lambda reader, _: reader.counts()),
    "evidence": (("since_ns", "name", "limit"),
                 lambda reader, given: reader.evidence(given.integer("since_ns", 0, 0, MAX_TIME_NS), given.text("name"),
                                                       given.limit())),
    "canaries": (("prompt", "limit"), lambda reader, given: reader.canaries(given.text("prompt"), given.limit())),
    "deploys": (("limit",), lambda reader, given: reader.deploys(given.limit())),
}  # fmt: skip
"""Path below ``/api/v1/`` to the parameters it knows and the read that answers it."""


def _stored(
    view: SidecarView, known: tuple[str, ...], read: Callable[[Reader, Parameters], Any]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        given = Parameters(request.query_params, known)
        if view.reader is None:
            return _json({"error": STORE_OFF}, 503)
        try:
            return _json(await run_in_threadpool(read, view.reader, given))
        except HeadwatchError as error:
            return _json({"error": str(error)}, 503)

    return endpoint


def _index(view: SidecarView) -> bytes:
    try:
        incidents = view.incidents.list("live", MAX_INCIDENTS) if view.incidents is not None else ()
        reasons = view.readiness()
    except IncidentError as error:  # a page that cannot show incidents still shows the rest, and says so
        incidents, reasons = (), [*view.readiness(), str(error)]
    return render_page(view.health(), reasons, view.drift(), incidents)


def _json(document: Any, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode(document)
    return Response(body, code, headers={**HEADERS, **(headers or {}), "Content-Type": "application/json"})


def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):  # for the type checker: Starlette routes by class
        raise error
    return _json({"error": error.detail}, error.status_code, dict(error.headers or {}))


def _failed(_: Request, __: Exception) -> Response:
    """Answer for an error of ours; the server logs it, with its traceback."""
    return _json({"error": "internal error; the sidecar's log has the details"}, 500)
