"""Sampled requests while they run: means by head, grounding ratios, document shares.

A request ends when the engine says so or when it has sent no row for a while; then it becomes a
:class:`~headwatch.records.RequestRecord`.  All ratios are computed for a row and head and then averaged, each row as much as
it stands for; what is undefined is left out and counted, never taken as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.alignment import AlignmentTracker
from headwatch.aggregate.ranks import Ending
from headwatch.aggregate.reading import ReadingSums
from headwatch.aggregate.values import CarriedValues, RowValues, SpanTable
from headwatch.model import FEATURES, FIELD_REJECTED, REQUEST_FEATURES, REQUEST_VALUES, GroundingState
from headwatch.records import RequestRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.places import Places
    from headwatch.aggregate.reading import HeadGroups
    from headwatch.model import AttentionKind, RequestContext, WorkerIdentity

_LOOKBACK = FEATURES.index("lookback")
_DOCUMENT_MASS = REQUEST_FEATURES.index("document_mass")


class OpenRequest:
    """The running sums of one request."""

    def __init__(self, worker: WorkerIdentity, context: RequestContext, time_ns: int, groups: HeadGroups) -> None:
        self.worker = worker
        self.context = context
        self.table = SpanTable(context)
        self._cross_table: SpanTable | None = None
        self._alignment: AlignmentTracker | None = None
        self.started_ns = time_ns
        self.last_ns = time_ns
        self.ending = Ending()
        self._prefill: set[int] = set()
        self._decode: set[int] = set()
        shape = (len(REQUEST_FEATURES), worker.layers, worker.heads)
        self._sum = np.zeros(shape, np.float64)
        self._weight = np.zeros(shape, np.float64)
        self._retrieval_heads = groups.retrieval
        self._reading = ReadingSums(context, groups)
        self._undefined = 0
        self._carried: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        """Sum and weight of what heads moved, [len(REQUEST_VALUES), L, H]; None while no frame carried it."""
        self.evidence_bytes = 0
        """Single rows of it that were kept so far."""

    def add(
        self, position: int, values: RowValues, carried: CarriedValues | None, places: Places,
        time_ns: int, weight: float = 1.0, centroid: NDArray[np.float32] | None = None,
    ) -> bool:
        """Add the row at *position*, which has the heads at *places*; return whether it is a new one.

        *weight* is how many rows of the request it stands for.  *centroid* [L, H] comes with rows of cross-attention.

        The ranks of an engine, and the groups of layers that differ in heads, send parts of the same row.
        """
        self.last_ns = max(self.last_ns, time_ns)
        positions = self._prefill if position < self.context.prompt_tokens else self._decode
        before = len(positions)
        positions.add(position)
        new = len(positions) > before
        if centroid is None:  # over an encoder's input there is nothing to look back at
            self._reading.add(position, values, weight, places)
        if positions is self._prefill:
            return new
        kept = len(REQUEST_FEATURES)
        self._sum[:, places.layers, places.heads] += values.filled[:kept] * np.float32(weight)
        self._weight[:, places.layers, places.heads] += values.defined[:kept] * weight
        if centroid is not None:
            if self._alignment is None:
                self._alignment = AlignmentTracker(self.worker.layers, self.worker.heads)
            self._alignment.add(position, centroid, places)
        else:
            self._undefined += values.defined[_LOOKBACK].size - int(np.count_nonzero(values.defined[_LOOKBACK]))
        if carried is not None:
            self._add_carried(carried, weight, places)
        return new

    def record(self, window: int = -1) -> RequestRecord:
        """Return what the request came to, which ended in the window number *window*."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (self._sum / self._weight).astype(np.float32)
        reading, calibrated = self._reading.results()
        ratio = self._mean(_LOOKBACK, None)
        return RequestRecord(
            context=self.context,
            worker=self.worker,
            started_ns=self.started_ns,
            ended_ns=self.last_ns,
            rows_prefill=len(self._prefill),
            rows_decode=len(self._decode),
            state=self._state(ratio),
            grounding_ratio=ratio,
            grounding_ratio_retrieval_heads=(
                None if self._retrieval_heads is None else self._mean(_LOOKBACK, self._retrieval_heads)
            ),
            document_mass=self._mean(_DOCUMENT_MASS, None),
            document_share=self._reading.document_share(),
            undefined=self._undefined,
            head_means=means,
            value_means=self._value_means(),
            alignment=None if self._alignment is None else self._alignment.result(),
            window=window,
            reading=reading,
            reading_retrieval_heads=calibrated,
        )

    def table_of(self, attention: AttentionKind) -> SpanTable:
        """Return what the spans mean that rows of *attention* are over."""
        if attention == "self":
            return self.table
        if self._cross_table is None:
            self._cross_table = SpanTable(self.context, cross=True)
        return self._cross_table

    def _add_carried(self, carried: CarriedValues, weight: float, places: Places) -> None:
        if self._carried is None:
            shape = (len(REQUEST_VALUES), self.worker.layers, self.worker.heads)
            self._carried = np.zeros(shape, np.float64), np.zeros(shape, np.float64)
        total, weights = self._carried
        kept = carried.request
        defined = ~np.isnan(kept)
        total[:, places.layers, places.heads] += np.where(defined, kept, 0.0) * weight
        weights[:, places.layers, places.heads] += defined * weight

    def _value_means(self) -> NDArray[np.float32] | None:
        if self._carried is None:
            return None
        with np.errstate(invalid="ignore"):
            return (self._carried[0] / self._carried[1]).astype(np.float32)

    def _mean(self, feature: int, mask: NDArray[np.bool_] | None) -> float | None:
        chosen = slice(None) if mask is None else mask
        weight = float(self._weight[feature][chosen].sum())
        return float(self._sum[feature][chosen].sum() / weight) if weight else None

    def _state(self, ratio: float | None) -> GroundingState:
        named = any(document.kind == "document" for document in self.context.documents)
        if not named and FIELD_REJECTED.isdisjoint(self.context.errors):
            return "absent"
        return "unresolved" if ratio is None else "measured"
