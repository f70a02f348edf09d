"""``headwatch store``: status, check, migrate, backup, restore, compact and ddl on real stores, and what each refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from headwatch.cli.main import main
from headwatch.config import SpoolConfig, StoreConfig
from headwatch.errors import StoreError
from headwatch_exporters.clickhouse.cluster import cluster_ddl, server_ddl
from headwatch_exporters.clickhouse.connection import connect
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.schema import create_tables, newest, version_of
from headwatch_exporters.clickhouse.schema_files import migrations, views
from headwatch_exporters.clickhouse.unfinished import Restoring

from ..contract.deliveries import full
from ..unit.frames import detailed
from .test_row_store import NOW_NS, delivered

pytestmark = pytest.mark.store

HOUR_NS = 3600 * 10**9
QUERIES = (
    "SELECT * FROM otel_metrics_exp_histogram ORDER BY MetricName, toString(Attributes), TimeUnix",
    "SELECT * FROM otel_metrics_gauge ORDER BY MetricName, toString(Attributes), TimeUnix",
    "SELECT * FROM headwatch_requests ORDER BY time",
    "SELECT * FROM headwatch_documents ORDER BY time, rank",
    "SELECT * FROM headwatch_request_heads ORDER BY time, layer, head",
    "SELECT hex(features), hex(span_mass), position FROM headwatch_rows ORDER BY position",
    "SELECT *, mean, total FROM headwatch_heads_1m ORDER BY ALL",
    "SELECT * FROM headwatch_heads_10m FINAL ORDER BY ALL",  # rows of one key are summed sooner or later
    "SELECT * FROM headwatch_heads_1h FINAL ORDER BY ALL",
    "SELECT * FROM headwatch_heads_1d FINAL ORDER BY ALL",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that deliveries of now and of two hours ago went into."""
    folder = tmp_path_factory.mktemp("made") / "store"
    exporter = ClickHouseExporter.open(StoreConfig(url=f"chdb://{folder}"))
    exporter.export(full(NOW_NS - 2 * HOUR_NS))
    exporter.export(full(NOW_NS))
    exporter.export(delivered(detailed(2, time_ns=NOW_NS, finished=["r-1"])))
    exporter.close()
    return folder


@pytest.fixture
def url(made: Path, tmp_path: Path) -> str:
    """Return a copy of it."""
    shutil.copytree(made, tmp_path / "store", symlinks=True)
    return f"chdb://{tmp_path}/store"


def command(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capfd.readouterr()
    code = main(["store", *words, "--json"])
    out = capfd.readouterr()
    return code, json.loads(out.out) if out.out else out.err


def answers(url: str) -> list[list[str]]:
    """Return what the store says to each query, as text, so that NaN equals NaN."""
    connection = connect(StoreConfig(url=url))
    try:
        return [[str(row) for row in connection.query(sql)] for sql in QUERIES]
    finally:
        connection.close()


def test_status_says_what_is_there(url: str, capfd: pytest.CaptureFixture[str]):
    code, status = command(capfd, "status", "--url", url)
    assert (code, status["version"], status["known_version"]) == (0, newest(), newest())
    tables = {table["name"]: table for table in status["tables"]}
    assert tables["headwatch_requests"]["rows"] == 6
    assert tables["headwatch_requests"]["kept_days"] == 30
    assert tables["headwatch_heads_1d"]["kept_days"] == 400
    assert tables["headwatch_deploys"]["oldest"] is None
    assert tables["otel_metrics_exp_histogram"]["oldest"] == pytest.approx((NOW_NS - 2 * HOUR_NS) / 1e9, abs=61)
    assert status["bytes_on_disk"] == sum(table["bytes_on_disk"] for table in tables.values()) > 0


def test_status_for_people_has_a_line_for_each_table(url: str, capfd: pytest.CaptureFixture[str]):
    assert main(["store", "status", "--url", url]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith(f"{url}: schema version {newest()} (this headwatch writes {newest()})")
    assert any(line.startswith("headwatch_heads_1m ") and " 7 d " in line for line in lines)


def test_a_look_makes_no_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    code, message = command(capfd, "status", "--url", f"chdb://{tmp_path}/nothing")
    assert code == 1
    assert message == f"headwatch: error: chdb://{tmp_path}/nothing: no store there (store.url)\n"
    assert not (tmp_path / "nothing").exists()


def test_a_store_in_use_is_one_clear_line(url: str):
    exporter = ClickHouseExporter.open(StoreConfig(url=url))
    try:
        code = [sys.executable, "-m", "headwatch.cli.main", "store", "compact", "--url", url]
        ended = subprocess.run(code, capture_output=True, text=True, timeout=120, check=False)
    finally:
        exporter.close()
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "in use by another process; an embedded store belongs to one sidecar" in ended.stderr.splitlines()[-1]


def test_a_whole_store_has_no_problems_and_its_rungs_agree(url: str, capfd: pytest.CaptureFixture[str]):
    code, found = command(capfd, "check", "--url", url)
    assert (code, found["problems"]) == (0, [])
    assert found["hour"]
    assert len(found["weights"]) == 4
    assert len(set(found["weights"].values())) == 1
    assert min(found["weights"].values()) > 0


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ("DROP TABLE headwatch_heads_1h_view", "headwatch_heads_1h_view: the view is missing"),
        ("DROP TABLE headwatch_canaries", "headwatch_canaries: the table is missing"),
        ("ALTER TABLE headwatch_requests MODIFY COLUMN duration_seconds Float64",
         "headwatch_requests.duration_seconds: Float64, and should be Float32"),
        ("ALTER TABLE headwatch_heads_10m MODIFY COLUMN total Float32 CODEC(LZ4)",
         "headwatch_heads_10m.total: Float32 CODEC(LZ4)"),
        ("ALTER TABLE headwatch_rows DROP COLUMN code", "headwatch_rows.code: missing"),
        ("TRUNCATE TABLE headwatch_heads_1m", "the rungs differ: otel_metrics_exp_histogram 360, headwatch_heads_1m 0"),
    ],
)  # fmt: skip
def test_check_finds_what_is_wrong(url: str, capfd: pytest.CaptureFixture[str], harm: str, problem: str):
    connection = connect(StoreConfig(url=url))
    connection.command(harm)
    connection.close()
    code, found = command(capfd, "check", "--url", url)
    assert code == 1
    assert any(line.startswith(problem) for line in found["problems"]), found["problems"]


@pytest.mark.parametrize("table", ["otel_metrics_exp_histogram", "headwatch_heads_1h", "headwatch_request_heads"])
def test_check_finds_a_part_that_was_damaged(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], table: str):
    connection = connect(StoreConfig(url=url))
    sql = "SELECT path FROM system.parts WHERE database = currentDatabase() AND table = {table:String} AND active"
    rows = connection.query(sql, {"table": table})
    connection.close()
    (part, *_) = (Path(row["path"]) for row in rows)
    damaged = max((path for path in (part if part.is_absolute() else tmp_path / "store" / part).glob("*.bin")), key=_size)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(bytes(data))
    code, found = command(capfd, "check", "--url", url)
    assert code == 1
    (problem,) = found["problems"]
    assert problem.startswith(f"{table}: ")
    assert "Checksum doesn't match" in problem or "CHECKSUM" in problem


def _size(path: Path) -> int:
    return path.stat().st_size


def test_a_backup_restored_elsewhere_answers_the_same(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    code, manifest = command(capfd, "backup", str(tmp_path / "backup"), "--url", url)
    assert code == 0
    assert manifest["schema_version"] == newest()
    expected = answers(url)
    shutil.rmtree(tmp_path / "store")
    other = f"chdb://{tmp_path}/elsewhere/store"
    code, restored = command(capfd, "restore", str(tmp_path / "backup"), "--url", other)
    assert (code, restored) == (0, manifest)
    assert answers(other) == expected
    assert all(expected), "each query has rows to compare"
    assert command(capfd, "check", "--url", other)[1]["problems"] == []
    exporter = ClickHouseExporter.open(StoreConfig(url=other))
    exporter.export(full(NOW_NS + HOUR_NS))
    exporter.close()
    assert len(answers(other)[6]) == len(expected[6]) + 120, "views work again"


@pytest.mark.parametrize("after", [1, 12, 20, 0])
def test_a_restore_that_was_killed_is_a_store_that_nobody_opens(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], after: int
):
    """Killed while it makes tables, between them, between two files, and (0) when all is there and nobody was told."""
    command(capfd, "backup", str(tmp_path / "backup"), "--url", url)
    expected = answers(url)
    other = f"chdb://{tmp_path}/other"
    code = f"""
        import os, signal
        from pathlib import Path
        from headwatch.config import StoreConfig
        from headwatch_exporters.clickhouse.upkeep import backup
        said = []
        def die(_=None):
            os.kill(os.getpid(), signal.SIGKILL)
        def progress(message):
            said.append(message)
            if len(said) == {after}:
                die()
        backup.Restoring.done = die
        backup.restore(StoreConfig(url={other!r}), Path({str(tmp_path)!r}) / "backup", progress)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=120, check=False)
    assert killed.returncode == -9, killed.stderr
    for words in (("status",), ("check",), ("migrate",), ("backup", str(tmp_path / "no"))):
        exit_code, message = command(capfd, *words, "--url", other)
        assert exit_code == 1
        assert "is not whole: a restore into it is at work or was cut short; `headwatch store restore FOLDER`" in message
    with pytest.raises(StoreError, match="is not whole"):
        ClickHouseExporter.open(StoreConfig(url=other), SpoolConfig(), tmp_path / "spool")
    assert command(capfd, "restore", str(tmp_path / "backup"), "--url", other)[0] == 0
    assert answers(other) == expected
    assert command(capfd, "check", "--url", other)[1]["problems"] == []


def test_two_restores_into_one_store_do_not_meet(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    command(capfd, "backup", str(tmp_path / "backup"), "--url", url)
    (tmp_path / "other").mkdir()
    with Restoring(tmp_path / "other") as first:
        first.begin()
        code, message = command(capfd, "restore", str(tmp_path / "backup"), "--url", f"chdb://{tmp_path}/other")
    assert (code, message.splitlines()[-1]) == (
        1, f"headwatch: error: cannot restore into {tmp_path}/other: another restore into it is at work")


def test_a_backup_of_an_earlier_version_is_restored_and_migrated(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    old = StoreConfig(url=f"chdb://{tmp_path}/old")
    connection = connect(old)
    create_tables(connection, old, upto=1)
    connection.command("INSERT INTO headwatch_rows (time, engine_id) VALUES (now64(9), 'old')")
    connection.close()
    assert command(capfd, "backup", str(tmp_path / "backup"), "--url", old.url)[1]["schema_version"] == 1
    new = f"chdb://{tmp_path}/new"
    assert command(capfd, "restore", str(tmp_path / "backup"), "--url", new)[0] == 0
    assert command(capfd, "status", "--url", new)[1]["version"] == newest()
    connection = connect(StoreConfig(url=new))
    rows = connection.query("SELECT engine_id, code FROM headwatch_rows")
    connection.close()
    assert rows == [{"engine_id": "old", "code": 0}]


def test_what_is_no_whole_backup_is_refused(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folder = tmp_path / "backup"
    command(capfd, "backup", str(folder), "--url", url)
    assert "goes to an empty folder" in command(capfd, "backup", str(folder), "--url", url)[1]
    assert "a backup goes into an empty store" in command(capfd, "restore", str(folder), "--url", url)[1]
    empty = f"chdb://{tmp_path}/empty"
    file = next(folder.glob("headwatch_requests.*"))
    kept = file.read_bytes()
    file.write_bytes(kept[:-1])
    assert "not what was backed up" in command(capfd, "restore", str(folder), "--url", empty)[1]
    file.unlink()
    assert "is missing" in command(capfd, "restore", str(folder), "--url", empty)[1]
    file.write_bytes(kept)
    (folder / "manifest.json").unlink()
    assert "cut short" in command(capfd, "restore", str(folder), "--url", empty)[1]


def test_a_store_whose_migration_was_cut_short_is_migrated_before_it_is_backed_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    connection = connect(config)
    create_tables(connection, config, upto=newest() - 1)
    row = {"version": [newest()], "name": ["x"], "step": ["00_done"], "checksum": [""], "applied_at": [0]}
    connection.insert("headwatch_schema", row, "step")
    connection.close()
    code, message = command(capfd, "backup", str(tmp_path / "backup"), "--url", config.url)
    assert code == 1
    assert "was cut short: `headwatch store migrate` goes on with it" in message
    assert not (tmp_path / "backup").exists()
    assert command(capfd, "migrate", "--url", config.url)[1]["applied"] == [newest()]
    assert command(capfd, "backup", str(tmp_path / "backup"), "--url", config.url)[0] == 0


def test_migrate_says_from_where_to_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    connection = connect(config)
    create_tables(connection, config, upto=1)
    connection.close()
    wanted = {"from": 1, "to": newest(), "applied": list(range(2, newest() + 1))}
    assert command(capfd, "migrate", "--url", config.url) == (0, wanted)
    assert command(capfd, "migrate", "--url", config.url) == (0, {"from": newest(), "to": newest(), "applied": []})


def test_compact_leaves_one_part_for_each_partition(url: str, capfd: pytest.CaptureFixture[str]):
    code, found = command(capfd, "compact", "--url", url)
    assert code == 0
    assert found["tables"], "the store was left with parts to merge, whatever ClickHouse has merged by itself"
    connection = connect(StoreConfig(url=url))
    rows = connection.query(
        "SELECT table FROM system.parts WHERE database = currentDatabase() AND active "
        "GROUP BY table, partition_id HAVING count() > 1"
    )
    connection.close()
    assert rows == []


def test_every_statement_for_a_cluster_is_understood_by_the_engine(tmp_path: Path):
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    statements = list(cluster_ddl(config, "prod", "obs`1"))
    connection = connect(config)
    try:
        for statement in statements:
            assert connection.query(f"EXPLAIN AST {statement}")
    finally:
        connection.close()
    text = "\n".join(statements)
    tables = [line for line in statements if "ENGINE = Distributed" in line]
    assert text.count("Replicated") == len(tables) + 1, "each table, and that of what was applied"
    assert all("ON CLUSTER `prod`" in line for line in statements if not line.startswith("INSERT"))
    assert "non_replicated" not in text
    for step in views():
        assert any(f".{step.view} ON CLUSTER" in line and "_local" in line for line in statements)
    sharded = next(line for line in tables if "headwatch_heads_1m" in line)
    assert sharded.endswith("cityHash64(instance))")


def _alone(statement: str) -> str:
    """Return *statement* of a cluster as one server without Keeper takes it; what is Distributed keeps nothing."""
    statement = re.sub(r" ON CLUSTER `prod`", "", statement)
    statement = re.sub(r"^ENGINE = Distributed\(.*\)$", "ENGINE = Null", statement, flags=re.MULTILINE)
    statement = re.sub(r"Replicated(\w*MergeTree)\('[^']*', '[^']*'(?:, )?", r"\1(", statement)
    return re.sub(r"\breplicated_(deduplication_window = 1000), \w+ = \d+", r"non_replicated_\1", statement)


@pytest.mark.parametrize("version", range(1, newest()))
def test_a_cluster_of_an_earlier_version_is_brought_up_to_date_by_the_same_statements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
):
    """Also the Distributed tables, which readers and writers see."""
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    connection = connect(config)
    columns = (
        "SELECT name, arraySort(groupArray((c.position, c.name, c.type, c.default_expression))) AS columns "
        "FROM system.tables AS t "
        "INNER JOIN system.columns AS c ON c.table = t.name AND c.database = t.database "
        "WHERE t.database = 'obs' AND t.engine != 'MaterializedView' GROUP BY name"
    )
    try:
        with monkeypatch.context() as earlier:
            earlier.setattr("headwatch_exporters.clickhouse.cluster.migrations", lambda: migrations()[:version])
            before = [_alone(statement) for statement in cluster_ddl(config, "prod", "obs")]
        for statement in [*before, *(_alone(statement) for statement in cluster_ddl(config, "prod", "obs"))]:
            connection.command(statement)
        described = {row["name"]: row["columns"] for row in connection.query(columns)}
        local = [name for name in described if name.endswith("_local")]
        assert len(local) > 10
        for name in local:
            assert described[name.removesuffix("_local")] == described[name], name
    finally:
        connection.close()


def test_a_sidecar_does_not_migrate_a_cluster_by_itself(tmp_path: Path):
    """It would change the tables of one server, and not those that hold the rows."""
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    connection = connect(config)
    try:
        create_tables(connection, config, upto=1)
        connection.command("CREATE TABLE otel_metrics_gauge_local AS otel_metrics_gauge")
        with pytest.raises(StoreError, match=r"is a cluster of schema version 1: .*store ddl --cluster NAME.*nothing was"):
            create_tables(connection, config)
        assert version_of(connection) == 1
    finally:
        connection.close()


def test_a_store_made_by_ddl_is_one_that_needs_no_migration(tmp_path: Path):
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    connection = connect(config)
    try:
        for statement in server_ddl(config, "default"):
            connection.command(statement)
        assert create_tables(connection, config) == []
    finally:
        connection.close()


def test_ddl_prints_statements_that_can_be_piped(capfd: pytest.CaptureFixture[str]):
    assert main(["store", "ddl", "--cluster", "prod", "--database", "obs"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("CREATE DATABASE IF NOT EXISTS `obs` ON CLUSTER `prod`;")
    assert out.rstrip().endswith(";")
