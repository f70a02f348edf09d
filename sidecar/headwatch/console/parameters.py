"""Query parameters of the API: checked before the store is asked, refused with the value and what would be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

MAX_TEXT_CHARACTERS = 256
MAX_ROWS = 1000
DEFAULT_ROWS = 200
MAX_TIME_NS = 2**63 - 1


class Parameters:
    """The query parameters of one request; a name outside *known* is refused, so that a typing error is not a default.

    Every method raises ``HTTPException`` 400.
    """

    def __init__(self, given: QueryParams, known: tuple[str, ...]) -> None:
        for name in given:
            if name not in known:
                refuse(f"unknown parameter {name[:MAX_TEXT_CHARACTERS]!r}; known: {', '.join(known) or 'none'}")
            if len(given.getlist(name)) > 1:
                refuse(f"{name} is given more than once")
        self._given = given

    def text(self, name: str) -> str:
        """Return the text of *name*; empty where it is absent."""
        text = self._given.get(name, "")
        if len(text) > MAX_TEXT_CHARACTERS:
            refuse(f"{name} has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are taken")
        return text

    def optional(self, name: str) -> str | None:
        """Return the text of *name*; None where it is absent."""
        return self.text(name) if name in self._given else None

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return *name* as a whole number from *low* to *high*."""
        text = self._given.get(name)
        if text is None:
            return default
        plain = text.isascii() and text.isdigit() and len(text) <= len(str(high))
        if not plain or not low <= int(text) <= high:
            refuse(f"{name}={text[:MAX_TEXT_CHARACTERS]!r}: give a whole number from {low} to {high}")
        return int(text)

    def limit(self) -> int:
        """Return ``limit``: how many rows to answer with."""
        return self.integer("limit", DEFAULT_ROWS, 1, MAX_ROWS)

    def choice(self, name: str, known: tuple[str, ...], default: str) -> str:
        """Return *name*, one of *known*."""
        text = self._given.get(name, default)
        if text not in known:
            refuse(f"{name}={text[:MAX_TEXT_CHARACTERS]!r}: known are {', '.join(known)}")
        return text


def refuse(message: str) -> NoReturn:
    """Answer 400 with *message*."""
    raise HTTPException(400, message)
