"""How old a document is beyond what the mere passing of time explains.

An index that is built once a week ages by a day each day, and nothing is wrong with it.  So a document is held against the
newest one of its source that was seen so far: documents of one build are of one age however long ago it was, and one that
comes out of an old build or a forgotten cache is behind.  A source that is fetched live, whose newest document was nearly always
less than :data:`LIVE_SECONDS` old, is held against the clock instead, so that a cache which no longer expires shows.

Cost: four numbers for each of at most ``MAX_SOURCES`` sources, the least recently seen make room.
"""

from __future__ import annotations

import msgspec

MAX_SOURCES = 1024
LIVE_SECONDS = 3600.0
_LIVE_SHARE = 0.9
_NEEDED, _SETTLED = 100, 1000
"""Documents from which on it is known whether a source is live, and after which that does not change any more."""


class _Source(msgspec.Struct, array_like=True):
    newest: float
    """Seconds since 1970."""
    seen: int = 0
    recent: int = 0
    """Of those *seen*: with the newest of the source less than an hour old."""

    @property
    def live(self) -> bool:
        return self.seen >= _NEEDED and self.recent >= _LIVE_SHARE * self.seen


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
        if held.seen < _SETTLED:
            held.seen += 1
            held.recent += now - held.newest < LIVE_SECONDS

    def behind(self, source: str, retrieved: float, now: float) -> float:
        """Return by how many seconds a document of *source* is older than it might be."""
        held = self.known.get(source)
        reference = now if held is None or held.live else held.newest
        return max(reference - retrieved, 0.0)
