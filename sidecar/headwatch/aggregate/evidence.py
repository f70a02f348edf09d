"""Single rows that wait for the store: bounded in all and for each request, what does not fit is dropped and counted.

Only rows of detail 2 or more are kept, as they came.  They leave as soon as the store takes them, before their request ends,
so that a long request costs no more memory than a short one.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from headwatch.records import RowEvidence

if TYPE_CHECKING:
    from headwatch.aggregate.requests import OpenRequest
    from headwatch.config import EvidenceConfig
    from headwatch.model import RequestContext, SummaryBatch
    from headwatch.wire.columns import Columns


class EvidenceQueue:
    """The rows that wait.  Not safe from threads: the aggregator's lock is around it."""

    def __init__(self, config: EvidenceConfig) -> None:
        self._config = config
        self._rows: list[RowEvidence] = []
        self._waiting_bytes = 0
        self.counters: Counter[str] = Counter()

    def add(self, batch: SummaryBatch, columns: Columns, row: int, request: OpenRequest | None) -> None:
        """Keep the row number *row* of a frame, or count why not; *request* is None where none is open."""
        if request is None:
            self.counters["evidence_dropped.no_open_request"] += 1
            return
        kept = _evidence(batch, columns, row, request.context)
        size = kept.size_bytes
        if request.evidence_bytes + size > self._config.max_request_bytes:
            self.counters["evidence_dropped.request_bytes"] += 1
        elif self._waiting_bytes + size > self._config.max_bytes:
            self.counters["evidence_dropped.waiting_bytes"] += 1
        else:
            request.evidence_bytes += size
            self._waiting_bytes += size
            self._rows.append(kept)
            self.counters["evidence_rows"] += 1

    def take(self) -> tuple[RowEvidence, ...]:
        """Return the rows that wait, oldest first; none waits any longer."""
        rows, self._rows, self._waiting_bytes = tuple(self._rows), [], 0
        return rows


def _evidence(batch: SummaryBatch, columns: Columns, row: int, context: RequestContext) -> RowEvidence:
    detail = columns.detail
    assert detail is not None  # whoever calls has seen that it is not
    return RowEvidence(
        context=context,
        worker=batch.worker,
        time_ns=batch.time_ns,
        position=int(columns.position[row]),
        detail=batch.detail,
        layers=tuple(batch.layers),
        heads=batch.heads,
        head_offset=batch.head_offset,
        features=columns.features[row].tobytes(),
        span_mass=columns.span_mass[row].tobytes() if columns.span_mass else b"",
        value_mass=columns.value_mass[row].tobytes() if columns.value_mass else b"",
        output_norm=columns.output_norm[row].tobytes() if columns.output_norm is not None else b"",
        block_tokens=detail.block_tokens,
        block_profile=detail.block_profile[row].tobytes(),
        top_k=batch.top_k,
        top_position=detail.top_position[row].tobytes() if detail.top_position is not None else b"",
        top_weight=detail.top_weight[row].tobytes() if detail.top_weight is not None else b"",
        full_weight=detail.full_weight[row].tobytes() if detail.full_weight else b"",
    )
