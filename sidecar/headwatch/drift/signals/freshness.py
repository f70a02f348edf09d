"""How old a document is beyond what the mere passing of time explains.

An index that is built once a week ages by a day each day, and nothing is wrong with it.  So a document is held against the
newest one of its source that was seen so far: documents of one build are of one age however long ago it was, and one that
comes out of an old build or a forgotten cache is behind.  A source that is fetched live is held against the clock instead, so
that a cache which no longer expires shows: one whose newest document was less than an hour old in nearly all of the first
:data:`HOURS` hours in which it was seen.

Cost: four numbers for each of at most ``MAX_SOURCES`` sources, the least recently seen make room.
"""

from __future__ import annotations

import msgspec

MAX_SOURCES = 1024
HOURS = 24
_LIVE_SHARE = 0.9
_HOUR_SECONDS = 3600.0


class _Source(msgspec.Struct, array_like=True):
    newest: float
    """Seconds since 1970."""
    hour: int = -1
    """The last hour in which it was seen, since 1970; ..."""
    hours: int = 0
    """... how many there were, ..."""
    recent: int = 0
    """... and in how many of them the newest document was less than an hour old."""

    @property
    def live(self) -> bool:
        return self.hours >= HOURS and self.recent >= _LIVE_SHARE * self.hours


class FreshnessBook(msgspec.Struct):
    """The newest document of each source.  Plain JSON by msgspec."""

    known: dict[str, _Source] = {}

    def learn(self, source: str, retrieved: float, now: float) -> None:
        """Note a document of *source* that was *retrieved* then (seconds since 1970); nothing is newer than *now*."""
        retrieved = min(retrieved, now)
        held = self.known.pop(source, None) or _Source(retrieved)
        self.known[source] = held  # to the end: the least recently seen come first
        while len(self.known) > MAX_SOURCES:
            del self.known[next(iter(self.known))]
        held.newest = max(held.newest, retrieved)
        hour = int(now // _HOUR_SECONDS)
        if hour > held.hour and held.hours < HOURS:
            held.hour = hour
            held.hours += 1
            held.recent += now - held.newest < _HOUR_SECONDS

    def behind(self, source: str, retrieved: float, now: float) -> float:
        """Return by how many seconds a document of *source* is older than it might be."""
        held = self.known.get(source)
        reference = now if held is None or held.live else held.newest
        return max(reference - retrieved, 0.0)
