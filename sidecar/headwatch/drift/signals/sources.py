"""One source of documents that is ignored, favoured, or has gone: shares by source, of at most eight sources a scope.

Which sources of a scope are watched is settled by use: the first eight to be named by some requests are, which are the most
frequent ones, near enough, and they stay, so that one that goes is missed and not forgotten.

Cost: a counter for each of at most ``MAX_CANDIDATES`` sources in each of ``MAX_SCOPES`` scopes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from headwatch.drift.signals.definition import SignalDefinition

if TYPE_CHECKING:
    from headwatch.drift.signals.read import ReadRequest

MAX_SOURCES = 8
MAX_CANDIDATES = 64
MAX_SCOPES = 1024

DEFINITIONS = (
    SignalDefinition(
        "source_share.", 0.05, 0, "1",
        "Share of mass on the documents of one source over their fair share by tokens (1: fair), of requests with documents of "
        "two sources or more.",
        "A source that is ignored from one whose documents are beside the point; a source that comes alone is not compared.",
        banded=True,
    ),
    SignalDefinition(
        "source_presence.", 0.25, -1, "1",
        "1 where a document of the source was found in the prompt of any request of the window, else 0. How many requests it "
        "is in moves with the questions and is left alone.",
        "A source that is down from one that nobody's question needed; a source that returns half of what it has.",
        of_window=True,
    ),
)


class SourceBook(msgspec.Struct):
    """Which sources of each scope are watched."""

    needed: int = 4
    """Requests that must name a source before it is watched."""
    counts: dict[str, dict[str, int]] = {}
    watched: dict[str, list[str]] = {}

    def learn(self, request: ReadRequest) -> None:
        """Count the sources of *request*."""
        scope = request.scope.label
        watched = self.watched.get(scope, [])
        named = {item.document.source for item in request.documents if item.document.source}.difference(watched)
        if not named or len(watched) >= MAX_SOURCES or (scope not in self.counts and len(self.counts) >= MAX_SCOPES):
            return
        counts = self.counts.setdefault(scope, {})
        for source in sorted(named):
            if source not in counts and len(counts) >= MAX_CANDIDATES:
                continue
            counts[source] = counts.get(source, 0) + 1
            if counts[source] >= self.needed and len(watched) < MAX_SOURCES:
                del counts[source]
                self.watched[scope] = watched = [*watched, source]


def values(request: ReadRequest, book: SourceBook) -> dict[str, float]:
    """Return the signals that *request* defines, of the sources that *book* watches."""
    watched = book.watched.get(request.scope.label, [])
    if not watched or not request.named:
        return {}
    present = {item.document.source for item in request.documents}
    made = {f"source_presence.{source}": float(source in present) for source in watched}
    shares: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    for item in request.read:
        shares[item.document.source] += item.share
        tokens[item.document.source] += item.tokens
    if len(shares) > 1:
        together = sum(tokens.values())
        made |= {
            f"source_share.{source}": shares[source] * together / tokens[source] for source in watched if source in tokens
        }
    return made
