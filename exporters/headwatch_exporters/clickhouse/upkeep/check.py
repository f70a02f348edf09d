"""Is a store whole: its parts, its schema, and do the rungs say what the Collector's table says?

Every column of every part is read, and its blocks are held against their checksums.  The schema is held against one that the
engine makes anew from our files in a database of its own, which goes again.  Sums of weights are compared over one hour that
has closed: every window of it must be in the Collector's table and in each rung once.  What lies behind a rung's time to live
is not compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwatch.errors import StoreError
from headwatch_exporters.clickhouse.schema import applied, newest, version_of
from headwatch_exporters.clickhouse.schema_files import migrations, views
from headwatch_exporters.clickhouse.upkeep.status import OURS

if TYPE_CHECKING:
    from headwatch.config import StoreConfig
    from headwatch_exporters.clickhouse.connection import Connection

EXPECTED = "headwatch_expected"
"""The database in which the schema is made anew."""
_TARGET = re.compile(r"^(CREATE TABLE IF NOT EXISTS|ALTER TABLE) (\w+)", re.MULTILINE)
SETTLED_SECONDS = 600
"""An hour counts as closed so long after its end."""
HOUR_RUNGS = ("headwatch_heads_1m", "headwatch_heads_10m", "headwatch_heads_1h")
_OF_HEADS = """startsWith(MetricName, 'headwatch.attention.') AND mapContains(Attributes, 'headwatch.head')
  AND AggregationTemporality = 1 AND Count > 0 AND Scale BETWEEN 0 AND 20"""


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """What was found.  No problems: the store is whole."""

    problems: list[str] = field(default_factory=list)
    tables: int = 0
    """Tables whose parts were read."""
    hour: str = ""
    """The hour that was compared, UTC; empty where none has closed."""
    weights: dict[str, int] = field(default_factory=dict)
    """Sum of weights of that hour in the Collector's table and in each rung."""


def check(connection: Connection, config: StoreConfig) -> StoreCheck:
    """Return what is wrong with the store.

    Raises:
        StoreError: It cannot be read.
    """
    version = version_of(connection)
    problems = [f"schema version {version}, and this headwatch writes {newest()}"] if version != newest() else []
    checksums = {migration.version: migration.checksum for migration in migrations()}
    problems += [
        f"version {seen.version} was applied from other files than this headwatch ships"
        for seen in applied(connection) if seen.whole and checksums.get(seen.version, "") != seen.checksum
    ]  # fmt: skip
    names = _names(connection)
    damaged = [f"{name}: {damage}" for name in names if (damage := _damage(connection, name))]
    problems += damaged
    if version == newest():
        problems += _differences(connection, config)
    missing = _missing_views(connection)
    problems += [f"{name}: the view is missing" for name in missing]
    comparable = not damaged and not missing and version == newest()
    hour, weights = _weights(connection) if comparable else ("", {})
    if len(set(weights.values())) > 1:
        problems.append("the rungs differ: " + ", ".join(f"{name} {weight}" for name, weight in weights.items()))
    return StoreCheck(problems, len(names), hour, weights)


def _names(connection: Connection) -> list[str]:
    rows = connection.query(
        f"SELECT name FROM system.tables WHERE database = currentDatabase() AND {OURS} "  # noqa: S608 - a constant
        "AND engine LIKE '%MergeTree' ORDER BY name"
    )
    return [row["name"] for row in rows]


def _damage(connection: Connection, table: str) -> str:
    """Return what is wrong with the parts of *table*: every column of every row is read, and each block has a checksum."""
    try:
        connection.query(f"SELECT count() AS rows FROM {table} WHERE NOT ignore(*)")  # noqa: S608 - our own names
    except StoreError as error:
        return str(error)
    return ""


def _missing_views(connection: Connection) -> list[str]:
    rows = connection.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'MaterializedView'"
    )
    there = {row["name"] for row in rows}
    return [step.view for step in views() if step.view not in there]


def _differences(connection: Connection, config: StoreConfig) -> list[str]:
    connection.command(f"DROP DATABASE IF EXISTS {EXPECTED}")
    connection.command(f"CREATE DATABASE {EXPECTED}")
    try:
        for migration in migrations():
            for step in migration.steps:
                for statement in step.statements(config):
                    if _TARGET.search(statement):
                        connection.command(_TARGET.sub(rf"\1 {EXPECTED}.\2", statement))
        wanted, found = _described(connection, f"'{EXPECTED}'"), _described(connection, "currentDatabase()")
    finally:
        connection.command(f"DROP DATABASE IF EXISTS {EXPECTED}")
    problems = []
    for table, columns in wanted.items():
        if table not in found:
            problems.append(f"{table}: the table is missing")
            continue
        for column, described in columns.items():
            if found[table].get(column) != described:
                problems.append(f"{table}.{column}: {found[table].get(column, 'missing')}, and should be {described}")
    return problems


def _described(connection: Connection, database: str) -> dict[str, dict[str, str]]:
    """Return by table what each column is; the keys of the table stand under the empty name."""
    tables: dict[str, dict[str, str]] = {}
    for row in connection.query(
        f"SELECT name, engine, partition_key, sorting_key FROM system.tables WHERE database = {database} AND {OURS}"  # noqa: S608
    ):
        engine = row["engine"].removeprefix("Replicated")
        if engine not in {"MaterializedView", "Distributed"}:
            tables[row["name"]] = {"": f"{engine} of {row['partition_key']} by {row['sorting_key']}"}
    for row in connection.query(
        f"""
        SELECT table, name, type, compression_codec, default_kind, default_expression
        FROM system.columns WHERE database = {database}
        """  # noqa: S608 - one of two constants
    ):
        if row["table"] in tables:
            words: tuple[Any, ...] = (row["type"], row["default_kind"], row["default_expression"], row["compression_codec"])
            tables[row["table"]][row["name"]] = " ".join(str(word) for word in words if word)
    return tables


def _weights(connection: Connection) -> tuple[str, dict[str, int]]:
    (row,) = connection.query(
        f"""
        SELECT toUnixTimestamp(toStartOfHour(max(TimeUnix), 'UTC')) AS hour, count() AS rows FROM otel_metrics_exp_histogram
        WHERE {_OF_HEADS} AND TimeUnix < toStartOfHour(now() - {SETTLED_SECONDS}, 'UTC')
        """  # noqa: S608 - constants
    )
    if not row["rows"]:
        return "", {}
    hour = int(row["hour"])
    start = "toDateTime(if(StartTimeUnix = 0, TimeUnix, StartTimeUnix), 'UTC')"
    (row,) = connection.query(
        f"SELECT sum(Count) AS weight FROM otel_metrics_exp_histogram WHERE {_OF_HEADS} "  # noqa: S608 - constants
        f"AND {start} >= toDateTime({hour}, 'UTC') AND {start} < toDateTime({hour} + 3600, 'UTC')"
    )
    weights = {"otel_metrics_exp_histogram": int(row["weight"])}
    for rung in HOUR_RUNGS:
        (row,) = connection.query(
            f"SELECT sum(weight) AS weight FROM {rung} "  # noqa: S608 - constants
            f"WHERE time >= toDateTime({hour}, 'UTC') AND time < toDateTime({hour} + 3600, 'UTC')"
        )
        weights[rung] = int(row["weight"])
    (row,) = connection.query(f"SELECT toString(toDateTime({hour}, 'UTC')) AS hour")
    return row["hour"], weights
