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


@dataclass(frozen=True, slots=True)
class RowValues:
    """The values of one sampled row.  L layers, H heads of the frame."""

    window: NDArray[np.float32]  # [len(WINDOW_FEATURES), L, H]
    share: NDArray[np.float32]  # [documents, L, H]: share of each document of the mass of all; NaN where undefined

    @property
    def request(self) -> NDArray[np.float32]:
        """Return the part that a request keeps, [len(REQUEST_FEATURES), L, H]."""
        return self.window[: len(REQUEST_FEATURES)]


class SpanTable:
    """What the spans of one request mean, as matrices; made once a request."""

    def __init__(self, context: RequestContext) -> None:
        spans = context.spans
        self.documents = len(context.documents)
        kinds = [SPAN_KINDS.index(span.kind) for span in spans] + [SPAN_KINDS.index("generated")]
        self.kind = np.zeros((len(SPAN_KINDS), len(kinds)), np.float32)
        self.kind[kinds, np.arange(len(kinds))] = 1.0
        self.starts = np.array([span.start for span in spans] + [context.prompt_tokens], np.int64)
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
        flat = mass.reshape(len(mass), -1)
        visible = self.starts <= position
        with np.errstate(invalid="ignore"):  # a NaN from outside may be of the signalling kind
            by_kind = (self.kind @ flat).reshape(-1, layers, heads)
            by_document = (self.document @ flat).reshape(-1, layers, heads)
        by_kind[~(self.kind[:, visible] > 0).any(axis=1)] = np.nan  # a kind that is not there has no mass, not mass 0
        together = by_document.sum(0)
        rest = 1.0 - scalars[_SINK]
        undefined = (rest < 1.0 - SINK_SATURATED) | (not self.document[:, visible].any())
        with np.errstate(divide="ignore", invalid="ignore"):
            document_mass = np.where(undefined, np.float32(np.nan), together / rest)
            share = np.where(undefined | (together <= 0), np.float32(np.nan), by_document / together)
        window = np.concatenate([scalars, document_mass[None], by_kind]).astype(np.float32)
        return RowValues(window, share.astype(np.float32))
