"""Live control over HTTP: reading is open as all reading is, changing needs the bearer token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from headwatch.console.change import check_token, read_body
from headwatch.console.parameters import Parameters
from headwatch.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response

    from headwatch.console.view import Control, SidecarView

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
