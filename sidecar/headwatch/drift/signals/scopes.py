"""From the requests of a window to its signals, scope by scope: weighted means over the requests that define each.

A request counts as often as it stands for.  Signals that move with the length of what is asked are held apart by band of the
tokens that are no document's (:attr:`Scope.band`): a pasted mail above the question moves the mass on documents by two
standard deviations of a request, and is no fault of retrieval.  Bands of the whole prompt would not do, since what retrieval
breaks changes the length of documents, and the requests would leave the scope that should tell.
  ``SignalValue.requests`` is the effective number of requests, (sum w)² / sum w²
(Kish, *Survey Sampling*, 1965): that many equally weighted requests would give a mean of the same variance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from headwatch.drift.signals import focus, grounding, labels, presence, shares, sources, staleness, wholeness
from headwatch.drift.signals.freshness import FreshnessBook
from headwatch.drift.signals.read import ReadRequest
from headwatch.drift.signals.sources import SourceBook
from headwatch.drift.signals.versions import VersionBook, seconds_of
from headwatch.drift.signals.wholeness import LengthBook
from headwatch.observed import Scope, SignalValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.drift.signals.definition import SignalDefinition
    from headwatch.records import RequestRecord

MAX_SCOPES = 256
"""Scopes of a window; requests of further ones count under the route ``other`` of their model."""

SIGNALS: dict[str, SignalDefinition] = {
    definition.name.removesuffix("."): definition
    for module in (presence, wholeness, grounding, shares, sources, staleness, labels, focus)
    for definition in module.DEFINITIONS
}
"""Every signal by name; families, such as ``source_share``, by the part before the dot."""


class DocumentBook(msgspec.Struct):
    """What earlier requests told of documents: versions, lengths, ages and sources.  Bounded; plain JSON by msgspec."""

    versions: VersionBook = msgspec.field(default_factory=VersionBook)
    sources: SourceBook = msgspec.field(default_factory=SourceBook)
    lengths: LengthBook = msgspec.field(default_factory=LengthBook)
    freshness: FreshnessBook = msgspec.field(default_factory=FreshnessBook)

    def learn(self, request: ReadRequest) -> None:
        """Note the documents of *request*."""
        self.sources.learn(request)
        for item in request.documents:
            document = item.document
            self.versions.learn(document.source, document.id, document.version, document.retrieved_at)
            self.lengths.learn(document, item.tokens)
            retrieved = seconds_of(document.retrieved_at) if document.retrieved_at else None
            if retrieved is not None:
                self.freshness.learn(document.source, retrieved, request.record.ended_ns / 1e9)


def definition_of(name: str) -> SignalDefinition:
    """Return the definition of the signal *name*, which may be one of a family (``source_share.wiki``)."""
    return SIGNALS[name.partition(".")[0]]


def values_of(request: ReadRequest, book: DocumentBook) -> dict[str, float]:
    """Return every signal that *request* defines."""
    return {
        **presence.values(request),
        **wholeness.values(request, book.lengths),
        **grounding.values(request),
        **shares.values(request),
        **sources.values(request, book.sources),
        **staleness.values(request, book.versions, book.freshness),
        **labels.values(request),
        **focus.values(request),
    }


def signals_of(records: Sequence[RequestRecord], book: DocumentBook | None = None) -> dict[Scope, dict[str, SignalValue]]:
    """Return the signals of *records*, the requests that ended in one window, by scope and name.

    *book* remembers versions and sources from window to window and is brought up to date; without one, each window knows
    its own documents only.
    """
    if book is None:
        book = DocumentBook(sources=SourceBook(needed=1))
    requests = [ReadRequest(record) for record in records]
    for request in requests:
        book.learn(request)
    sums: dict[Scope, dict[str, RunningMean]] = defaultdict(dict)
    for request in requests:
        for name, value in values_of(request, book).items():
            scope = request.banded if definition_of(name).banded else request.scope
            if scope not in sums and len(sums) >= MAX_SCOPES:
                scope = Scope(scope.model, "", "other")
            sums[scope].setdefault(name, RunningMean()).add(value, request.weight)
    return {scope: {name: held.value(name) for name, held in by_name.items()} for scope, by_name in sums.items()}


@dataclass(slots=True)
class RunningMean:
    """One signal over requests that are added one by one; the largest of them where its definition says so."""

    total: float = 0.0
    weight: float = 0.0
    squares: float = 0.0
    largest: float = -math.inf

    def add(self, value: float, weight: float) -> None:
        """Add the *value* of a request that stands for *weight* of them."""
        self.total += weight * value
        self.weight += weight
        self.squares += weight**2
        self.largest = max(self.largest, value)

    def value(self, name: str) -> SignalValue:
        """Return what the signal *name* came to."""
        mean = self.largest if definition_of(name).of_window else self.total / self.weight
        return SignalValue(mean, self.weight**2 / self.squares)
