"""One request as the signals see it: its documents with their tokens and shares, in the order in which the client ranks them.

Shares are those of the calibrated retrieval heads where the model has a head map, of all heads where it has none: what the
other heads look at is mostly a matter of position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from headwatch.model import FIELD_REJECTED
from headwatch.observed import Scope

if TYPE_CHECKING:
    from headwatch.model import Document, RequestContext
    from headwatch.records import Reading, RequestRecord


_LEAST_BAND = 64


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document that was found in the prompt."""

    document: Document
    rank: int
    """Place in the client's list, the best first."""
    tokens: int
    share: float
    """Of the mass of all documents; NaN where no generated row defines it."""
    per_token: float
    """The share over the part of the documents' tokens that are this one's: 1 is a fair share."""
    first_per_token: float
    """The same at the last row of the prompt, before anything is answered; NaN where that row is not there."""


class ReadRequest:
    """A request record with what the signals need of it."""

    def __init__(self, record: RequestRecord) -> None:
        self.record = record
        self.context = record.context

    @cached_property
    def scope(self) -> Scope:
        """Return whose retrieval this is about."""
        return Scope(self.record.worker.model, self.context.adapter, self.context.route, self.context.language)

    @cached_property
    def banded(self) -> Scope:
        """Return the same for signals that move with the length of what is not a document."""
        return replace(self.scope, band=_band(asked_tokens(self.context)))

    @property
    def weight(self) -> float:
        """Return how many requests this one stands for."""
        return self.context.weight

    @cached_property
    def rejected(self) -> bool:
        """Return whether the client's field was put aside, its documents with it."""
        return not FIELD_REJECTED.isdisjoint(self.context.errors)

    @cached_property
    def named(self) -> int:
        """Return how many documents the client named."""
        return sum(document.kind == "document" for document in self.context.documents)

    @property
    def reading(self) -> Reading | None:
        """Return where the calibrated heads looked, or all heads where none are calibrated."""
        return self.record.reading_retrieval_heads or self.record.reading

    @cached_property
    def documents(self) -> tuple[ReadDocument, ...]:
        """Return the documents that were found in the prompt, best first."""
        tokens = [0] * len(self.context.documents)
        for span in self.context.spans:
            if span.kind == "document" and 0 <= span.document < len(tokens):
                tokens[span.document] += max(span.end - span.start, 0)
        total = sum(tokens)
        unknown = [math.nan] * len(tokens)
        shares = self.reading.document_share.tolist() if self.reading is not None else unknown
        first = self.reading.prompt_end_share if self.reading is not None else None
        begun = unknown if first is None else first.tolist()
        return tuple(
            ReadDocument(
                document, rank, tokens[rank], shares[rank],
                per_token=shares[rank] * total / tokens[rank], first_per_token=begun[rank] * total / tokens[rank],
            )
            for rank, document in enumerate(self.context.documents)
            if document.kind == "document" and tokens[rank] > 0
        )

    @cached_property
    def read(self) -> tuple[ReadDocument, ...]:
        """Return the documents whose shares are known: all that were found, or none."""
        return () if any(math.isnan(document.share) for document in self.documents) else self.documents

    def share_where(self, chosen: dict[int, bool]) -> float | None:
        """Return the share of the documents that are *chosen*, by rank, among those of which it is known whether they are."""
        known = sum(document.share for document in self.read if document.rank in chosen)
        if known <= 0.0:
            return None
        return sum(document.share for document in self.read if chosen.get(document.rank, False)) / known


def asked_tokens(context: RequestContext) -> int:
    """Return the tokens of a prompt that are no document's: what is asked, and not what retrieval adds to it."""
    return context.prompt_tokens - sum(span.end - span.start for span in context.spans if span.kind == "document")


def _band(tokens: int) -> str:
    """Return the band of so many tokens: bounds are powers of two from 64 on."""
    high = _LEAST_BAND
    while tokens >= high:
        high *= 2
    return f"{high // 2}-{high}" if high > _LEAST_BAND else f"<{high}"
