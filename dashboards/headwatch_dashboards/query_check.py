"""Run every query of the dashboards and of the alert rules on a store, and see that each returns rows.

A query can be valid and still show nothing: a misspelt metric, an attribute that nobody writes, a column that a panel
names and the query does not return.  Only real data tells.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headwatch.errors import CommandError, StoreError
from headwatch_dashboards.alerts import RULES
from headwatch_dashboards.lint import panels
from headwatch_dashboards.macros import ALL, QueryRange, expand
from headwatch_dashboards.names import FEATURE_VARIABLE, MODEL_VARIABLE, PHASE_VARIABLE, ROUTE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LABEL = re.compile(r"\$labels\.(\w+)")
DEFAULT_VARIABLES = {ROUTE_VARIABLE: ALL, MODEL_VARIABLE: ALL, PHASE_VARIABLE: ("decode",), FEATURE_VARIABLE: ("lookback",)}
"""What is chosen where a dashboard is opened; of a variable that takes one value and asks for them, the first."""


class Result(Protocol):
    """What a query returned."""

    @property
    def column_names(self) -> Sequence[str]:
        """Return the names of the columns."""
        ...

    @property
    def result_rows(self) -> Sequence[Sequence[object]]:
        """Return the rows."""
        ...


class Client(Protocol):
    """A ClickHouse client, embedded or not."""

    def query(self, query: str) -> Result:
        """Run *query*."""
        ...

    def close(self) -> None:
        """Release the store."""
        ...


@dataclass(frozen=True, slots=True)
class QueryReport:
    """What one query came to.  *problem* is empty where all is well."""

    where: str
    rows: int
    seconds: float
    problem: str
    first: object = None
    """The first value of the first row."""


def connect(url: str) -> Client:
    """Return a client of the store at *url* (``chdb:///path`` or ``http://user:password@host:8123/database``).

    Raises:
        StoreError: The store cannot be opened.
        CommandError: clickhouse-connect is not installed.
    """
    try:
        import clickhouse_connect  # noqa: PLC0415 - wanted for this check alone
    except ImportError as error:
        raise CommandError("clickhouse-connect is not installed: pip install 'headwatch[sidecar]'") from error
    if url.startswith("chdb://") and not Path(url.removeprefix("chdb://")).is_dir():
        raise StoreError(f"{url}: no store there")
    try:
        client: Client = clickhouse_connect.get_client(dsn=url)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StoreError(f"the store cannot be opened (an embedded one by one process at a time): {reason}") from error
    return client


def run_queries(
    dashboard: dict[str, Any],
    client: Client,
    query_range: QueryRange,
    variables: dict[str, tuple[str, ...]] | None = None,
) -> list[QueryReport]:
    """Run the queries of variables, marks and panels; return a report of each."""
    chosen, reports = {**DEFAULT_VARIABLES, **(variables or {})}, []
    for variable in dashboard.get("templating", {}).get("list", []):
        if not isinstance(variable.get("query"), dict):
            continue
        report = _run(f"variable {variable['name']}", variable["query"]["rawSql"], client, query_range, {}, ())
        reports.append(report)
        if not variable.get("multi") and report.first is not None:
            chosen.setdefault(variable["name"], (str(report.first),))
    reports += [
        _run(f"marks {mark['name']}", mark["target"]["rawSql"], client, query_range, {}, ("time", "title", "text", "tags"))
        for mark in dashboard.get("annotations", {}).get("list", []) if "rawSql" in mark["target"]
    ]  # fmt: skip
    for panel in panels(dashboard):
        wanted = tuple(_columns_named(panel))
        reports += [
            _run(f"panel {panel['id']} {panel['title']!r}", query["rawSql"], client, query_range, chosen, wanted)
            for query in panel.get("targets", [])
        ]
    return [replace(report, where=f"{dashboard['uid']}: {report.where}") for report in reports]


def run_rules(client: Client, query_range: QueryRange) -> list[QueryReport]:
    """Run the queries of the alert rules, each over its own range, which ends where *query_range* ends."""
    end = query_range.to_seconds
    return [
        _run(f"alert rule {rule.title!r}", rule.sql, client, QueryRange(end - rule.seconds, end), {},
             ("time", *sorted(set(_LABEL.findall(rule.summary + rule.description)))))
        for rule in RULES
    ]  # fmt: skip


def _run(
    where: str, sql: str, client: Client, query_range: QueryRange, variables: dict[str, tuple[str, ...]], wanted: Sequence[str]
) -> QueryReport:
    started = time.perf_counter()
    try:
        result = client.query(expand(sql, query_range, variables))
    except CommandError as error:
        return QueryReport(where, 0, 0.0, str(error))
    except Exception as error:  # noqa: BLE001 - the client's errors have no common root
        return QueryReport(where, 0, time.perf_counter() - started, f"refused by the store: {_first_line(error)}")
    rows = sum(any(_says_something(value) for value in row) for row in result.result_rows)
    missing = [column for column in wanted if column not in result.column_names]
    problem = ""
    if rows == 0:  # an embedded store then returns no column names either
        problem = "returned no rows"
    elif missing:
        problem = f"names columns that the query does not return: {', '.join(missing)}"
    first = result.result_rows[0][0] if result.result_rows else None
    return QueryReport(where, rows, time.perf_counter() - started, problem, first)


def _columns_named(panel: dict[str, Any]) -> Iterator[str]:
    """Yield the columns that a panel counts on by name."""
    matrix = {"columnField", "rowField", "valueField"}
    for transformation in panel.get("transformations", []):
        yield from (value for key, value in transformation.get("options", {}).items() if key in matrix)
    if not panel.get("transformations"):  # after one, columns have other names
        for override in panel.get("fieldConfig", {}).get("overrides", []):
            if override["matcher"]["id"] == "byName":
                yield override["matcher"]["options"]
    if column := panel.get("options", {}).get("xField"):
        yield column
    if panel.get("type") == "timeseries":
        yield "time"


def _says_something(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:400] if text else type(error).__name__
