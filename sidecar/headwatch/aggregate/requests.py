"""Sampled requests while they run: means by head, grounding ratios, document shares.

A request ends when the engine says so or when it has sent no row for a while; then it becomes a
:class:`~headwatch.model.RequestRecord`.  All ratios are computed for a row and head and then averaged; what is undefined
is left out and counted, never taken as 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.values import RowValues, SpanTable
from headwatch.model import FEATURES, FIELD_REJECTED, REQUEST_FEATURES, GroundingState, RequestRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.model import RequestContext, WorkerIdentity

_LOOKBACK = FEATURES.index("lookback")
_DOCUMENT_MASS = REQUEST_FEATURES.index("document_mass")


class OpenRequest:
    """The running sums of one request."""

    def __init__(self, worker: WorkerIdentity, context: RequestContext, time_ns: int) -> None:
        self.worker = worker
        self.context = context
        self.table = SpanTable(context)
        self.started_ns = time_ns
        self.last_ns = time_ns
        self.finished = False
        self._prefill: set[int] = set()
        self._decode: set[int] = set()
        shape = (len(REQUEST_FEATURES), worker.layers, worker.heads)
        self._sum = np.zeros(shape, np.float64)
        self._count = np.zeros(shape, np.uint32)
        self._share_sum = np.zeros(len(context.documents), np.float64)
        self._share_count = np.zeros(len(context.documents), np.uint32)
        self._undefined = 0

    def add(
        self, position: int, values: RowValues, layers: NDArray[np.int64], heads: slice, time_ns: int
    ) -> None:
        """Add the row at *position*, which has the heads *heads* of the global *layers*."""
        self.last_ns = max(self.last_ns, time_ns)
        if position < self.context.prompt_tokens:
            self._prefill.add(position)
            return
        self._decode.add(position)
        kept = values.request
        defined = ~np.isnan(kept)
        self._sum[:, layers, heads] += np.where(defined, kept, 0.0)
        self._count[:, layers, heads] += defined
        self._undefined += int((~defined[_LOOKBACK]).sum())
        if len(values.share):
            known = ~np.isnan(values.share)
            self._share_sum += np.where(known, values.share, 0.0).sum(axis=(1, 2), dtype=np.float64)
            self._share_count += known.sum(axis=(1, 2), dtype=np.uint32)

    def record(self, retrieval_heads: NDArray[np.bool_] | None) -> RequestRecord:
        """Return what the request came to.  *retrieval_heads* [L, H] marks the calibrated heads, where there are any."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (self._sum / self._count).astype(np.float32)
            shares = self._share_sum / self._share_count
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
                None if retrieval_heads is None or retrieval_heads.shape != means.shape[1:]
                else self._mean(_LOOKBACK, retrieval_heads)
            ),
            document_mass=self._mean(_DOCUMENT_MASS, None),
            document_share=tuple(None if np.isnan(share) else float(share) for share in shares),
            undefined=self._undefined,
            head_means=means,
        )

    def _mean(self, feature: int, mask: NDArray[np.bool_] | None) -> float | None:
        chosen = slice(None) if mask is None else mask
        count = int(self._count[feature][chosen].sum())
        return float(self._sum[feature][chosen].sum() / count) if count else None

    def _state(self, ratio: float | None) -> GroundingState:
        named = any(document.kind == "document" for document in self.context.documents)
        if not named and FIELD_REJECTED.isdisjoint(self.context.errors):
            return "absent"
        return "unresolved" if ratio is None else "measured"
