"""The tables: one ``.sql`` file each in ``sql/``, which can be read and run alone."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.config import StoreConfig
    from headwatch_exporters.clickhouse.connection import Connection

_TTL = re.compile(r"^TTL (.+)$", re.MULTILINE)
_DAYS = re.compile(r"toIntervalDay\((\d+)\)")


_COLUMN = re.compile(r"^    (`[^`]+`|\w+) (?!.*\bNested\b)([^\n]+?),?$", re.MULTILINE)
"""A column in our own files: a line of its own, indented by four spaces."""


def statements(config: StoreConfig) -> Iterator[tuple[str, str]]:
    """Yield the name of each table and the statement that creates it, with the days of *config* filled in."""
    days = {
        "{head_ttl_days}": str(config.head_ttl_days),
        "{evidence_ttl_days}": str(config.evidence_ttl_days),
        "{row_ttl_days}": str(config.row_ttl_days),
        "{incident_ttl_days}": str(config.incident_ttl_days),
    }
    for file in sorted(files(__package__).joinpath("sql").iterdir(), key=lambda item: item.name):
        text = file.read_text(encoding="utf-8").strip().rstrip(";")
        for name, value in days.items():
            text = text.replace(name, value)
        yield file.name.removesuffix(".sql"), text


def create_tables(connection: Connection, config: StoreConfig) -> None:
    """Create what is missing, columns that an earlier version did not have too, and keep everything as long as *config* says.

    Raises:
        StoreError: The store refuses.
    """
    for table, statement in statements(config):
        connection.command(statement)
        _add_columns(connection, table, statement)
        wanted = _TTL.search(statement)
        (row,) = connection.query(
            "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
            {"table": table},
        )
        if wanted is not None and _DAYS.findall(row["engine_full"]) != _DAYS.findall(wanted[1]):
            connection.command(f"ALTER TABLE {table} MODIFY TTL {wanted[1]}")


def _add_columns(connection: Connection, table: str, statement: str) -> None:
    """Add the columns of *statement* that *table* lacks, each in its place; rows that are there get its default."""
    rows = connection.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}", {"table": table}
    )
    known = {row["name"] for row in rows}
    place = "FIRST"
    for name, kind in _COLUMN.findall(statement):
        if name == "INDEX":
            continue
        if name.strip("`") not in known:
            connection.command(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {kind} {place}")
        place = f"AFTER {name}"
