"""Text frames and keepers with known contents."""

from __future__ import annotations

from typing import Any

import msgspec

from headwatch.config import TextConfig
from headwatch.model import TextFrame
from headwatch.text.keeper import TextKeeper
from headwatch.text.keys import new_key, reading_keys
from headwatch.text.seal import Belonging, unseal

from ..frames import context

SERVICE = "vllm"
NOW_NS = 1_800_000_000 * 10**9
ENVIRON = {"HEADWATCH_TEXT_KEY": new_key()}
KEPT = TextConfig(enabled=True, default="keep")


def text_frame(
    text: str = "Where is the ferry?", *, sequence: int = 0, chars: int | None = None, **named: Any
) -> TextFrame:
    request = msgspec.structs.replace(context(), spans=[], **{"request_id": "chatcmpl-1", **named})
    return TextFrame(
        "source", sequence, NOW_NS, "model", request, "prompt", text, len(text) if chars is None else chars
    )


def keeper(config: TextConfig = KEPT) -> TextKeeper:
    return TextKeeper(config, SERVICE, ENVIRON, clock_ns=lambda: NOW_NS)


def opened(row: Any) -> str:
    belonging = Belonging(SERVICE, row.context.request_id, row.kind, row.time_ns)
    return unseal(row.body, reading_keys(KEPT, ENVIRON), belonging)


def kept(text: str, config: TextConfig = KEPT, **named: Any) -> str:
    """Return what is kept of *text*."""
    return opened(keeper(config).kept(text_frame(text, **named)))
