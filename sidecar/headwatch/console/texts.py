"""Texts of requests through HTTP: ciphertext, and only with the bearer token.  The key is in no answer.

The request is a parameter and no part of the path: the audit notes paths, and never whose request was read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from headwatch.console.change import check_token
from headwatch.console.parameters import Parameters, refuse
from headwatch.console.view import STORE_OFF
from headwatch.errors import HeadwatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response

    from headwatch.console.view import SidecarView


def text_routes(view: SidecarView, token: bytes, answer: Callable[[Any], Response]) -> list[Route]:
    """Return the route of texts; *answer* makes a response of plain values.  An empty *token* closes it."""

    async def show(request: Request) -> Response:
        check_token(request.headers.get("authorization", ""), token, "no text can be read through HTTP")
        given = Parameters(request.query_params, ("request", "limit"))
        identity, limit = given.text("request"), given.limit()
        if not identity:
            refuse("name the request: ?request=chatcmpl-…")
        if view.reader is None:
            raise HTTPException(503, STORE_OFF)
        try:
            return answer(await run_in_threadpool(view.reader.texts, identity, limit))
        except HeadwatchError as error:
            raise HTTPException(503, str(error)) from error

    return [Route("/api/v1/texts", show, methods=["GET"])]
