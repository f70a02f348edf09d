"""What every request that changes something has to bring: the bearer token, and a JSON body of a size that can be read.

A page in a browser cannot change anything: the token travels in a header that a page of another origin may not set without
asking first, and asking (OPTIONS) is never answered.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.exceptions import HTTPException

from headwatch.console.parameters import Parameters

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY_BYTES = 64 * 1024
_SCHEME = "bearer "
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


async def body_of(request: Request, token: bytes, kind: type[_Kind]) -> _Kind:
    """Return the body of a change as *kind*, once the token is right.

    Raises:
        HTTPException: The token is missing or wrong, or the body is no *kind*.
    """
    Parameters(request.query_params, ())
    check_token(request.headers.get("authorization", ""), token)
    body = await read_body(request)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise HTTPException(400, f"the body cannot be read: {error}") from error


def check_token(header: str, token: bytes, closed: str = "nothing can be changed through HTTP") -> None:
    """Return if *header* (``Authorization``) carries *token*; *closed* is what follows from there being none.

    Raises:
        HTTPException: 403 where there is no token to carry, 401 where it is not this one.
    """
    if not token:
        raise HTTPException(403, f"{closed}: http.token_file names no token (docs/control.md)")
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
