"""Numbered migrations: from every earlier version with data in it, cut short anywhere, and never backwards."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from headwatch.config import StoreConfig
from headwatch.errors import StoreError
from headwatch_exporters.clickhouse import schema
from headwatch_exporters.clickhouse.columns.metrics import window_columns
from headwatch_exporters.clickhouse.connection import Connection, connect
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.reading.rows import RowReader
from headwatch_exporters.clickhouse.schema import applied, create_tables, newest, version_of
from headwatch_exporters.clickhouse.schema_files import LEDGER, migrations
from headwatch_exporters.clickhouse.upkeep.check import check

from ..contract.deliveries import FIXED_NS, full

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.store

KEPT = dict.fromkeys(StoreConfig().ttl_days(), 100_000)
RUNGS = ("headwatch_heads_1m", "headwatch_heads_10m", "headwatch_heads_1h", "headwatch_heads_1d")
FEATURES_AS_FLOATS = bytes(4 * 6 * 6)
"""Of two layers and three heads, all zero: what version 1 and 2 wrote."""


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


class Mortal:
    """A connection that dies before its statement number *after*."""

    def __init__(self, connection: Connection, after: int) -> None:
        self._connection, self.left = connection, after
        self.url, self.folder = connection.url, connection.folder

    def _live(self) -> Connection:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return self._connection

    def require_space(self) -> None:
        self._connection.require_space()

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        return self._connection.query(sql, parameters)

    def command(self, sql: str) -> None:
        self._live().command(sql)

    def insert(self, table: str, columns: Any, token: str) -> int:
        return self._live().insert(table, columns, token)


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(url=f"chdb://{tmp_path}/store", **KEPT)


@pytest.fixture
def connection(config: StoreConfig) -> Iterator[Connection]:
    opened = connect(config)
    yield opened
    opened.close()


def make(connection: Connection, config: StoreConfig, version: int) -> None:
    """Make the store of *version* with a window and a row in it."""
    create_tables(connection, config, upto=version)
    if version == 1:
        connection.command(f"DROP TABLE {LEDGER}")  # the first version kept none
    connection.insert("otel_metrics_exp_histogram", window_columns(full(FIXED_NS).windows[0], "vllm"), "w")
    connection.insert("headwatch_rows", {
        "time": [FIXED_NS], "engine_id": ["old"], "layers": [[0, 1]], "heads": [3], "features": [FEATURES_AS_FLOATS],
        "span_mass": [b""],
    }, "r")  # fmt: skip


def weights(connection: Connection) -> set[int]:
    tables = ("otel_metrics_exp_histogram", *RUNGS)
    columns = ("Count", *("weight",) * len(RUNGS))
    return {
        int(connection.query(f"SELECT sum({column}) AS weight FROM {table}")[0]["weight"])
        for table, column in zip(tables, columns, strict=True)
    }


def test_an_empty_folder_becomes_a_store_of_the_newest_version(connection: Connection, config: StoreConfig):
    assert version_of(connection) == 0
    assert create_tables(connection, config) == [migration.version for migration in migrations()]
    assert version_of(connection) == newest()
    assert [(seen.version, seen.name, seen.checksum) for seen in applied(connection)] == [
        (migration.version, migration.name, migration.checksum) for migration in migrations()
    ]
    assert create_tables(connection, config) == [], "a second start changes nothing"


@pytest.mark.parametrize("version", [migration.version for migration in migrations()[:-1]])
def test_every_earlier_version_comes_up_with_its_data(connection: Connection, config: StoreConfig, version: int):
    make(connection, config, version)
    assert version_of(connection) == version
    before = connection.query("SELECT * FROM otel_metrics_exp_histogram ORDER BY MetricName, toString(Attributes)")
    assert create_tables(connection, config)[-1] == newest()
    assert connection.query("SELECT * FROM otel_metrics_exp_histogram ORDER BY MetricName, toString(Attributes)") == before
    assert len(weights(connection)) == 1, "every rung has what the Collector's table has"
    (row,) = RowReader(connection).rows("old")
    assert row.features.shape == (2, 3, 6)
    assert not row.features.any()
    assert check(connection, config).problems == []


def test_what_comes_after_a_migration_is_not_counted_with_what_was_there(connection: Connection, config: StoreConfig):
    make(connection, config, 1)
    create_tables(connection, config)
    connection.insert("otel_metrics_exp_histogram", window_columns(full(FIXED_NS + 60 * 10**9).windows[0], "vllm"), "next")
    assert len(weights(connection)) == 1


def test_a_migration_cut_short_anywhere_is_resumed(config: StoreConfig):
    """Killed before each of its statements in turn, on one store: what was done is not done again, and nothing is doubled."""
    connection = connect(config)
    try:
        make(connection, config, 1)
        kills, after = 0, 0
        while True:
            try:
                create_tables(Mortal(connection, after), config)  # type: ignore[arg-type] # what it uses of a connection
            except Killed:
                kills += 1
                after = after + 1 if kills % 2 else after
            else:
                break
            assert kills < 500, "it never ends"
        assert kills > 10
        assert version_of(connection) == newest()
        assert len(weights(connection)) == 1
        assert check(connection, config).problems == []
    finally:
        connection.close()


class Busy:
    """A connection beside which others go on writing windows: one before each statement."""

    def __init__(self, connection: Connection, start_ns: int) -> None:
        self._connection, self._next_ns = connection, start_ns
        self.url, self.folder, self.require_space = connection.url, connection.folder, connection.require_space
        self.query, self.insert = connection.query, connection.insert
        self.around: list[str] = []

    def command(self, sql: str) -> None:
        wanted = r"^(TRUNCATE|INSERT|SELECT sleep|CREATE MATERIALIZED VIEW IF NOT EXISTS headwatch_head_points_view)"
        found = re.search(wanted, sql, re.MULTILINE)
        if found:
            window = full(self._next_ns).windows[0]
            self._connection.insert("otel_metrics_exp_histogram", window_columns(window, "vllm"), f"other:{self._next_ns}")
            self._next_ns += 60 * 10**9
            self.around.append(found[1].split()[0])
        self._connection.command(sql)


def test_what_others_write_during_a_migration_is_in_every_rung_once(connection: Connection, config: StoreConfig):
    """Before the fill, between the fill and the view, and behind the view, as they do on a server that several share."""
    make(connection, config, 1)
    busy = Busy(connection, time.time_ns() - 9 * 60 * 10**9)
    create_tables(busy, config)  # type: ignore[arg-type] # what it uses of a connection
    windows = "SELECT uniqExact(time) AS n FROM headwatch_heads_1m"
    assert connection.query(windows) == [{"n": 1 + len(busy.around)}]
    assert len(weights(connection)) == 1, "neither missing nor doubled"
    assert busy.around == ["TRUNCATE"] * 4 + ["INSERT", "CREATE", "SELECT", "INSERT"]


@pytest.mark.parametrize("statement", range(5))
def test_a_fill_that_was_killed_is_begun_anew(connection: Connection, config: StoreConfig, statement: int):
    """Also where it had filled everything and died before it was recorded."""
    make(connection, config, 1)
    steps = [step for step in migrations()[1].steps if "fill" not in step.name and step.name < "20"]
    number = sum(len(list(step.statements(config))) + 1 for step in steps)
    before = 1 + sum(len(list(step.statements(config))) + 1 for step in migrations()[0].steps) + 1
    mortal = Mortal(connection, before + number + statement + 1)
    with pytest.raises(Killed):
        create_tables(mortal, config)  # type: ignore[arg-type] # what it uses of a connection
    create_tables(connection, config)
    assert len(weights(connection)) == 1


def test_a_store_of_a_newer_version_is_refused_and_not_touched(config: StoreConfig):
    connection = connect(config)
    create_tables(connection, config)
    connection.insert(LEDGER, {"version": [newest() + 1], "name": ["later"], "step": [""], "checksum": ["x"],
                               "applied_at": [0]}, "later")  # fmt: skip
    connection.command("DROP TABLE headwatch_deploys")
    connection.close()
    message = f"schema version {newest() + 1}, and this headwatch knows {newest()}: upgrade"
    with pytest.raises(StoreError, match=message) as error:
        ClickHouseExporter.open(config)
    assert "\n" not in str(error.value)
    connection = connect(config)
    try:
        found = connection.query("SELECT name FROM system.tables WHERE name = 'headwatch_deploys'")
        assert found == [], "what is missing was not made"
    finally:
        connection.close()


def test_a_version_that_has_begun_counts_as_newer_too(connection: Connection, config: StoreConfig):
    """A newer program that died in the middle of its migration has already changed tables."""
    create_tables(connection, config)
    connection.insert(LEDGER, {"version": [newest() + 1], "name": ["later"], "step": ["01_x"], "checksum": [""],
                               "applied_at": [0]}, "later")  # fmt: skip
    with pytest.raises(StoreError, match="upgrade headwatch"):
        create_tables(connection, config)


def test_days_of_the_configuration_reach_tables_that_are_there(config: StoreConfig):
    connection = connect(config)
    try:
        create_tables(connection, config)
        create_tables(connection, StoreConfig(url=config.url, **{**KEPT, "hour_ttl_days": 77}))
        (row,) = connection.query("SELECT engine_full FROM system.tables WHERE name = 'headwatch_heads_1h'")
        assert "toIntervalDay(77)" in row["engine_full"]
    finally:
        connection.close()


def test_released_versions_never_change(monkeypatch: pytest.MonkeyPatch, connection: Connection, config: StoreConfig):
    """A step that was edited after it was applied is found, by its checksum."""
    create_tables(connection, config)
    first, *others = migrations()
    edited = replace(first, steps=(replace(first.steps[0], text=first.steps[0].text + "\n-- edited"), *first.steps[1:]))
    monkeypatch.setattr("headwatch_exporters.clickhouse.upkeep.check.migrations", lambda: (edited, *others))
    assert check(connection, config).problems == ["version 1 was applied from other files than this headwatch ships"]
    assert schema.newest() == newest()
