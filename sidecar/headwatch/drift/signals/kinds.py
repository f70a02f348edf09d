"""Kinds of prompts by their shape, no word of them kept: what draws a signal can be named without reading anybody's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.model import RequestContext

_KIBI = 1024
_COUNTS = ((0, "0"), (1, "1"), (2, "2"), (4, "3-4"), (8, "5-8"), (16, "9-16"))


def prompt_kind(context: RequestContext) -> str:
    """Return the kind of a prompt: length by powers of four, documents, earlier turns, tools: ``1k-4k docs:3-4 turns:0``."""
    ages = {span.age for span in context.spans if span.kind == "history"}
    tools = any(span.kind == "tool" for span in context.spans)
    named = sum(document.kind == "document" for document in context.documents)
    return f"{_length(context.prompt_tokens)} docs:{_count(named)} turns:{_count(len(ages))}{' tools' if tools else ''}"


def _length(tokens: int) -> str:
    low, high = 0, _KIBI // 4
    while tokens >= high:
        low, high = high, high * 4
    return f"<{_short(high)}" if not low else f"{_short(low)}-{_short(high)}"


def _short(tokens: int) -> str:
    return f"{tokens // _KIBI}k" if tokens >= _KIBI else str(tokens)


def _count(number: int) -> str:
    return next((name for bound, name in _COUNTS if number <= bound), f">{_COUNTS[-1][0]}")
