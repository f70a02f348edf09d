"""The ClickHouse exporter: everything that is measured, into the Collector's tables and the evidence tables beside them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Self

from headwatch.errors import ExportError, StoreError
from headwatch_exporters.clickhouse.connection import connect
from headwatch_exporters.clickhouse.evidence_columns import request_columns
from headwatch_exporters.clickhouse.finding_columns import finding_batches
from headwatch_exporters.clickhouse.metric_columns import norm_columns, point_columns, row_count_columns, window_columns
from headwatch_exporters.clickhouse.queries import StoreReader
from headwatch_exporters.clickhouse.row_columns import TABLE as ROWS
from headwatch_exporters.clickhouse.row_columns import row_columns
from headwatch_exporters.clickhouse.row_reader import RowReader
from headwatch_exporters.clickhouse.schema import create_tables
from headwatch_exporters.grounding import Grounding
from headwatch_exporters.points import sidecar_source
from headwatch_exporters.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.config import StoreConfig
    from headwatch.findings import DriftStatus
    from headwatch.records import Delivery
    from headwatch_exporters.clickhouse.columns import Columns
    from headwatch_exporters.clickhouse.connection import Connection

EVERY_WINDOW = frozenset({"headwatch.drift.evidence", "headwatch.drift.effect_size"})
"""Gauges that change with a window of drift detection, and are written once for each."""
TOTALS_NS = 5_000_000_000
"""Sums and gauges are written so often at most, and with every window: deliveries may come each second."""


class ClickHouseExporter:
    """Writes deliveries.  :meth:`open` connects and creates what is missing."""

    name = "clickhouse"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._totals = Totals()
        self._grounding = Grounding()
        self._totals_ns = 0
        self._drift: tuple[int, int] | None = None

    @classmethod
    def open(cls, config: StoreConfig) -> Self:
        """Return an exporter on the store of *config*.

        Raises:
            StoreError: The store is in use, cannot be reached, or refuses the tables.
        """
        connection = connect(config)
        try:
            create_tables(connection, config)
        except StoreError:
            connection.close()
            raise
        return cls(connection)

    def reader(self) -> StoreReader:
        """Return what reads this store back."""
        return StoreReader(self._connection)

    def row_reader(self) -> RowReader:
        """Return what reads single rows back."""
        return RowReader(self._connection)

    def export(self, delivery: Delivery) -> int:
        """Insert *delivery* and return the number of rows.  Safe to repeat: tables that took it already change nothing.

        Raises:
            ExportError: The store refuses or cannot be reached.
        """
        totals = self._totals.points(delivery)
        due = bool(delivery.windows) or not 0 <= delivery.time_ns - self._totals_ns < TOTALS_NS
        status = delivery.drift if delivery.drift is not None and _stepped(delivery.drift) != self._drift else None
        if status is None:
            totals = [point for point in totals if point.metric.name not in EVERY_WINDOW]
        points = [*self._grounding.points(delivery), *(totals if due or status is not None else ())]
        rows = 0
        try:
            batches = self._batches(delivery, point_columns(points, delivery.service))
            for table, columns, token in (*batches, *finding_batches(delivery, status)):
                digest = hashlib.blake2b(f"{table}:{token}".encode(), digest_size=16).hexdigest()
                rows += self._connection.insert(table, columns, digest)
        except StoreError as error:
            raise ExportError(str(error)) from error
        if due:
            self._totals_ns = delivery.time_ns
        if status is not None:
            self._drift = _stepped(status)
        return rows

    def close(self) -> None:
        """Close the connection; the reader ends with it."""
        self._connection.close()

    def _batches(self, delivery: Delivery, points: dict[str, Columns]) -> Iterator[tuple[str, Columns, str]]:
        """Yield table, columns and a token that is the same whenever the same part of *delivery* is written."""
        for number, window in enumerate(delivery.windows):  # a clock that was set back gives two windows one start
            worker = window.worker
            token = f"window:{worker.instance}:{worker.start_ns}:{window.start_ns}:{delivery.time_ns}:{number}"
            yield "otel_metrics_exp_histogram", window_columns(window, delivery.service), token
            yield "otel_metrics_gauge", row_count_columns(window, delivery.service), f"rows:{token}"
            if window.output_norm is not None:
                yield "otel_metrics_gauge", norm_columns(window, window.output_norm, delivery.service), token
        token = f"{sidecar_source().instance}:{delivery.service}:{delivery.time_ns}"
        for table, columns in points.items():
            yield table, columns, f"points:{token}"
        for table, columns in request_columns(delivery.requests, delivery.service).items():
            yield table, columns, f"requests:{token}"
        if delivery.rows:
            yield ROWS, row_columns(delivery.rows, delivery.service), f"rows:{token}"


def _stepped(status: DriftStatus) -> tuple[int, int]:
    """Return what tells the status after one window from that after another."""
    return status.window, status.time_ns
