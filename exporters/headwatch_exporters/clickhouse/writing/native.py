"""Columns as ClickHouse's *Native* blocks, by the driver's own writer: the same bytes go into the spool and into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headwatch_exporters.clickhouse.columns import Columns

BLOCK_ROWS = 65_536
"""A block of so many rows of the widest table takes about 30 MB on its way to compression."""


def native_blocks(columns: Columns, types: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the blocks of *columns*, which have one length, as columns of *types*.

    Raises:
        StoreError: A column is not known, or holds what its type does not take.
    """
    from clickhouse_connect.datatypes.format import set_write_format  # noqa: PLC0415 - heavy
    from clickhouse_connect.datatypes.registry import get_from_name  # noqa: PLC0415
    from clickhouse_connect.driver.insert import InsertContext  # noqa: PLC0415
    from clickhouse_connect.driver.transform import NativeTransform  # noqa: PLC0415

    set_write_format("DateTime64", "int")  # times are nanoseconds since 1970
    unknown = [name for name in columns if name not in types]
    if unknown:
        raise StoreError(f"no such column: {', '.join(unknown)}")
    if not len(next(iter(columns.values()))):
        return
    context = InsertContext(
        "", list(columns), [get_from_name(types[name]) for name in columns], column_oriented=True, block_size=BLOCK_ROWS
    )
    context.data = list(columns.values())
    first = True
    for block in NativeTransform.build_insert(context):
        if context.insert_exception is not None:
            raise StoreError(f"column {context.column_name}: {context.insert_exception}") from context.insert_exception
        yield block.partition(b"\n")[2] if first else block  # the statement stands before the first one
        first = False
