"""Text on its way into SQL and into values of query parameters."""

from __future__ import annotations

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"}
_IN_LITERAL = str.maketrans(_ESCAPES)
_IN_PARAMETER = str.maketrans({mark: text for mark, text in _ESCAPES.items() if mark != "'"})


def literal(text: str) -> str:
    """Return *text* as a string literal."""
    return f"'{text.translate(_IN_LITERAL)}'"


def parameter(text: str) -> str:
    """Return *text* as the value of a ``String`` parameter: those are read as one field of TabSeparated."""
    return text.translate(_IN_PARAMETER)
