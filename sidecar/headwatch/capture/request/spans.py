"""What every position of the prompt is.

Four sources, the first wins: token offsets that the client or the engine gives; documents found in the prompt by
their text; the operator's markers; the chat template's roles.  Each is painted over the ones below it, so that the
result is a partition of ``[0, prompt_tokens)`` by construction, whatever the sources say.

A source that cannot be used is left out with its reason; the sources below it still apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from headwatch.capture.request.locate import TracedPrompt, find_texts, trace
from headwatch.capture.request.template import RoleMarkers, split
from headwatch.errors import RequestFieldError, SpanError
from headwatch.model import Document, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.capture.request.field import Field, FieldDocument
    from headwatch.config import CaptureConfig, Marker
    from headwatch.model import SpanKind


@dataclass(frozen=True, slots=True)
class Resolution:
    """The spans of a prompt, what became of its documents, and the reasons of what could not be used."""

    spans: list[Span]
    documents: list[Document]
    errors: list[str]


class _Painter:
    """The label of each position; a label is a span's kind, document and age."""

    def __init__(self, prompt_tokens: int) -> None:
        self._labels = np.zeros(prompt_tokens, np.int32)
        self._meaning: list[tuple[SpanKind, int, int]] = [("user", -1, 0)]

    def paint(self, start: int, end: int, kind: SpanKind, document: int = -1, age: int | None = None) -> None:
        """Give ``[start, end)`` a label of its own.  *age* None: that of the turn it lies in."""
        if start >= end:
            return
        if age is None:
            age = self._meaning[self._labels[start]][2]
        self._labels[start:end] = len(self._meaning)
        self._meaning.append((kind, document, age))

    def spans(self) -> list[Span]:
        """Return the runs of equal label, in order."""
        if not len(self._labels):
            return []
        edges = [0, *(np.flatnonzero(np.diff(self._labels)) + 1).tolist(), len(self._labels)]
        spans = []
        for start, end in pairwise(edges):
            kind, document, age = self._meaning[self._labels[start]]
            spans.append(Span(kind, start, end, document, age))
        return spans


def resolve(
    ids: Sequence[int],
    tokenizer: Any,
    field: Field,
    *,
    roles: RoleMarkers | None,
    config: CaptureConfig,
    media: Sequence[Span] = (),
) -> Resolution:
    """Return what the prompt *ids* consists of.

    *roles* are the chat template's; *media* are the engine's own placeholders of images and sounds, which nothing else
    may claim.  Reasons: ``span_out_of_range``, ``spans_overlap`` (all explicit offsets are then left out),
    ``untraceable_tokens``, ``search_budget``, ``too_many_spans`` (markers), ``document_not_in_prompt``,
    ``document_without_text``.
    """
    painter = _Painter(len(ids))
    errors: list[str] = []
    documents = [_document(item) for item in field.documents]
    explicit: list[Span] = []
    try:
        explicit = _explicit(field, len(ids))
    except SpanError as error:
        errors.append(error.reason)
    try:
        prompt = trace(ids, tokenizer)
    except RequestFieldError as error:
        errors.append(error.reason)
    else:
        for turn in split(prompt.text, roles, max_turns=config.max_documents):
            painter.paint(*prompt.tokens(turn.start, turn.end), turn.kind, age=turn.age)
        placed = {span.document for span in explicit}
        searched = [number for number, item in enumerate(field.documents) if item.text and number not in placed]
        taken = [(span.start, span.end) for span in (*explicit, *media)]
        try:
            taken += _paint_documents(painter, prompt, field, searched)
        except RequestFieldError as error:
            errors.append(error.reason)
        errors += _paint_markers(painter, prompt, taken, documents, config)
    for span in (*explicit, *media):
        age = span.age if span.kind in {"history", "tool"} and span.document < 0 else None
        painter.paint(span.start, span.end, span.kind, span.document, age)

    spans = painter.spans()
    held = {span.document for span in spans}
    for number, item in enumerate(field.documents):
        if number not in held:
            documents[number] = msgspec.structs.replace(documents[number], found=False)
            has_place = bool(item.text) or item.start is not None
            errors.append("document_not_in_prompt" if has_place else "document_without_text")
    return Resolution(spans, documents, list(dict.fromkeys(errors)))


def _document(item: FieldDocument) -> Document:
    return Document(
        id=item.id,
        kind=item.kind,
        source=item.source,
        version=item.version,
        retrieved_at=item.retrieved_at,
        labels=item.labels,
    )


def _explicit(field: Field, prompt_tokens: int) -> list[Span]:
    """Return the client's own offsets as spans, ascending.

    Raises:
        SpanError: Two overlap (``spans_overlap``), or one leaves the prompt (``span_out_of_range``).
    """
    spans = [Span(item.kind, item.start, item.end, -1, item.age) for item in field.spans]
    for number, item in enumerate(field.documents):
        if item.start is not None and item.end is not None:
            spans.append(Span(item.kind, item.start, item.end, number))
    spans.sort(key=lambda span: span.start)
    reached = 0
    for span in spans:
        if span.end > prompt_tokens:
            raise SpanError("span_out_of_range", f"span [{span.start}, {span.end}) leaves the prompt of {prompt_tokens} tokens")
        if span.start < reached:
            raise SpanError("spans_overlap", f"span [{span.start}, {span.end}) starts before another ends")
        reached = span.end
    return spans


def _paint_documents(
    painter: _Painter, prompt: TracedPrompt, field: Field, searched: list[int]
) -> list[tuple[int, int]]:
    """Paint the documents *searched* (indices) where their texts are, and return their tokens.

    Raises:
        RequestFieldError: With reason ``search_budget``.
    """
    found = []
    places = find_texts(prompt.text, [field.documents[number].text for number in searched])
    for number, place in zip(searched, places, strict=True):
        if place is not None:
            tokens = prompt.tokens(*place)
            painter.paint(*tokens, field.documents[number].kind, number)
            found.append(tokens)
    return found


def _paint_markers(
    painter: _Painter,
    prompt: TracedPrompt,
    taken: list[tuple[int, int]],
    documents: list[Document],
    config: CaptureConfig,
) -> list[str]:
    """Paint what the operator's markers enclose, and return the reasons of what was left out.

    Where tokens inside the markers are *taken*, as by a document that the client named, those stand for the markers.  A
    document or memory that is known by its markers alone is added to *documents* as ``marker-1``, ``marker-2``, …
    """
    named = len(documents)
    room = config.max_documents - named
    for marker in config.markers:
        for place in _enclosed(prompt.text, marker):
            start, end = prompt.tokens(*place)
            if start >= end or any(start < other_end and other_start < end for other_start, other_end in taken):
                continue
            if room <= 0:
                return ["too_many_spans"]
            room -= 1
            number = -1
            if marker.kind in {"document", "memory"}:
                number = len(documents)
                documents.append(Document(id=f"marker-{number - named + 1}", kind=marker.kind, source="marker"))
            painter.paint(start, end, marker.kind, number)
            taken.append((start, end))
    return []


def _enclosed(text: str, marker: Marker) -> list[tuple[int, int]]:
    """Return the characters between each start of *marker* and the next end, without surrounding whitespace."""
    places = []
    at = 0
    while (opened := text.find(marker.start, at)) >= 0:
        start = opened + len(marker.start)
        end = text.find(marker.end, start)
        if end < 0:
            break
        inner = text[start:end]
        left = start + len(inner) - len(inner.lstrip())
        right = end - len(inner) + len(inner.rstrip())
        if left < right:
            places.append((left, right))
        at = end + len(marker.end)
    return places
