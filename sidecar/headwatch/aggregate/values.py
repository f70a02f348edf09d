"""From a frame's columns to the values that windows and requests keep: all rows and heads of a frame at once.

What depends on a request's spans (how many there are, which are documents) is a small product of matrices for each row; the
rest is one pass over the whole frame.  Only rows that count as traffic are given here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.model import FEATURES, REQUEST_FEATURES, SINK_SATURATED, SPAN_KINDS, WINDOW_FEATURES
from headwatch.native.frames import frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.model import RequestContext
    from headwatch.native.frames import Frames

_SINK = FEATURES.index("sink_mass")
_LOOKBACK = FEATURES.index("lookback")
_DOCUMENT = SPAN_KINDS.index("document")
_KEPT = len(REQUEST_FEATURES)
_DOCUMENT_MASS = REQUEST_FEATURES.index("document_mass")
_KINDS = slice(_KEPT, len(WINDOW_FEATURES))
_ROWS_BEFORE = 1 + len(SPAN_KINDS)
"""Rows of :attr:`SpanTable.sums` before those of single documents."""
_NEVER = 1 << 62
"""A position that no row has."""


@dataclass(frozen=True, slots=True)
class FrameValues:
    """The values of R sampled rows.  L layers, H heads of the frame, D the most documents that one of the requests has."""

    window: NDArray[np.float32]
    """[R, len(WINDOW_FEATURES), L, H]; NaN where undefined."""
    undefined: list[int]
    """Heads of each row without a lookback ratio."""
    rest: NDArray[np.float32]
    """[R, L, H]: mass that is not on the sink; NaN where that is too little to speak of."""
    parts: NDArray[np.float32] | None
    """[R, len(SPAN_KINDS) + D, L · H]: the part of ``rest`` on each kind of span, and each document's share of the mass of all;
    NaN where undefined.  None at detail 0."""
    masses: Sequence[NDArray[np.float32]]
    """For each row [spans + 1, L, H] as it came, the generated text last; empty at detail 0."""


@dataclass(frozen=True, slots=True)
class CarriedValues:
    """What the heads of one sampled row moved.  L layers, H heads of the frame."""

    share: NDArray[np.float32]
    """[len(SPAN_KINDS), L, H]: the part of all value mass that comes from each kind; NaN where the kind is not there."""
    norm: NDArray[np.float32]  # [L, H] of the head's output

    @property
    def request(self) -> NDArray[np.float32]:
        """Return the part that a request keeps, [len(REQUEST_VALUES), L, H]."""
        return np.stack([self.share[_DOCUMENT], self.norm])


class SpanTable:
    """What the spans of one request mean, as matrices; made once a request."""

    def __init__(self, context: RequestContext, *, cross: bool = False) -> None:
        """Take the spans of the prompt or, with *cross*, those of the encoder's input, all of which every row sees."""
        spans = context.encoder_spans if cross else context.spans
        self.documents = 0 if cross else len(context.documents)
        kinds = [SPAN_KINDS.index(span.kind) for span in spans] + [SPAN_KINDS.index("generated")]
        self.sums = np.zeros((_ROWS_BEFORE + self.documents, len(kinds)), np.float32)
        """[all documents, each kind, each document; spans + 1]: what is added up, as a matrix."""
        self.kind = self.sums[1:_ROWS_BEFORE]
        self.kind[kinds, np.arange(len(kinds))] = 1.0
        self.first_kind = next((SPAN_KINDS.index(span.kind) for span in spans if span.start == 0), -1)
        """Kind of the span that holds position 0, the sink; -1 where none does."""
        starts = [*(0 for _ in spans), _NEVER] if cross else [*(span.start for span in spans), context.prompt_tokens]
        self.starts = np.array(starts, np.int64)
        for number, span in enumerate(spans):
            if span.kind == "document" and 0 <= span.document < self.documents:
                self.sums[[0, _ROWS_BEFORE + span.document], number] = 1.0
        self.plan = self._plan(kinds)
        """The same as numbers, for the compiled code: ``plan`` of ``native/frames.c``."""
        self._last = int(self.starts.max())
        self._whole = self._seen_at(self._last)

    def seen(self, position: int) -> tuple[NDArray[np.bool_], bool]:
        """Return the kinds of which the row at *position* sees nothing, [len(SPAN_KINDS)], and whether it sees a document."""
        return self._whole if position >= self._last else self._seen_at(position)

    def carried(self, mass: NDArray[np.float32], norm: NDArray[np.float32], position: int) -> CarriedValues:
        """Return what the row at *position* moved, from its value masses [spans + 1, L, H] and output norms [L, H]."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a NaN may be of the signalling kind
            by_kind = (self.kind @ mass.reshape(len(mass), -1)).reshape(-1, *mass.shape[1:])
            by_kind[self.seen(position)[0]] = np.nan  # a kind that is not there has no mass, not mass 0
            total = mass.sum(0, dtype=np.float64)
            share = np.where(total > 0, by_kind / total, np.nan)  # a head that moves nothing has no shares
        return CarriedValues(share.astype(np.float32), norm)

    def _plan(self, kinds: list[int]) -> NDArray[np.int64]:
        """Return [3 + 3 * (spans + 1)]: how many spans and documents, the first kind; each span's start, kind, document."""
        document = np.full(len(kinds), -1, np.int64)
        if self.documents:
            single = self.sums[_ROWS_BEFORE:]
            document[single.any(0)] = single.argmax(0)[single.any(0)]
        spans = np.stack([self.starts, np.array(kinds, np.int64), document], axis=1)
        return np.concatenate([np.array([len(kinds), self.documents, self.first_kind], np.int64), spans.reshape(-1)])

    def _seen_at(self, position: int) -> tuple[NDArray[np.bool_], bool]:
        visible = self.starts <= position
        return np.logical_not((self.kind[:, visible] > 0).any(axis=1)), bool(self.sums[0, visible].any())


def values_of(
    features: NDArray[np.float32], masses: Sequence[NDArray[np.float32]], positions: Sequence[int], tables: Sequence[SpanTable]
) -> FrameValues:
    """Return the values of R rows of a frame.

    *features* is [R, L, H, 6]; *masses*, *positions* and *tables* have an entry for each row, [spans + 1, L, H] of masses; no
    masses at detail 0.
    """
    count, layers, heads, _ = features.shape
    fast = frames()
    if fast is not None:
        return _values_fast(fast, features, masses, positions, tables)
    window = np.empty((count, len(WINDOW_FEATURES), layers, heads), np.float32)
    window[:, :_DOCUMENT_MASS] = features.transpose(0, 3, 1, 2)
    sink = window[:, _SINK]
    rest = 1.0 - sink
    rest[sink > SINK_SATURATED] = np.nan
    parts = None
    if masses:
        with np.errstate(divide="ignore", invalid="ignore"):  # a NaN from outside may be of the signalling kind
            parts = _parts(window, rest, masses, positions, tables)
    else:  # detail 0
        window[:, _DOCUMENT_MASS:] = np.nan
    undefined = np.isnan(window[:, _LOOKBACK]).sum(axis=(1, 2)).tolist()
    return FrameValues(window, undefined, rest, parts, masses)


def _values_fast(
    fast: Frames, features: NDArray[np.float32], masses: Sequence[NDArray[np.float32]], positions: Sequence[int],
    tables: Sequence[SpanTable],
) -> FrameValues:
    """Return what :func:`values_of` returns, by the compiled code."""
    count, layers, heads, _ = features.shape
    window = np.empty((count, len(WINDOW_FEATURES), layers, heads), np.float32)
    rest = np.empty((count, layers, heads), np.float32)
    documents = max(table.documents for table in tables)
    parts = np.empty((count, len(SPAN_KINDS) + documents, layers * heads), np.float32) if masses else None
    plans = [table.plan for table in tables]
    beside = [np.ascontiguousarray(mass) for mass in masses]
    undefined = fast.values(np.ascontiguousarray(features), beside, positions, plans, documents, window, rest, parts)
    return FrameValues(window, undefined, rest, parts, masses)


def split_undefined(
    values: NDArray[np.float32], filled: NDArray[np.float32], defined: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Write *values* to *filled*, 0 where they are NaN, and to *defined* whether they are not; return where they are."""
    absent = np.isnan(values)
    np.logical_not(absent, out=defined)
    np.copyto(filled, values)
    np.copyto(filled, np.float32(0.0), where=absent)
    return absent


def _parts(
    window: NDArray[np.float32], rest: NDArray[np.float32], masses: Sequence[NDArray[np.float32]], positions: Sequence[int],
    tables: Sequence[SpanTable],
) -> NDArray[np.float32]:
    """Fill the masses of *window* [R, F, L, H] and return the parts [R, len(SPAN_KINDS) + D, L · H]."""
    count, _, layers, heads = window.shape
    documents = max(table.documents for table in tables)
    sums = np.zeros((count, _ROWS_BEFORE + documents, layers * heads), np.float32)
    absent = np.empty((count, len(SPAN_KINDS)), np.bool_)
    informed = np.empty(count, np.bool_)
    for row, (mass, position, table) in enumerate(zip(masses, positions, tables, strict=True)):
        np.matmul(table.sums, mass.reshape(len(mass), -1), out=sums[row, : len(table.sums)])
        absent[row], informed[row] = table.seen(position)
    together, kinds, shares = sums[:, 0], sums[:, 1:_ROWS_BEFORE], sums[:, _ROWS_BEFORE:]
    kinds[absent] = np.nan  # a kind that is not there has no mass, not mass 0
    window[:, _KINDS] = kinds.reshape(count, -1, layers, heads)
    if not informed.all():
        together[~informed] = np.nan
    sink, flat_rest = window[:, _SINK].reshape(count, -1), rest.reshape(count, -1)
    np.divide(together.reshape(rest.shape), rest, out=window[:, _DOCUMENT_MASS])
    np.copyto(together, np.float32(np.nan), where=(sink > SINK_SATURATED) | (together <= 0))
    shares /= together[:, None]
    for row, table in enumerate(tables):
        if table.first_kind >= 0:
            first = kinds[row, table.first_kind]
            first -= sink[row]
            np.maximum(first, 0.0, out=first)
    kinds /= flat_rest[:, None]
    return sums[:, 1:]
