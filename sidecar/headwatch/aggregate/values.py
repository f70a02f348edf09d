"""From a frame's columns to the values that windows and requests keep: one row at a time, all heads at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.model import FEATURES, REQUEST_FEATURES, SINK_SATURATED, SPAN_KINDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.model import RequestContext

_SINK = FEATURES.index("sink_mass")
_DOCUMENT = SPAN_KINDS.index("document")
_NEVER = 1 << 62
"""A position that no row has."""


@dataclass(frozen=True, slots=True)
class RowValues:
    """The values of one sampled row.  L layers, H heads of the frame."""

    window: NDArray[np.float32]  # [len(WINDOW_FEATURES), L, H]
    share: NDArray[np.float32]  # [documents, L, H]: share of each document of the mass of all; NaN where undefined
    mass: NDArray[np.float32] | None = None
    """[spans + 1, L, H] as it came, the generated text last; None at detail 0."""

    @property
    def request(self) -> NDArray[np.float32]:
        """Return the part that a request keeps, [len(REQUEST_FEATURES), L, H]."""
        return self.window[: len(REQUEST_FEATURES)]


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

    def values(
        self, features: NDArray[np.float32], mass: NDArray[np.float32] | None, position: int
    ) -> RowValues:
        """Return the values of the row at *position* with *features* [L, H, 6] and *mass* [spans + 1, L, H] or None."""
        layers, heads, _ = features.shape
        scalars = np.moveaxis(features, -1, 0)  # [6, L, H]
        if mass is None:  # detail 0
            nothing = np.full((1 + len(SPAN_KINDS), layers, heads), np.nan, np.float32)
            return RowValues(
                np.concatenate([scalars, nothing]), np.full((self.documents, layers, heads), np.nan, np.float32)
            )
        visible = self.starts <= position
        by_kind = self._by_kind(mass, visible)
        with np.errstate(invalid="ignore"):  # a NaN from outside may be of the signalling kind
            by_document = (self.document @ mass.reshape(len(mass), -1)).reshape(-1, layers, heads)
        together = by_document.sum(0)
        rest = 1.0 - scalars[_SINK]
        undefined = (rest < 1.0 - SINK_SATURATED) | (not self.document[:, visible].any())
        with np.errstate(divide="ignore", invalid="ignore"):
            document_mass = np.where(undefined, np.float32(np.nan), together / rest)
            share = np.where(undefined | (together <= 0), np.float32(np.nan), by_document / together)
        window = np.concatenate([scalars, document_mass[None], by_kind]).astype(np.float32)
        return RowValues(window, share.astype(np.float32), mass)

    def carried(self, mass: NDArray[np.float32], norm: NDArray[np.float32], position: int) -> CarriedValues:
        """Return what the row at *position* moved, from its value masses [spans + 1, L, H] and output norms [L, H]."""
        by_kind = self._by_kind(mass, self.starts <= position)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            total = mass.sum(0, dtype=np.float64)
            share = np.where(total > 0, by_kind / total, np.nan)  # a head that moves nothing has no shares
        return CarriedValues(share.astype(np.float32), norm)

    def _by_kind(self, mass: NDArray[np.float32], visible: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the sums of *mass* [spans + 1, L, H] by kind, [len(SPAN_KINDS), L, H]."""
        with np.errstate(invalid="ignore", over="ignore"):  # a NaN from outside may be of the signalling kind
            by_kind = (self.kind @ mass.reshape(len(mass), -1)).reshape(-1, *mass.shape[1:])
        by_kind[~(self.kind[:, visible] > 0).any(axis=1)] = np.nan  # a kind that is not there has no mass, not mass 0
        return by_kind
