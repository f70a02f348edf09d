"""The one message that travels from the sidecar to its workers and front ends: what is ordered, signed.

Layout: magic ``0xA8``, version, 32 bytes of HMAC-SHA256, msgpack.  The code covers magic, version and msgpack, and is
compared in constant time before anything is decoded, so bytes from anybody without the secret reach no decoder.  A
message says everything that is ordered, never a difference: one that is lost costs nothing, since the next says the same.

``(epoch, sequence)`` only ever rises.  Every change of the orders and every start of the sidecar has an epoch of its own;
the sequence counts the repeats within it.  Time limits travel as seconds that are left, and are measured on the receiver's
monotonic clock: a clock that jumps on either side moves none of them.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

import msgspec

from headwatch.config import RouteConfig, RouteName
from headwatch.errors import WireError

MAGIC = 0xA8
VERSION = 1
MAX_MESSAGE_BYTES = 128 * 1024
MAX_ROUTES = 256
MAX_RAISES = 64
MAX_SECONDS = 7 * 86_400.0
MAX_EPOCH = 2**53
"""Beyond it JSON readers round; reached by nobody who counts changes."""
_HEADER = bytes((MAGIC, VERSION))
_MAC_BYTES = hashlib.sha256().digest_size
_BODY = len(_HEADER) + _MAC_BYTES

SecondsLeft = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_SECONDS)]
Epoch = Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which requests a raise is about; what is not given is any."""

    model: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    """Served name.  A front end, which does not know its own, goes by the rest."""
    route: RouteName | None = None
    adapter: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    context_from: Tokens = 0
    """Visible tokens, the query's own included: from so many …"""
    context_to: Tokens = 0
    """… to less than so many; 0: without limit."""


class Raise(msgspec.Struct, frozen=True):
    """More for some requests and for a time: it never lowers a rate or a detail and never widens a stride."""

    number: Epoch
    """The epoch in which it was ordered, which no other raise has."""
    target: Target
    to: RouteConfig
    seconds: SecondsLeft


class ControlMessage(msgspec.Struct, frozen=True):
    """Everything that is ordered now."""

    epoch: Epoch
    start_id: Annotated[str, msgspec.Meta(min_length=8, max_length=64)]
    """One life of the sidecar."""
    sequence: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)]
    issued_ns: int
    """The sidecar's clock, for people and logs: nothing is decided by it."""
    since: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)] = 0
    """The epoch in which ``expires_seconds`` was ordered."""
    enabled: bool = True
    everything: RouteConfig = RouteConfig()
    routes: Annotated[dict[RouteName, RouteConfig], msgspec.Meta(max_length=MAX_ROUTES)] = {}
    expires_seconds: SecondsLeft | None = None
    """After so long ``enabled``, ``everything`` and ``routes`` go back to the receiver's file."""
    raises: Annotated[list[Raise], msgspec.Meta(max_length=MAX_RAISES)] = []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ControlMessage)


def encode(message: ControlMessage, secret: bytes) -> bytes:
    """Return *message* as bytes, signed with *secret*."""
    body = _encoder.encode(message)
    return _HEADER + _code(_HEADER, body, secret) + body


def decode(payload: bytes | memoryview, secret: bytes) -> ControlMessage:
    """Return the message in *payload*.

    Raises:
        WireError: With reason ``size``, ``magic`` (not ours), ``version``, ``mac`` (another secret, or altered) or
            ``malformed``.
    """
    view = memoryview(payload)
    if len(view) > MAX_MESSAGE_BYTES:
        raise WireError("size", f"control message of {len(view)} bytes; at most {MAX_MESSAGE_BYTES} are read")
    if len(view) < _BODY or view[0] != MAGIC:
        raise WireError("magic", f"{len(view)} bytes that do not start like a control message")
    if view[1] != VERSION:
        raise WireError("version", f"control message of version {view[1]}; version {VERSION} is read here")
    header, given, body = view[: len(_HEADER)], view[len(_HEADER) : _BODY], view[_BODY:]
    if not hmac.compare_digest(_code(header, body, secret), given):
        raise WireError("mac", "control message that is not signed with this secret (wire.control_secret_file)")
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WireError("malformed", f"control message cannot be decoded: {error}") from error


def _code(header: bytes | memoryview, body: bytes | memoryview, secret: bytes) -> bytes:
    code = hmac.new(secret, header, hashlib.sha256)
    code.update(body)
    return code.digest()
