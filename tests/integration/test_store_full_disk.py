"""A disk that runs full under an embedded store ends no sidecar: it spools, says why, and drains once there is room."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import chdb
import pytest

from headwatch.config import StoreConfig
from headwatch.errors import StoreError, StoreUnavailable
from headwatch_exporters.clickhouse.connection import connect
from headwatch_exporters.clickhouse.writing.inserts import BATCH_AT_FAULT, PASSES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.store

DISK = """
    import os, subprocess
    from pathlib import Path
    from headwatch.config import StoreConfig
    from headwatch.errors import StoreUnavailable
    from headwatch_exporters.clickhouse.connection import connect
    from headwatch_exporters.clickhouse.schema import create_tables, newest, version_of
    from tests.integration.test_spool_sidecar import answer, ended, running, wait_for
    from tests.integration.test_store_migrations import KEPT, RUNGS, make, weights
    disk = Path({disk!r})
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)], check=True)
    config = StoreConfig(url=f"chdb://{{disk}}/store", min_free_bytes=64 << 20, **KEPT)
    filler = disk / "filler"
    def fill():
        free = os.statvfs(disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize))
"""


def on_a_small_disk(folder: Path, code: str) -> list[str]:
    """Run *code* with a disk of 300 MiB, and return the lines that it prints."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets no user make a mount namespace")
    text = textwrap.dedent(DISK.format(disk=f"{folder}/disk")) + textwrap.dedent(code)
    done = subprocess.run([*command, sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout.splitlines()


def test_a_sidecar_on_a_full_disk_starts_and_migrates_when_there_is_room(tmp_path: Path):
    lines = on_a_small_disk(tmp_path, f"""
        opened = connect(config)
        make(opened, config, 1)
        opened.close()
        fill()
        with running(Path({str(tmp_path)!r}), config.url) as sidecar:
            print("alive", answer(sidecar, "/healthz").status_code, answer(sidecar, "/metrics").status_code)
            ended(sidecar, "r-1")
            health = lambda: sidecar.health().exporters["clickhouse"]
            wait_for(lambda: not health().up, "an attempt")
            print("ready", answer(sidecar, "/readyz").json()["reasons"])
            print("kept", health().spool.records, health().spool.dropped_batches)
            filler.unlink()
            wait_for(lambda: health().spool.records == 0, "the spool to drain", 120)
            print("then", sidecar.reader.counts()["requests"], health().up)
        opened = connect(config)
        rungs = [opened.query(f"SELECT sum(weight) AS weight FROM {{table}}")[0]["weight"] for table in RUNGS]
        print("version", version_of(opened) == newest(), "weights", len(set(rungs)), rungs[0] > 360)
        opened.close()
    """)  # fmt: skip
    assert "alive 200 200" in lines
    (ready,) = (line for line in lines if line.startswith("ready "))
    assert "the disk is nearly full" in ready
    assert "kept 1 {}" in lines
    assert "then 1 True" in lines
    assert "version True weights 1 True" in lines


def test_a_fill_that_the_disk_ends_is_taken_up_where_it_was(tmp_path: Path):
    """The engine's own error, in the middle of a migration."""
    lines = on_a_small_disk(tmp_path, """
        opened = connect(config)
        make(opened, config, 1)
        steps = []
        def progress(message):
            steps.append(message)
            if message.endswith("20_fill"):
                fill()
        for _ in range(2):
            try:
                create_tables(opened, config, progress)
            except StoreUnavailable as error:
                print("full", error)
        print("steps", sum("20_fill" in step for step in steps), version_of(opened))
        filler.unlink()
        print("applied", create_tables(opened, config) == list(range(2, newest() + 1)), len(weights(opened)))
        opened.close()
        opened = connect(config)
        print("opens", version_of(opened) == newest())
        opened.close()
    """)
    full = [line for line in lines if line.startswith("full ")]
    assert "NOT_ENOUGH_SPACE" in full[0] or "No space left" in full[0], full
    assert "the disk is nearly full" in full[1], "nothing of the schema is touched on a full disk"
    assert "steps 1 1" in lines
    assert "applied True 1" in lines
    assert "opens True" in lines


def test_a_table_that_a_full_disk_left_without_its_definition_is_named(tmp_path: Path):
    """Not the second process that holds the store."""
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    connection = connect(config)
    connection.command("CREATE TABLE headwatch_x (a UInt8) ENGINE = MergeTree ORDER BY a")
    connection.close()
    (definition,) = (tmp_path / "store").glob("store/*/*/headwatch_x.sql")
    definition.write_bytes(b"")
    code = f"""
        from headwatch.config import StoreConfig
        from headwatch_exporters.clickhouse.connection import connect
        connect(StoreConfig(url="chdb://{tmp_path}/store"))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "headwatch_x.sql is empty, as a full disk leaves it" in done.stderr.splitlines()[-1]


def test_what_passes_and_what_does_not(tmp_path: Path):
    connection = connect(StoreConfig(url=f"chdb://{tmp_path}/store"))

    def throw(code: int, words: str) -> None:
        connection.query(f"SELECT throwIf(1, '{words}', toInt16({code})) SETTINGS allow_custom_error_code_in_throwif = 1")

    try:
        for code, words in ((243, "space"), (241, "memory"), (159, "slow"), (210, "peer"), (1001, "No space left on device")):
            with pytest.raises(StoreUnavailable):
                throw(code, words)
        for code in (60, 47, 516, 252):
            with pytest.raises(StoreError) as refused:
                throw(code, "no")
            assert not isinstance(refused.value, StoreUnavailable)
    finally:
        connection.close()


def test_every_code_that_passes_is_one_of_state():
    text = str(chdb.query(f"SELECT DISTINCT errorCodeToName(arrayJoin({sorted(PASSES)})) ORDER BY 1", "TSV"))
    assert text.split() == [
        "ABORTED", "ALL_CONNECTION_TRIES_FAILED", "ALL_REPLICAS_ARE_STALE", "CANNOT_ALLOCATE_MEMORY", "CANNOT_CLOSE_FILE",
        "CANNOT_FSTAT", "CANNOT_FSYNC", "CANNOT_READ_FROM_FILE_DESCRIPTOR", "CANNOT_READ_FROM_SOCKET", "CANNOT_STAT",
        "CANNOT_STATVFS", "CANNOT_TRUNCATE_FILE", "CANNOT_WRITE_TO_FILE", "CANNOT_WRITE_TO_FILE_DESCRIPTOR",
        "CANNOT_WRITE_TO_SOCKET", "DEADLOCK_AVOIDED", "DNS_ERROR", "KEEPER_EXCEPTION", "MEMORY_LIMIT_EXCEEDED", "NETWORK_ERROR",
        "NOT_ENOUGH_SPACE", "NO_FREE_CONNECTION", "NO_ZOOKEEPER", "QUERY_WAS_CANCELLED", "REPLICA_IS_NOT_IN_QUORUM",
        "SHARD_HAS_NO_CONNECTIONS", "SOCKET_TIMEOUT", "SYSTEM_ERROR", "TABLE_IS_READ_ONLY", "TIMEOUT_EXCEEDED",
        "TOO_MANY_SIMULTANEOUS_QUERIES", "TOO_SLOW", "UNKNOWN_STATUS_OF_INSERT", "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE",
    ]  # fmt: skip
    assert not PASSES & BATCH_AT_FAULT
