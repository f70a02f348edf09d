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
from headwatch.aggregate.values import CarriedValues, SpanTable
from headwatch.model import FEATURES, FIELD_REJECTED, REQUEST_FEATURES, REQUEST_VALUES, GroundingState
from headwatch.native.frames import frames
from headwatch.records import RequestRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.places import Places
    from headwatch.aggregate.reading import FrameRow, HeadGroups
    from headwatch.model import AttentionKind, RequestContext, WorkerIdentity

_LOOKBACK = FEATURES.index("lookback")
_DOCUMENT_MASS = REQUEST_FEATURES.index("document_mass")


class RequestIdentity:
    """What tells a request from another one of the same name: an engine that restarts may count from zero again."""

    def __init__(self, worker: WorkerIdentity, context: RequestContext) -> None:
        self._lives = {worker.rank: worker.start_ns}
        """When each rank was started that has sent rows of it."""
        self._marks = self._marks_of(worker, context)

    def fits(self, worker: WorkerIdentity, context: RequestContext) -> bool:
        """Return whether rows of *context* from *worker* can be of this request."""
        return self._marks_of(worker, context) == self._marks and self._life(worker) == worker.start_ns

    def is_later_than(self, worker: WorkerIdentity) -> bool:
        """Return whether *worker* is in a life before the one in which this request began."""
        return worker.start_ns < self._life(worker)

    def _life(self, worker: WorkerIdentity) -> int:
        return self._lives.setdefault(worker.rank, worker.start_ns)

    @staticmethod
    def _marks_of(worker: WorkerIdentity, context: RequestContext) -> tuple[object, ...]:
        spans = len(context.spans), len(context.encoder_spans)
        return context.request_id, worker.model, worker.layers, worker.heads, *spans


class OpenRequest:
    """The running sums of one request."""

    def __init__(
        self, worker: WorkerIdentity, context: RequestContext, time_ns: int, groups: HeadGroups, identity: RequestIdentity
    ) -> None:  # fmt: skip
        self.identity = identity
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
        self._sums = np.zeros((2, len(REQUEST_FEATURES), worker.layers, worker.heads), np.float64)
        """Of values that are defined, and of their weights."""
        self._groups = groups
        self._reading = ReadingSums(context, groups)
        self._undefined = 0
        self._carried: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        """Sum and weight of what heads moved, [len(REQUEST_VALUES), L, H]; None while no frame carried it."""
        self.evidence_bytes = 0
        """Single rows of it that were kept so far."""

    def add(
        self, values: FrameRow, carried: CarriedValues | None, time_ns: int, centroid: NDArray[np.float32] | None = None
    ) -> bool:
        """Add a row; return whether it is a new one.  *centroid* [L, H] comes with rows of cross-attention.

        The ranks of an engine, and the groups of layers that differ in heads, send parts of the same row.
        """
        position, weight, places = values.position, values.weight, values.places
        self.last_ns = max(self.last_ns, time_ns)
        positions = self._prefill if position < self.context.prompt_tokens else self._decode
        before = len(positions)
        positions.add(position)
        new = len(positions) > before
        if centroid is None:  # over an encoder's input there is nothing to look back at
            self._reading.add(values)
        if positions is self._prefill:
            return new
        fast = frames()
        if fast is not None and places.whole:
            fast.add(self._sums, values.window, weight)
        else:
            self._sums[:, :, places.layers, places.heads] += values.kept * np.float32(weight)
        if centroid is not None:
            if self._alignment is None:
                self._alignment = AlignmentTracker(self.worker.layers, self.worker.heads)
            self._alignment.add(position, centroid, places)
        else:
            self._undefined += values.frame.undefined[values.row]
        if carried is not None:
            self._add_carried(carried, weight, places)
        return new

    def record(self, window: int = -1) -> RequestRecord:
        """Return what the request came to, which ended in the window number *window*."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (self._sums[0] / self._sums[1]).astype(np.float32)
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
                None if self._groups.retrieval is None else self._mean(_LOOKBACK, self._groups.retrieval)
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
        total, weight = (float(sums[feature][chosen].sum()) for sums in self._sums)
        return total / weight if weight else None

    def _state(self, ratio: float | None) -> GroundingState:
        named = any(document.kind == "document" for document in self.context.documents)
        if not named and FIELD_REJECTED.isdisjoint(self.context.errors):
            return "absent"
        return "unresolved" if ratio is None else "measured"
