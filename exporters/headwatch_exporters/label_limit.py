"""A bound on attribute values that clients choose, such as routes.

A client may put anything into its request field.  Where each value would become a time series of its own, the first ones
seen keep their name and all later ones share one; so no client can exhaust the memory of this process or of its peers.
"""

from __future__ import annotations

MAX_VALUES = 100
OTHER = "other"


class LabelLimit:
    """Lets the first *limit* distinct values pass.  Not safe from threads."""

    def __init__(self, limit: int = MAX_VALUES) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return *value*, or :data:`OTHER` where there is no room for it."""
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value
