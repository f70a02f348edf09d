"""Row policies: a user who may see some services or routes sees nothing of the others, in any table.

chDB knows no users and has no row policies of its own, but ``additional_table_filters`` puts a condition on every read of a
table, below joins, subqueries, aliases and aggregation, and cannot be changed once a handle is read only.  A table that has
neither the column nor the attribute to filter by is hidden whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.metrics import ATTR_ROUTE
from headwatch_exporters.clickhouse.http.quoting import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch_exporters.clickhouse.http.engine import Handle
    from headwatch_exporters.clickhouse.http.users import Reader

_SERVICE = ("service", "ServiceName")
_ROUTE = "route"
_ATTRIBUTES = "Attributes"


@dataclass(frozen=True, slots=True)
class Policy:
    """What one user sees: the conditions as a setting's value, and the tables that he cannot see at all."""

    filters: str
    hidden: frozenset[str]


def policy_of(reader: Reader, handle: Handle, database: str) -> Policy | None:
    """Return the policy of *reader* over the tables there are now; None where he sees everything."""
    if not reader.services and not reader.routes:
        return None
    rows = handle.ask(
        "SELECT t.name, t.engine LIKE '%MergeTree', groupArray(c.name) FROM system.tables AS t "
        "INNER JOIN system.columns AS c ON c.database = t.database AND c.table = t.name "
        "WHERE t.database = {database:String} GROUP BY ALL FORMAT JSONCompactEachRow",
        database=database,
    )
    conditions, hidden = {}, set()
    for line in rows.decode().splitlines():
        table, readable, columns = json.loads(line)
        condition = _condition(reader, columns) if readable else None
        if condition is None:
            hidden.add(table)
        else:
            conditions[table] = condition
    pairs = (
        f"{literal(f'{database}.{table}')}: {literal(condition)}" for table, condition in sorted(conditions.items())
    )
    return Policy(f"{{{', '.join(pairs)}}}", frozenset(hidden))


def _condition(reader: Reader, columns: Sequence[str]) -> str | None:
    parts = []
    if reader.services:
        column = next((name for name in _SERVICE if name in columns), None)
        if column is None:
            return None
        parts.append(_among(column, reader.services))
    if reader.routes:
        if _ROUTE in columns:
            column = _ROUTE
        elif _ATTRIBUTES in columns:
            column = f"{_ATTRIBUTES}[{literal(ATTR_ROUTE)}]"
        else:
            return None
        parts.append(_among(column, reader.routes))
    return " AND ".join(parts)


def _among(column: str, names: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(literal(name) for name in names)})"
