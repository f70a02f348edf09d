"""What a delivery becomes in the store: one batch for each table, with a token that is the same however often it is made.

It comes in parts, so that of a delivery of many windows one at a time is held as columns.  Whatever a delivery has for one
table goes in one insert: a store that remembers the last 1,000 inserts into a table remembers as many deliveries, however many
windows each of them closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.columns.evidence import request_columns
from headwatch_exporters.clickhouse.columns.findings import finding_batches
from headwatch_exporters.clickhouse.columns.metrics import (
    norm_columns,
    point_columns,
    row_count_columns,
    window_columns,
)
from headwatch_exporters.clickhouse.columns.rows import TABLE as ROWS
from headwatch_exporters.clickhouse.columns.rows import row_columns
from headwatch_exporters.clickhouse.columns.texts import TABLE as TEXTS
from headwatch_exporters.clickhouse.columns.texts import text_columns
from headwatch_exporters.grounding import Grounding
from headwatch_exporters.points import sidecar_source
from headwatch_exporters.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.findings import DriftStatus
    from headwatch.records import Delivery
    from headwatch_exporters.clickhouse.columns import Columns

HEADS = "otel_metrics_exp_histogram"
PIECE_ROWS = 2048
"""Rows of series of heads that are inserted at once.  The views behind them unfold each histogram: 13,000 rows took 600 MB,
4,096 400, 2,048 250 to 330."""
MOST_PIECES = 48
"""Of one window; a larger one has larger pieces.  Each has a token, and the store remembers 1,000: see docs/delivery.md."""
EVERY_WINDOW = frozenset({"headwatch.drift.evidence", "headwatch.drift.effect_size"})
"""Gauges that change with a window of drift detection, and are written once for each."""
TOTALS_NS = 5_000_000_000
"""Sums and gauges are written so often at most, and with every window: deliveries may come each second."""


class Batches:
    """Makes batches of deliveries.  :meth:`wrote` tells it that one got through; before that, it is made as it was."""

    def __init__(self) -> None:
        self._totals = Totals()
        self._grounding = Grounding()
        self._totals_ns = 0
        self._drift: tuple[int, int] | None = None

    def parts(self, delivery: Delivery) -> Iterator[tuple[str, Columns, str]]:
        """Yield table, columns and token; parts of one table with the same names and token are one batch."""
        token = f"{sidecar_source().instance}:{delivery.service}:{delivery.time_ns}"
        pieces = 0
        for table, columns in self._measured(delivery):
            if table != HEADS:
                yield table, columns, token
                continue
            for piece in _pieces(columns):
                yield table, piece, f"{token}:{pieces}"
                pieces += 1
        yield from finding_batches(delivery, self._news(delivery))

    def wrote(self, delivery: Delivery) -> None:
        """Take *delivery* as written."""
        status = self._news(delivery)
        if self._due(delivery):
            self._totals_ns = delivery.time_ns
        if status is not None:
            self._drift = _stepped(status)

    def _measured(self, delivery: Delivery) -> Iterator[tuple[str, Columns]]:
        service = delivery.service
        for window in delivery.windows:
            yield HEADS, window_columns(window, service)
            yield "otel_metrics_gauge", row_count_columns(window, service)
            if window.output_norm is not None:
                yield "otel_metrics_gauge", norm_columns(window, window.output_norm, service)
        totals = self._totals.points(delivery)
        status = self._news(delivery)
        if status is None:
            totals = [point for point in totals if point.metric.name not in EVERY_WINDOW]
        wanted = self._due(delivery) or status is not None
        yield from point_columns([*self._grounding.points(delivery), *(totals if wanted else ())], service).items()
        yield from request_columns(delivery.requests, service).items()
        if delivery.rows:
            yield ROWS, row_columns(delivery.rows, service)
        if delivery.texts:
            yield TEXTS, text_columns(delivery.texts, service)

    def _due(self, delivery: Delivery) -> bool:
        return bool(delivery.windows) or not 0 <= delivery.time_ns - self._totals_ns < TOTALS_NS

    def _news(self, delivery: Delivery) -> DriftStatus | None:
        """Return the status of *delivery* where it is of a new window."""
        return delivery.drift if delivery.drift is not None and _stepped(delivery.drift) != self._drift else None


def _pieces(columns: Columns) -> Iterator[Columns]:
    """Yield *columns* in pieces of :data:`PIECE_ROWS` rows, or :data:`MOST_PIECES` larger ones."""
    rows = len(next(iter(columns.values())))
    size = max(PIECE_ROWS, -(-rows // MOST_PIECES))
    for start in range(0, max(rows, 1), size):
        yield {name: values[start : start + size] for name, values in columns.items()}


def _stepped(status: DriftStatus) -> tuple[int, int]:
    """Return what tells the status after one window from that after another."""
    return status.window, status.time_ns
