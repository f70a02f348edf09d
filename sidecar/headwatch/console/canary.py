"""Canaries over HTTP: reading is open as all reading is, a run and a pin need the bearer token.

A run takes seconds and a pin longer, so an order is only taken: ``ordered`` and ``done`` say when it is through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from headwatch.console.change import body_of
from headwatch.console.parameters import Parameters
from headwatch.errors import CanaryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response

    from headwatch.console.view import CanaryView

_CODES = {"invalid": 400, "none": 404}


class RunOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``run``: nothing."""


class PinOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``pin``."""

    runs: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    """None: as many as it needs."""
    note: Annotated[str, msgspec.Meta(max_length=512)] = ""


def canary_routes(canary: CanaryView | None, token: bytes, answer: Callable[[Any], Response]) -> list[Route]:
    """Return the routes; *answer* makes a response of plain values.  An empty *token* closes changing."""

    def there() -> CanaryView:
        if canary is None:
            raise HTTPException(409, "this sidecar sends no canaries (canary.endpoint is empty)")
        return canary

    async def show(request: Request) -> Response:
        Parameters(request.query_params, ())
        return answer(await _asked(there().show))

    async def fingerprint(request: Request) -> Response:
        Parameters(request.query_params, ())
        return answer(msgspec.Raw(await _asked(there().fingerprint)))

    async def run(request: Request) -> Response:
        await body_of(request, token, RunOrder)
        return answer(await _asked(there().order_run))

    async def pin(request: Request) -> Response:
        given = await body_of(request, token, PinOrder)
        return answer(await _asked(lambda: there().order_pin(given.runs, given.note)))

    return [
        Route("/api/v1/canary", show, methods=["GET"]),
        Route("/api/v1/canary/fingerprint", fingerprint, methods=["GET"]),
        Route("/api/v1/canary/run", run, methods=["POST"]),
        Route("/api/v1/canary/pin", pin, methods=["POST"]),
    ]


async def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return await run_in_threadpool(ask)
    except CanaryError as error:
        raise HTTPException(_CODES.get(error.reason, 503), str(error)) from error
