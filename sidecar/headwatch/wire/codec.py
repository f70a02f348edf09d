"""Frames to bytes and back: a two-byte header and msgpack, no pickle.

Byte 0 is the magic ``0xA7``, byte 1 the schema version.  A sidecar reads this version and the one before, so that
workers and sidecars may be upgraded one at a time, sidecars first.  Version 2 is version 3 without row weights, value
masses, the columns of detail levels 2 to 4, texts, and what a worker says of its kernel, budget and control: its frames decode
with weights of 1 and the rest empty.
"""

from __future__ import annotations

import msgspec

from headwatch.errors import WireError
from headwatch.model import Frame

MAGIC = 0xA7
VERSION = 3
READABLE = (2, 3)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """Return *frame* as bytes of the current version."""
    return bytes((MAGIC, VERSION)) + _encoder.encode(frame)


def decode(payload: bytes | memoryview) -> Frame:
    """Return the frame in *payload*.

    Raises:
        WireError: With reason ``magic`` (not ours), ``version`` (not readable) or ``malformed``.
    """
    view = memoryview(payload)
    if len(view) < 2 or view[0] != MAGIC:  # noqa: PLR2004 - the header's two bytes
        raise WireError("magic", f"{len(view)} bytes that do not start like a headwatch frame")
    if view[1] not in READABLE:
        raise WireError("version", f"frame of wire version {view[1]}; this sidecar reads {', '.join(map(str, READABLE))}")
    try:
        return _decoder.decode(view[2:])  # columns stay views of the payload: nothing is copied
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WireError("malformed", f"frame cannot be decoded: {error}") from error
