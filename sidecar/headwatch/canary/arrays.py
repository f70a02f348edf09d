"""Arrays of float32 as text in a JSON file: little-endian, deflated, base64.  No pickle; sizes are checked before memory is."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from typing import TYPE_CHECKING

import numpy as np

from headwatch.errors import CanaryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BYTES = 64 * 1024 * 1024


def pack(values: NDArray[np.float32]) -> str:
    """Return *values* as text; :func:`unpack` gives them back bit for bit, NaN included."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values, "<f4").tobytes(), 6)).decode()


def unpack(text: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the array of *shape* in *text*.

    Raises:
        CanaryError: It is no such array, or larger than any fingerprint's.
    """
    expected = 4 * math.prod(shape)
    if min(shape, default=0) < 0 or expected > MAX_BYTES:
        raise CanaryError("fingerprint", f"an array of shape {shape} is larger than a fingerprint may hold")
    try:
        stream = zlib.decompressobj()
        content = stream.decompress(base64.b64decode(text, validate=True), expected + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise CanaryError("fingerprint", f"an array of a fingerprint cannot be read: {error}") from error
    if len(content) != expected or not stream.eof:
        raise CanaryError("fingerprint", f"an array of a fingerprint has not the {expected} bytes of its shape {shape}")
    return np.frombuffer(content, "<f4").astype(np.float32).reshape(shape)
