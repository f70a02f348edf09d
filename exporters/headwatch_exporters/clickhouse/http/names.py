"""Lists of names, written as text: they are long, and are read more often than changed."""

from __future__ import annotations


def names(text: str) -> frozenset[str]:
    """Return the names in *text*, which white space separates."""
    return frozenset(text.split())
