"""From the requests of a window to its signals, scope by scope: weighted means over the requests that define each.

A request counts as often as it stands for.  ``SignalValue.requests`` is the effective number of requests, (sum w)² / sum w²
(Kish, *Survey Sampling*, 1965): that many equally weighted requests would give a mean of the same variance.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from headwatch.drift.signals import focus, grounding, labels, presence, shares, sources, staleness
from headwatch.drift.signals.read import ReadRequest
from headwatch.drift.signals.sources import SourceBook
from headwatch.drift.signals.versions import VersionBook
from headwatch.observed import Scope, SignalValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.drift.signals.definition import SignalDefinition
    from headwatch.records import RequestRecord

MAX_SCOPES = 256
"""Scopes of a window; requests of further ones count under the route ``other`` of their model."""

SIGNALS: dict[str, SignalDefinition] = {
    definition.name.removesuffix("."): definition
    for module in (presence, grounding, shares, sources, staleness, labels, focus)
    for definition in module.DEFINITIONS
}
"""Every signal by name; families, such as ``source_share``, by the part before the dot."""


class DocumentBook(msgspec.Struct):
    """What earlier requests told of documents: versions and sources.  Bounded; plain JSON by msgspec."""

    versions: VersionBook = msgspec.field(default_factory=VersionBook)
    sources: SourceBook = msgspec.field(default_factory=SourceBook)

    def learn(self, request: ReadRequest) -> None:
        """Note the documents of *request*."""
        self.sources.learn(request)
        for item in request.documents:
            document = item.document
            self.versions.learn(document.source, document.id, document.version, document.retrieved_at)


def definition_of(name: str) -> SignalDefinition:
    """Return the definition of the signal *name*, which may be one of a family (``source_share.wiki``)."""
    return SIGNALS[name.partition(".")[0]]


def values_of(request: ReadRequest, book: DocumentBook) -> dict[str, float]:
    """Return every signal that *request* defines."""
    return {
        **presence.values(request),
        **grounding.values(request),
        **shares.values(request),
        **sources.values(request, book.sources),
        **staleness.values(request, book.versions),
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
    sums: dict[Scope, dict[str, list[float]]] = defaultdict(dict)
    for request in requests:
        scope = request.scope
        if scope not in sums and len(sums) >= MAX_SCOPES:
            scope = Scope(scope.model, "", "other")
        held = sums[scope]
        for name, value in values_of(request, book).items():
            total = held.setdefault(name, [0.0, 0.0, 0.0])
            total[0] += request.weight * value
            total[1] += request.weight
            total[2] += request.weight**2
    return {
        scope: {name: SignalValue(value / weight, weight**2 / squares) for name, (value, weight, squares) in held.items()}
        for scope, held in sums.items()
    }
