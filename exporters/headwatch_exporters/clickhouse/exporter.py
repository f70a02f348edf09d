"""The ClickHouse exporter: everything that is measured, into the Collector's tables and the evidence tables beside them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Self

from headwatch.errors import ExportError, StoreError
from headwatch_exporters.clickhouse.connection import Connection, connect, create_tables
from headwatch_exporters.clickhouse.queries import StoreReader
from headwatch_exporters.clickhouse.writer import Columns, point_columns, request_columns, window_columns
from headwatch_exporters.points import Totals, request_points

if TYPE_CHECKING:
    from headwatch.config import StoreConfig
    from headwatch.model import Delivery


class ClickHouseExporter:
    """Writes deliveries.  :meth:`open` connects and creates what is missing."""

    name = "clickhouse"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._totals = Totals()

    @classmethod
    def open(cls, config: StoreConfig) -> Self:
        """Return an exporter on the store of *config*.

        Raises:
            StoreError: The store is in use, cannot be reached, or refuses the tables.
        """
        connection = connect(config)
        create_tables(connection, config)
        return cls(connection)

    def reader(self) -> StoreReader:
        """Return what reads this store back."""
        return StoreReader(self._connection)

    def export(self, delivery: Delivery) -> int:
        """Insert *delivery* and return the number of rows.  Safe to repeat: tables that took it already change nothing.

        Raises:
            ExportError: The store refuses or cannot be reached.
        """
        points = [*request_points(delivery), *self._totals.points(delivery)]
        rows = 0
        try:
            for window in delivery.windows:
                token = f"{window.worker.instance}:{window.worker.start_ns}:{window.start_ns}:{delivery.time_ns}"
                rows += self._insert("otel_metrics_exp_histogram", window_columns(window, delivery.service), token)
            for table, columns in point_columns(points, delivery.service).items():
                rows += self._insert(table, columns, f"points:{delivery.time_ns}")
            for table, columns in request_columns(delivery.requests, delivery.service).items():
                rows += self._insert(table, columns, f"requests:{delivery.time_ns}")
        except StoreError as error:
            raise ExportError(str(error)) from error
        return rows

    def close(self) -> None:
        """Close the connection; the reader ends with it."""
        self._connection.close()

    def _insert(self, table: str, columns: Columns, token: str) -> int:
        digest = hashlib.blake2b(f"{table}:{token}".encode(), digest_size=16).hexdigest()
        return self._connection.insert(table, columns, digest)
