"""From a frame's columns to the values that windows and requests keep: all rows and heads of a frame at once.

What depends on a request's spans (how many there are, which are documents) is a small product of matrices for each row; the
rest is one pass over the whole frame.  Only rows that count as traffic are given here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.model import FEATURES, REQUEST_FEATURES, SINK_SATURATED, SPAN_KINDS, WINDOW_FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.model import RequestContext

_SINK = FEATURES.index("sink_mass")
_DOCUMENT = SPAN_KINDS.index("document")
_DOCUMENT_MASS = REQUEST_FEATURES.index("document_mass")
_KINDS = slice(len(REQUEST_FEATURES), len(WINDOW_FEATURES))
_NEVER = 1 << 62
"""A position that no row has."""


@dataclass(frozen=True, slots=True)
class RowValues:
    """The values of one sampled row, as views of its frame's.  L layers, H heads of the frame."""

    window: NDArray[np.float32]  # [len(WINDOW_FEATURES), L, H]
    defined: NDArray[np.bool_]
    """Shaped as ``window``: where it is not NaN."""
    filled: NDArray[np.float32]
    """``window`` with 0 where undefined."""
    rest: NDArray[np.float32]  # [L, H]: mass that is not on the sink; NaN where that is too little to speak of
    share: NDArray[np.float32]  # [documents, L, H]: share of each document of the mass of all; NaN where undefined
    mass: NDArray[np.float32] | None = None
    """[spans + 1, L, H] as it came, the generated text last; None at detail 0."""


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
        self.kind = np.zeros((len(SPAN_KINDS), len(kinds)), np.float32)
        self.kind[kinds, np.arange(len(kinds))] = 1.0
        starts = [*(0 for _ in spans), _NEVER] if cross else [*(span.start for span in spans), context.prompt_tokens]
        self.starts = np.array(starts, np.int64)
        self.document = np.zeros((self.documents, len(kinds)), np.float32)
        for number, span in enumerate(spans):
            if span.kind == "document" and 0 <= span.document < self.documents:
                self.document[span.document, number] = 1.0
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

    def _seen_at(self, position: int) -> tuple[NDArray[np.bool_], bool]:
        visible = self.starts <= position
        return np.logical_not((self.kind[:, visible] > 0).any(axis=1)), bool(self.document[:, visible].any())


def values_of(
    features: NDArray[np.float32], masses: Sequence[NDArray[np.float32]], positions: Sequence[int], tables: Sequence[SpanTable]
) -> list[RowValues]:
    """Return the values of R rows of a frame.

    *features* is [R, L, H, 6]; *masses*, *positions* and *tables* have an entry for each row, [spans + 1, L, H] of masses; no
    masses at detail 0.
    """
    count, layers, heads, _ = features.shape
    window = np.empty((count, len(WINDOW_FEATURES), layers, heads), np.float32)
    window[:, :_DOCUMENT_MASS] = features.transpose(0, 3, 1, 2)
    rest = 1.0 - window[:, _SINK]
    rest[window[:, _SINK] > SINK_SATURATED] = np.nan
    if masses:
        with np.errstate(divide="ignore", invalid="ignore"):  # a NaN from outside may be of the signalling kind
            documents = _masses(window, rest, masses, positions, tables)
    else:  # detail 0
        window[:, _DOCUMENT_MASS:] = np.nan
        documents = [np.full((table.documents, layers, heads), np.nan, np.float32) for table in tables]
    defined = ~np.isnan(window)
    filled = np.where(defined, window, np.float32(0.0))
    return [
        RowValues(window[row], defined[row], filled[row], rest[row], documents[row], masses[row] if masses else None)
        for row in range(count)
    ]


def _masses(
    window: NDArray[np.float32], rest: NDArray[np.float32], masses: Sequence[NDArray[np.float32]], positions: Sequence[int],
    tables: Sequence[SpanTable],
) -> list[NDArray[np.float32]]:
    """Fill the masses of *window* [R, F, L, H] and return the share of each document, [documents, L, H] for each row."""
    count, _, layers, heads = window.shape
    absent = np.empty((count, len(SPAN_KINDS)), np.bool_)
    informed = np.empty(count, np.bool_)
    together = np.empty((count, layers, heads), np.float32)
    shares = []
    for row, (mass, position, table) in enumerate(zip(masses, positions, tables, strict=True)):
        flat = mass.reshape(len(mass), -1)
        np.matmul(table.kind, flat, out=window[row, _KINDS].reshape(len(SPAN_KINDS), -1))
        absent[row], informed[row] = table.seen(position)
        shares.append((table.document @ flat).reshape(-1, layers, heads))
        shares[-1].sum(0, out=together[row])
    window[:, _KINDS][absent] = np.nan  # a kind that is not there has no mass, not mass 0
    together[~informed] = np.nan
    np.divide(together, rest, out=window[:, _DOCUMENT_MASS])
    together[(window[:, _SINK] > SINK_SATURATED) | (together <= 0)] = np.nan
    for share, whole in zip(shares, together, strict=True):
        np.divide(share, whole, out=share)
    return shares
