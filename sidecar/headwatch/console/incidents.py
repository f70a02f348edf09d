"""Drift and incidents over HTTP: reading is open as all reading is, acknowledging and resolving need the bearer token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from headwatch.console.change import body_of
from headwatch.console.parameters import Parameters
from headwatch.console.view import STORE_OFF
from headwatch.errors import IncidentError, StoreError
from headwatch.findings import Ruling

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from starlette.requests import Request
    from starlette.responses import Response

    from headwatch.console.view import IncidentView, Reader, SidecarView

STATES = ("", "live", "open", "acknowledged", "resolved")
_CODES = {"unknown": 404, "state": 409, "file": 503}

Who = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Note = Annotated[str, msgspec.Meta(max_length=4096)]


class Acknowledgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``ack``."""

    who: Who
    note: Note = ""
    ruling: Ruling | None = None


class Resolution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``resolve``."""

    who: Who
    ruling: Ruling
    note: Note = ""


def incident_routes(view: SidecarView, token: bytes, answer: Callable[[Any], Response]) -> list[Route]:
    """Return the routes; *answer* makes a response of plain values.  An empty *token* closes changing."""

    def incidents() -> IncidentView:
        return _incidents_of(view)

    async def drift(request: Request) -> Response:
        Parameters(request.query_params, ())
        status = await run_in_threadpool(view.drift)
        return answer(status if status is not None else {"state": "off"})

    async def listed(request: Request) -> Response:
        given = Parameters(request.query_params, ("state", "limit"))
        state, limit = given.choice("state", STATES, "") or None, given.limit()
        return answer(await _asked(lambda: incidents().list(state, limit)))

    async def shown(request: Request) -> Response:
        Parameters(request.query_params, ())
        return answer(await _asked(lambda: incidents().get(request.path_params["id"])))

    async def effects(request: Request) -> Response:
        Parameters(request.query_params, ())
        return answer(await _asked(lambda: _reader_of(view).effects(incidents().get(request.path_params["id"]))))

    async def ack(request: Request) -> Response:
        given = await body_of(request, token, Acknowledgement)
        return answer(await _asked(lambda: incidents().ack(request.path_params["id"], given.who, given.note, given.ruling)))

    async def resolve(request: Request) -> Response:
        given = await body_of(request, token, Resolution)
        return answer(
            await _asked(lambda: incidents().resolve(request.path_params["id"], given.who, given.ruling, given.note))
        )

    return [
        Route("/api/v1/drift", drift, methods=["GET"]),
        Route("/api/v1/incidents", listed, methods=["GET"]),
        Route("/api/v1/incidents/{id}", shown, methods=["GET"]),
        Route("/api/v1/incidents/{id}/effects", effects, methods=["GET"]),
        Route("/api/v1/incidents/{id}/ack", ack, methods=["POST"]),
        Route("/api/v1/incidents/{id}/resolve", resolve, methods=["POST"]),
    ]


def _incidents_of(view: SidecarView) -> IncidentView:
    if view.incidents is None:
        raise HTTPException(409, "this sidecar keeps no incidents (drift.enabled = false)")
    return view.incidents


def _reader_of(view: SidecarView) -> Reader:
    if view.reader is None:
        raise HTTPException(503, STORE_OFF)
    return view.reader


async def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return await run_in_threadpool(ask)
    except IncidentError as error:
        raise HTTPException(_CODES.get(error.reason, 400), str(error)) from error
    except StoreError as error:
        raise HTTPException(503, str(error)) from error
