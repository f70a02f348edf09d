"""Whether documents come whole: their tokens against the usual length of the same document in the same version.

Other documents may be shorter by nature, and questions about short documents are traffic.  The same text that has become
shorter was cut: by a chunker, a limit of tokens, a broken source.  So a document is compared with itself alone.  Its usual
length is the first that it had :data:`ESTABLISHED` times, until another one was seen :data:`TAKES_OVER` times as often:
neither a long error page in its place nor cut copies become the measure before somebody has heard of them.

Cost: up to ``MAX_LENGTHS`` counts for each of at most ``MAX_DOCUMENTS`` documents, the least recently seen make room.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from headwatch.drift.signals.definition import SignalDefinition

if TYPE_CHECKING:
    from headwatch.drift.signals.read import ReadRequest
    from headwatch.model import Document

MAX_DOCUMENTS = 65_536
MAX_LENGTHS = 4
"""Lengths kept of a document; a further one takes the place of the rarest that is not the usual one."""
ESTABLISHED = 3
TAKES_OVER = 8

DEFINITIONS = (
    SignalDefinition(
        "document_wholeness", 0.02, -1, "1",
        "Mean over the documents found of their tokens over the usual number of the same source, id and version; at most 1.",
        "A document that was cut from the first time on, and one that was shortened on purpose under the same version. An id "
        "that stands for another text each time has no usual length.",
    ),
)  # fmt: skip


class LengthBook(msgspec.Struct):
    """How often each document had which number of tokens."""

    seen: dict[str, dict[int, int]] = {}

    def learn(self, document: Document, tokens: int) -> None:
        """Note that *document* was seen with so many *tokens*."""
        name = _name(document)
        lengths = self.seen.pop(name, {})
        self.seen[name] = lengths  # to the end: the least recently seen come first
        while len(self.seen) > MAX_DOCUMENTS:
            del self.seen[next(iter(self.seen))]
        if tokens not in lengths and len(lengths) >= MAX_LENGTHS:
            usual = _usual(lengths)
            del lengths[min((length for length in lengths if length != usual), key=lambda length: (lengths[length], length))]
        lengths[tokens] = lengths.get(tokens, 0) + 1

    def whole(self, document: Document, tokens: int) -> float:
        """Return what part of the usual length of *document* has *tokens*; 1 where it is longer, or not known."""
        lengths = self.seen.get(_name(document))
        if not lengths:
            return 1.0
        return min(tokens / _usual(lengths), 1.0)


def values(request: ReadRequest, book: LengthBook) -> dict[str, float]:
    """Return the signals that *request* defines."""
    parts = [book.whole(item.document, item.tokens) for item in request.documents]
    return {"document_wholeness": sum(parts) / len(parts)} if parts else {}


def _usual(lengths: dict[int, int]) -> int:
    """Return the usual one of *lengths*, in the order in which they were first seen; where none is yet, the commonest."""
    usual = next((length for length, times in lengths.items() if times >= ESTABLISHED), None)
    if usual is None:
        return max(lengths, key=lambda length: (lengths[length], length))
    for length, times in lengths.items():
        if times >= TAKES_OVER * lengths[usual]:
            usual = length
    return usual


def _name(document: Document) -> str:
    """Return a short name: a client's ids may be of any length."""
    return blake2b(f"{document.source}\x1f{document.id}\x1f{document.version}".encode(), digest_size=9).hexdigest()
