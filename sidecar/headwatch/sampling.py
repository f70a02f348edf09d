"""Which requests are sampled: a hash of the trace or request id against the rate.

The decision needs no state and no clock, so every replica and every service that knows the trace id takes the same one,
and a request that is sampled at a rate is sampled at every higher rate.  It costs about one microsecond.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.model import RequestContext

_RANGE = 1 << 64


def is_sampled(key: str, rate: float) -> bool:
    """Return whether the request or trace *key* belongs to the share *rate* in [0, 1] that is sampled."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < rate * _RANGE


def is_text_sampled(context: RequestContext, rate: float) -> bool:
    """Return whether the text of a sampled request belongs to the share *rate* whose texts are kept."""
    return is_sampled(f"text:{context.trace_id or context.request_id}", rate)
