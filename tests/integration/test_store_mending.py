"""What a kill between a token and its part, or a disk that ran full, leaves in an embedded store is put right."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.config import StoreConfig
from headwatch.errors import BatchRefused, StoreError, StoreUnavailable
from headwatch_exporters.clickhouse.connection import Connection, connect
from headwatch_exporters.clickhouse.schema import create_tables
from headwatch_exporters.clickhouse.upkeep.expired import drop_expired
from headwatch_exporters.clickhouse.writing import guard, inserts
from headwatch_exporters.clickhouse.writing.guard import DiskGuard
from headwatch_exporters.clickhouse.writing.inserts import EmbeddedInserts
from headwatch_exporters.clickhouse.writing.mending import OLD_PARTS_SECONDS
from headwatch_exporters.clickhouse.writing.native import native_blocks
from headwatch_exporters.clickhouse.writing.parts import lost_tokens, tables, torn_parts
from headwatch_exporters.spool.record import BatchWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.store

REMEMBERS = f"SETTINGS non_replicated_deduplication_window = 1000, old_parts_lifetime = {OLD_PARTS_SECONDS}"
TABLES = (
    f"CREATE TABLE base (a UInt64) ENGINE = MergeTree ORDER BY a {REMEMBERS}",
    f"CREATE TABLE sums (n UInt64) ENGINE = SummingMergeTree ORDER BY tuple() {REMEMBERS}",
    "CREATE MATERIALIZED VIEW to_sums TO sums AS SELECT count() AS n FROM base",
)


@pytest.fixture
def config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(url=f"chdb://{tmp_path}/store", min_free_bytes=64 << 20)


@pytest.fixture
def opened(config: StoreConfig) -> Iterator[Connection]:
    connection = connect(config)
    for statement in TABLES:
        connection.command(statement)
    yield connection
    connection.close()


def insert(connection: Connection, *numbers: int) -> None:
    """Each number under a token of its own, which is always the same."""
    for number in numbers:
        connection.insert("base", {"a": [number]}, f"token-{number}")


def counts(connection: Connection) -> tuple[int, int]:
    """Return the rows of the base table, and what the view behind it has counted."""
    (base,), (view,) = (connection.query(sql) for sql in ("SELECT count() AS n FROM base", "SELECT sum(n) AS n FROM sums"))
    return base["n"], view["n"]


def folder(connection: Connection, table: str) -> Path:
    (row,) = connection.query(f"SELECT data_paths[1] AS path FROM system.tables WHERE name = '{table}'")
    return Path(row["path"])


def newest_part(table: Path) -> Path:
    parts = [part for part in table.iterdir() if re.fullmatch(r"all(_\d+){3,4}", part.name)]
    return max(parts, key=lambda part: [int(number) for number in part.name.split("_")[2:]])


def unplace(table: Path) -> None:
    """Have the newest part as a kill leaves it that comes after its token and before it is in place."""
    part = newest_part(table)
    part.rename(part.with_name(f"tmp_insert_{part.name}"))


def empty(part: Path) -> None:
    """Have *part* as chDB writes it on a full disk."""
    for file in part.iterdir():
        os.truncate(file, 0)


def look(watching: DiskGuard) -> None:
    watching.look_at_disk()
    watching.look_at_parts()


@pytest.mark.parametrize("lost", [("base",), ("sums",), ("base", "sums")])
def test_an_insert_that_a_kill_cut_short_is_made_once_more(config: StoreConfig, opened: Connection, lost: tuple[str, ...]):
    insert(opened, 1, 2, 3)
    places = [folder(opened, table) for table in lost]
    opened.close()
    for place in places:
        unplace(place)
    again = connect(config)
    insert(again, 3, 2)
    assert counts(again) == (3, 3)
    again.close()


def test_a_store_that_a_process_has_open_is_left_alone(config: StoreConfig, opened: Connection):
    insert(opened, 1)
    logs = list(Path(opened.folder or "").glob("store/*/*/deduplication_logs/*.txt"))
    before = [log.read_bytes() for log in logs]
    unplace(folder(opened, "base"))
    second = Connection(config.url)
    second._forget_lost()
    assert before
    assert [log.read_bytes() for log in logs] == before


def test_lines_that_were_cut_short_are_taken_away(config: StoreConfig, opened: Connection):
    """ClickHouse reads no line that comes after one."""
    insert(opened, 1)
    place = folder(opened, "base")
    opened.close()
    (log,) = (place / "deduplication_logs").iterdir()
    whole = log.read_bytes()
    log.write_bytes(b"1\tall_9_9_0\tall_77" + whole)
    again = connect(config)
    assert log.read_bytes() == whole
    insert(again, 1)
    assert counts(again) == (1, 1)
    again.close()


def test_a_failed_insert_is_looked_after_in_the_same_process(opened: Connection):
    """As where the disk ends the insert between the token and the part of the view."""
    insert(opened, 1, 2)
    unplace(folder(opened, "sums"))
    writer = BatchWriter("base", ("b",), "another")
    writer.add(1, native_blocks({"b": [1]}, {"b": "UInt64"}))
    with pytest.raises(BatchRefused):
        opened.insert_batch(writer.batch())
    insert(opened, 2, 3)
    assert counts(opened) == (3, 3)
    insert(opened, 1, 2, 3)
    assert counts(opened) == (3, 3)


def test_a_torn_merge_gives_back_what_it_was_made_of(opened: Connection, caplog: pytest.LogCaptureFixture):
    insert(opened, *range(5))
    opened.command("OPTIMIZE TABLE base FINAL")
    merged = newest_part(folder(opened, "base"))
    assert merged.name == "all_1_5_1"
    empty(merged)
    assert torn_parts(opened.beside) == {merged.parent.name: {"all_1_5_1"}}
    assert opened.mend() == 1
    assert counts(opened) == (5, 5)
    assert "['all_1_5_1'] are set aside" in caplog.text
    assert opened.mend() == 0
    insert(opened, *range(6))
    assert counts(opened) == (6, 6)


def cut(part: Path) -> None:
    """Have *part* lack some of its content, with all small files whole."""
    data = part / "data.bin"
    os.truncate(data, data.stat().st_size // 2)


@pytest.mark.parametrize("tear", [empty, cut])
def test_an_insert_that_was_torn_is_not_taken_as_done(
    opened: Connection, monkeypatch: pytest.MonkeyPatch, tear: Callable[[Path], None]
):
    """The disk fills up within the insert, and chDB says nothing."""
    insert(opened, 1)
    place = folder(opened, "base")
    handle = opened._open_inserts()._handle  # type: ignore[attr-defined]

    class Tearing:
        def query(self, sql: str) -> object:
            answer = handle.query(sql)
            if sql.startswith("INSERT"):
                tear(newest_part(place))
            return answer

    monkeypatch.setattr(opened._open_inserts(), "_handle", Tearing())
    with pytest.raises(StoreUnavailable, match="the disk ran full meanwhile"):
        insert(opened, 2)
    monkeypatch.setattr(opened._open_inserts(), "_handle", handle)
    insert(opened, 2)
    assert counts(opened) == (2, 2)


def test_a_store_on_a_disk_that_is_nearly_full_is_not_written_to(opened: Connection, monkeypatch: pytest.MonkeyPatch):
    """Neither by inserts nor by merges, which run on their own."""
    insert(opened, *range(3))
    free = [10 << 20]
    monkeypatch.setattr(guard, "free_bytes", lambda _: free[0])
    monkeypatch.setattr(inserts, "free_bytes", lambda _: free[0])
    assert opened.folder is not None
    watching = DiskGuard(opened.folder, 64 << 20, opened, int)
    look(watching)
    assert watching.low
    with pytest.raises(StoreUnavailable, match=r"nearly full: 10 MiB are free of 64 .* \(store.min_free_bytes\)"):
        insert(opened, 3)
    with pytest.raises(StoreError, match=r"[Cc]ancelled"):
        opened.command("OPTIMIZE TABLE base FINAL")
    free[0] = 70 << 20
    look(watching)
    assert watching.low, "a little more than that is not enough: merges would stop again at once"
    free[0] = 100 << 20
    look(watching)
    assert not watching.low, "and now it is"
    opened.command("OPTIMIZE TABLE base FINAL")
    insert(opened, 3)
    assert counts(opened) == (4, 4)


def test_merges_stay_stopped_in_a_table_that_was_mended(opened: Connection, monkeypatch: pytest.MonkeyPatch):
    insert(opened, *range(3))
    opened.command("OPTIMIZE TABLE base FINAL")
    empty(newest_part(folder(opened, "base")))
    monkeypatch.setattr(guard, "free_bytes", lambda _: 0)
    assert opened.folder is not None
    look(DiskGuard(opened.folder, 64 << 20, opened, int))
    assert counts(opened) == (3, 3)
    with pytest.raises(StoreError, match=r"[Cc]ancelled"):
        opened.command("OPTIMIZE TABLE base FINAL")


def test_the_parts_of_a_changed_table_are_known(config: StoreConfig, opened: Connection):
    """Their names have a number more, also once they were merged, and what they were made of is gone."""
    insert(opened, *range(4))
    opened.command("ALTER TABLE base DELETE WHERE a = 0 SETTINGS mutations_sync = 2")
    insert(opened, 4)
    opened.command("OPTIMIZE TABLE base FINAL")
    place = folder(opened, "base")
    opened.close()
    whole = newest_part(place)
    assert re.fullmatch(r"all_1_6_\d+_5", whole.name), "blocks 1 to 4, the change, and one more"
    for part in place.glob("all_*"):
        if part != whole:
            shutil.rmtree(part)
    assert lost_tokens(place) == set()
    again = connect(config)
    insert(again, *range(5))
    assert counts(again) == (4, 5)
    again.close()


def test_a_part_without_rows_is_whole(opened: Connection):
    """Rows go by their age, or by a purge: what is left of the part is empty, and not torn."""
    insert(opened, 1, 2)
    opened.command("ALTER TABLE base DELETE WHERE 1 SETTINGS mutations_sync = 2")
    place = folder(opened, "base")
    assert any((part / "count.txt").read_text() == "0" for part in place.glob("all_*"))
    assert torn_parts(opened.beside) == {}
    assert opened.mend() == 0
    opened.close()
    assert lost_tokens(place) == set()


def test_rows_reach_their_age_while_merges_are_stopped(config: StoreConfig, opened: Connection):
    """Else a store that has filled its own disk would never have room again, nor when an operator lowers the ages."""
    create_tables(opened, config)
    opened.stop_merges()
    for days in (0, 3, 50):
        opened.command(f"INSERT INTO headwatch_heads_1h (time) SELECT now() - toIntervalDay({days})")
    held = "SELECT count() AS n FROM headwatch_heads_1h"
    assert drop_expired(opened.beside, config) == 0
    lower = msgspec.structs.replace(config, hour_ttl_days=20)
    with pytest.raises(StoreUnavailable, match="merges are stopped"):
        create_tables(opened, lower)
    assert drop_expired(opened.beside, lower) == 1
    assert opened.query(held) == [{"n": 2}]
    assert drop_expired(opened.beside, msgspec.structs.replace(config, hour_ttl_days=1)) == 1
    assert opened.query(held) == [{"n": 1}]
    opened.start_merges()
    create_tables(opened, lower)


def test_ages_are_changed_without_waiting_for_merges(config: StoreConfig, opened: Connection):
    """Who waits for them, and holds the lock of queries, waits for ever once the disk is low."""
    create_tables(opened, config)
    opened.command("INSERT INTO headwatch_heads_1h (time) SELECT now()")
    opened.beside("SYSTEM STOP MERGES")
    changing = threading.Thread(target=create_tables, args=(opened, msgspec.structs.replace(config, hour_ttl_days=20)))
    changing.start()
    changing.join(20.0)
    assert not changing.is_alive()
    (row,) = opened.query("SELECT engine_full FROM system.tables WHERE name = 'headwatch_heads_1h'")
    assert "toIntervalDay(20)" in row["engine_full"]
    opened.beside("SYSTEM START MERGES")


def test_what_was_merged_is_kept_for_longer_than_until_somebody_has_looked(config: StoreConfig, opened: Connection):
    """chDB's own default is not at all."""
    create_tables(opened, config)
    rows = opened.query("SELECT engine_full FROM system.tables WHERE name LIKE 'headwatch_%' AND engine LIKE '%MergeTree'")
    assert rows
    assert all(f"old_parts_lifetime = {OLD_PARTS_SECONDS}" in row["engine_full"] for row in rows)
    assert OLD_PARTS_SECONDS >= 2 * guard._MEND_SECONDS


def test_a_query_that_runs_holds_up_what_is_mended_and_ends_nothing(opened: Connection):
    insert(opened, *range(5))
    opened.command("OPTIMIZE TABLE base FINAL")
    slow = "SELECT a, sleepEachRow(0.4) FROM base SETTINGS max_block_size = 1"
    reading = threading.Thread(target=opened.query, args=(slow,))
    reading.start()
    time.sleep(0.3)
    empty(newest_part(folder(opened, "base")))
    assert opened.mend() == 1
    reading.join()
    insert(opened, *range(6))
    assert counts(opened) == (6, 6)


@pytest.mark.parametrize("word", ["DETACH", "ATTACH"])
def test_what_the_store_refuses_while_it_is_mended_is_made_good_by_the_next_look(opened: Connection, word: str):
    insert(opened, *range(5))
    opened.command("OPTIMIZE TABLE base FINAL")
    opened.command("OPTIMIZE TABLE sums FINAL")
    for table in ("base", "sums"):
        empty(newest_part(folder(opened, table)))
    inserting = opened._open_inserts()
    assert isinstance(inserting, EmbeddedInserts)
    query, refused = inserting.mending._query, []

    def refusing(sql: str) -> str:
        if sql.startswith(word) and len(refused) < 2:
            refused.append(sql)
            raise RuntimeError("Code: 1. DB::Exception: no")
        return query(sql)

    inserting.mending._query = refusing
    with pytest.raises(RuntimeError, match="no"):
        opened.mend()
    while len(refused) < 2:
        with pytest.raises(RuntimeError, match="no"):
            opened.mend()
    assert opened.mend() == 2
    insert(opened, *range(6))
    assert counts(opened) == (6, 6)


def test_tables_are_found_where_chdb_puts_them(opened: Connection):
    assert opened.folder is not None
    assert {table.name for table in tables(opened.folder)} == {folder(opened, name).name for name in ("base", "sums")}
