"""Eight hex digits for what a prompt's author wrote once for all requests: its system text and its template.

A release that changes the system prompt, or one newline of the chat template, changes what the model is, though no weight did.
The digest shows that it changed without showing what it says.  It is taken over the *distinct* runs of tokens of the
system and template spans, in the order of their first appearance: so a chat of one turn and one of ten, which repeat
the same role headers, have the same digest.

It is blake2b over token ids, cut to 32 bits: enough to tell a handful of templates of a route apart, too little to identify a
prompt by.  What varies from request to request inside the system span (a date, a name) makes every digest another one; such
a route has no usual digest, and nothing is concluded from it.

Cost: microseconds, for sampled requests only.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.model import Span

_DIGITS_BYTES = 4


def prompt_digest(ids: Sequence[int], spans: Sequence[Span]) -> str:
    """Return the digest of the prompt *ids* that *spans* partition; empty where it has no system or template span."""
    runs = dict.fromkeys(
        np.asarray(ids[span.start : span.end], "<i8").tobytes() for span in spans if span.kind in {"system", "template"}
    )
    if not runs:
        return ""
    digest = blake2b(digest_size=_DIGITS_BYTES, person=b"hw-prompt")
    for run in runs:
        digest.update(len(run).to_bytes(8, "little"))
        digest.update(run)
    return digest.hexdigest()
