"""Words in colour for a terminal, and the same words without it: colour only repeats what the words say.

Plain colours of the terminal's own palette and bold, so that a light background and a dark one both work, and a reader who
sees no red still reads CRITICAL.
"""

from __future__ import annotations

import textwrap
from typing import Literal

Style = Literal["bold", "dim", "red", "green", "yellow", "blue", "plain"]
_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "yellow": "33", "blue": "34", "plain": ""}
WIDTH = 80


class Paint:
    """Styles text, or leaves it as it is."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, text: str, style: Style) -> str:
        """Return *text* in *style*."""
        code = _CODES[style]
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code and text else text


def wrapped(text: str, indent: int = 0, first: str | None = None) -> list[str]:
    """Return *text* in lines of ``WIDTH``, indented; the first one begins with *first* where that is given."""
    gap = " " * indent
    return textwrap.wrap(
        text, WIDTH, initial_indent=gap if first is None else first.ljust(indent), subsequent_indent=gap,
        break_long_words=False, break_on_hyphens=False,
    ) or [gap.rstrip()]  # fmt: skip


def cut(text: str, width: int) -> str:
    """Return *text* in at most *width* characters, with its middle left out where it is longer: ids differ at both ends."""
    if len(text) <= width:
        return text
    head = (width - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (width - 1 - head):]}"


def clean(text: str) -> str:
    """Return *text* that came from a client without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
