"""Live control over HTTP: reading is open as all reading is, changing needs the bearer token.

A page in a browser cannot change anything: the token travels in a header that a page of another origin may not set without
asking first, and asking (OPTIONS) is never answered.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from headwatch.console.parameters import Parameters
from headwatch.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response

    from headwatch.console.view import Control, SidecarView

MAX_BODY_BYTES = 64 * 1024
_SCHEME = "bearer "
_CODES = {"invalid": 400, "off": 409, "unrecorded": 503}


def control_routes(view: SidecarView, token: bytes, answer: Callable[[Any], Response]) -> list[Route]:
    """Return the routes of live control; *answer* makes a response of plain values.  An empty *token* closes changing."""

    def control() -> Control:
        if view.control is None:
            raise HTTPException(409, "this sidecar has no live control")
        return view.control

    async def show(request: Request) -> Response:
        Parameters(request.query_params, ())
        return answer(await run_in_threadpool(control().show))

    async def audit(request: Request) -> Response:
        limit = Parameters(request.query_params, ("limit",)).limit()
        return answer(await run_in_threadpool(control().audit, limit))

    async def change(request: Request) -> Response:
        Parameters(request.query_params, ())
        check_token(request.headers.get("authorization", ""), token)
        body = await read_body(request)
        peer = f"http {request.client.host}" if request.client is not None else "http"
        try:
            return answer(await run_in_threadpool(control().change, body, peer))
        except ControlError as error:
            raise HTTPException(_CODES.get(error.reason, 400), str(error)) from error

    return [
        Route("/api/v1/control", show, methods=["GET"]),
        Route("/api/v1/control", change, methods=["POST"]),
        Route("/api/v1/control/audit", audit, methods=["GET"]),
    ]


def check_token(header: str, token: bytes) -> None:
    """Return if *header* (``Authorization``) carries *token*.

    Raises:
        HTTPException: 403 where there is no token to carry, 401 where it is not this one.
    """
    if not token:
        raise HTTPException(403, "nothing can be changed through HTTP: http.token_file names no token (docs/control.md)")
    given = header[len(_SCHEME) :].strip() if header[: len(_SCHEME)].lower() == _SCHEME else ""
    if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token):
        raise HTTPException(401, "the bearer token is missing or wrong (http.token_file)", {"WWW-Authenticate": "Bearer"})


async def read_body(request: Request) -> bytes:
    """Return the JSON body of a change, not decoded.

    Raises:
        HTTPException: 415 where it does not say that it is JSON, 413 where it is too long.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send the change as application/json")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"a change has at most {MAX_BODY_BYTES} bytes")
    return bytes(body)
