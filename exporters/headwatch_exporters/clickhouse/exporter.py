"""The ClickHouse exporter: everything that is measured, into the Collector's tables and the evidence tables beside them."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Self

from headwatch.errors import ExportError, SpoolError, StoreError, StoreUnavailable
from headwatch_exporters.clickhouse.columns.types import column_types
from headwatch_exporters.clickhouse.connection import unconnected
from headwatch_exporters.clickhouse.reading.queries import StoreReader
from headwatch_exporters.clickhouse.reading.rows import RowReader
from headwatch_exporters.clickhouse.schema import create_tables
from headwatch_exporters.clickhouse.upkeep.expired import drop_expired
from headwatch_exporters.clickhouse.writing.batches import Batches
from headwatch_exporters.clickhouse.writing.guard import DiskGuard
from headwatch_exporters.clickhouse.writing.native import native_blocks
from headwatch_exporters.clickhouse.writing.spooled import Spooled
from headwatch_exporters.spool.losses import Losses
from headwatch_exporters.spool.record import BatchWriter, Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwatch.config import SpoolConfig, StoreConfig
    from headwatch.health import SpoolHealth
    from headwatch.records import Delivery
    from headwatch_exporters.clickhouse.connection import Connection
    from headwatch_exporters.spool.record import Batch

logger = logging.getLogger("headwatch.export")


class ClickHouseExporter:
    """Writes deliveries: into the spool, from where they go to the store, or without one straight into it."""

    name = "clickhouse"

    def __init__(self, connection: Connection, store: StoreConfig) -> None:
        self._connection = connection
        self._store = store
        self._batches = Batches()
        self._types = column_types()
        self._losses = Losses()
        self._prepared = False
        self._spooled: Spooled | None = None
        self._guard = None if connection.folder is None else DiskGuard(
            connection.folder, store.min_free_bytes, connection, lambda: drop_expired(connection.beside, store)
        )

    @classmethod
    def open(cls, store: StoreConfig, spool: SpoolConfig | None = None, folder: Path | None = None) -> Self:
        """Return an exporter on the store of *store*, with its spool in *folder*; None: each delivery is inserted at once.

        With a spool, a store or a disk that is away is waited for.

        Raises:
            StoreError: The store is in use, refuses the tables or, without a spool, cannot be reached.
            SpoolError: The spool is in use by another process.
        """
        exporter = cls(unconnected(store), store)
        try:
            exporter._prepare()
        except StoreUnavailable as error:
            if spool is None:
                raise
            logger.error("the store is not there yet, and waited for: %s", error)  # noqa: TRY400 - one line, at the edge
        except StoreError:
            exporter._connection.close()
            raise
        if spool is not None and folder is not None:
            try:
                exporter._spooled = Spooled(spool, folder, exporter._insert, exporter._losses)
            except SpoolError:
                exporter._connection.close()
                raise
        if exporter._guard is not None:
            exporter._guard.start()
        return exporter

    @property
    def connection(self) -> Connection:
        """Return the connection to the store."""
        return self._connection

    def reader(self) -> StoreReader:
        """Return what reads this store back."""
        return StoreReader(self._connection)

    def row_reader(self) -> RowReader:
        """Return what reads single rows back."""
        return RowReader(self._connection)

    def spool_health(self) -> SpoolHealth | None:
        """Return where the spool stands; None: there is none."""
        return self._spooled.health() if self._spooled is not None else None

    def rewrite_spool(self, transform: Callable[[Batch], Batch | None]) -> int:
        """Have each batch that is on its way, or set aside, as *transform* returns it, None: gone; return how many changed.

        Raises:
            SpoolError: The disk does not let us; some of it may be as it was.
        """
        return self._spooled.rewrite(transform) if self._spooled is not None else 0

    def export(self, delivery: Delivery) -> int:
        """Write *delivery* and return the number of rows.  Safe to repeat: tables that took it already change nothing.

        Raises:
            ExportError: The spool does not take it; without one, the store refuses or cannot be reached.
        """
        record = self._record(delivery)
        try:
            if self._spooled is not None:
                self._spooled.append(record)
            else:
                for batch in record.batches:
                    self._insert(batch)
        except (StoreError, SpoolError) as error:
            raise ExportError(str(error)) from error
        self._batches.wrote(delivery)
        return sum(batch.rows for batch in record.batches)

    def close(self) -> None:
        """Send what can be sent at once, and close the connection; the reader ends with it.  The rest stays in the spool."""
        sent = self._spooled is None or self._spooled.close()
        if (self._guard is None or self._guard.stop()) and sent:
            self._connection.close()

    def _record(self, delivery: Delivery) -> Record:
        """Return *delivery* as it is spooled.  A batch that cannot be written as its table has it is left out, and counted."""
        writers: dict[tuple[str, ...], BatchWriter] = {}
        unfit: set[tuple[str, ...]] = set()
        for table, columns, token in self._batches.parts(delivery):
            rows = len(next(iter(columns.values())))
            if not rows:
                continue
            key = (table, token, *columns)
            writer = writers.setdefault(key, BatchWriter(table, tuple(columns), _digest(key)))
            try:
                writer.add(rows, native_blocks(columns, self._types.get(table, {})))
            except StoreError as error:
                logger.error("a batch of %s cannot be written: %s", table, error)  # noqa: TRY400 - one line, at the edge
                unfit.add(key)
        for key in unfit:
            self._losses.batch("encode", key[0], writers.pop(key).rows)
        return Record(delivery.time_ns, tuple(writer.batch() for writer in writers.values()))

    def _insert(self, batch: Batch) -> None:
        if not self._prepared:
            self._prepare()
        self._connection.insert_batch(batch)

    def _prepare(self) -> None:
        """Connect, and create what is missing."""
        self._connection.open()
        create_tables(self._connection, self._store)
        self._prepared = True


def _digest(key: tuple[str, ...]) -> str:
    return hashlib.blake2b(":".join(key).encode(), digest_size=16).hexdigest()
