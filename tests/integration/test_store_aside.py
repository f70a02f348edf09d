"""``headwatch store aside``: what the store refused is said with the reason, taken once the cause is gone, or dropped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from headwatch.cli.main import main
from headwatch.config import StoreConfig
from headwatch_exporters.clickhouse.connection import connect
from headwatch_exporters.clickhouse.schema import create_tables
from headwatch_exporters.clickhouse.writing.native import native_blocks
from headwatch_exporters.spool.record import Batch, BatchWriter, Record
from headwatch_exporters.spool.sender import Sender
from headwatch_exporters.spool.spool import Spool

from ..programs import wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.store

NOW_NS = 1_800_000_000 * 10**9


def batch(column: str, engine: str) -> Batch:
    """Return a batch of one row of single rows, with a column that the table may not have."""
    columns: dict[str, Any] = {"time": [NOW_NS], "engine_id": [engine], column: ["x"]}
    writer = BatchWriter("headwatch_rows", tuple(columns), engine)
    writer.add(1, native_blocks(columns, {"time": "DateTime64(9)", "engine_id": "String", column: "String"}))
    return writer.batch()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return a store in front of which two batches and some bytes were set aside, for different reasons."""
    config = StoreConfig(url=f"chdb://{tmp_path}/store")
    connection = connect(config)
    create_tables(connection, config)
    spool = Spool(tmp_path / "store.spool", 64 << 20)
    spool.append(Record(NOW_NS, (batch("mood", "a"), batch("weather", "b"))))
    spool.aside.unreadable(b"?" * 9, "no record begins here", 0)
    sender = Sender(spool, connection.insert_batch)
    sender.start()
    wait_for(lambda: spool.aside.batches == 3 and not spool.waiting, "both to be refused", 30)
    sender.stop(1.0)
    spool.close()
    connection.close()
    return config.url


def command(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capfd.readouterr()
    code = main(["store", *words, "--json"])
    out = capfd.readouterr()
    return code, json.loads(out.out) if out.out else out.err


def mended(url: str) -> None:
    """Have the table take one of the two."""
    connection = connect(StoreConfig(url=url))
    connection.command("ALTER TABLE headwatch_rows ADD COLUMN mood String")
    connection.close()


def engines(url: str) -> list[str]:
    connection = connect(StoreConfig(url=url))
    try:
        return [row["engine_id"] for row in connection.query("SELECT engine_id FROM headwatch_rows ORDER BY engine_id")]
    finally:
        connection.close()


def test_it_is_listed_with_its_reasons_and_status_counts_it(url: str, capfd: pytest.CaptureFixture[str]):
    code, found = command(capfd, "aside", "--url", url)
    assert code == 0
    told = {(entry["table"], entry["rows"]): entry["reason"] for entry in found["left"]}
    assert told["", 0] == "no record begins here"
    reasons = [entry["reason"] for entry in found["left"] if entry["table"]]
    assert len(reasons) == 2
    assert any("mood" in reason for reason in reasons)
    assert any("weather" in reason for reason in reasons)
    assert command(capfd, "status", "--url", url)[1]["set_aside"] == 3
    assert main(["store", "status", "--url", url]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "set aside in front of the store: 3 (`headwatch store aside` says why)"
    assert main(["store", "aside", "--url", url]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert sum("1 rows of headwatch_rows of 2027-01-15 08:00: insert into headwatch_rows" in line for line in lines) == 2
    assert sum(line.endswith("9 bytes that nobody can read: no record begins here") for line in lines) == 1


def test_what_the_store_takes_by_now_goes_and_the_rest_stays(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    mended(url)
    before = {path.name for path in (tmp_path / "store.spool" / "poison").iterdir()}
    code, done = command(capfd, "aside", "--retry", "--url", url)
    assert code == 1, "one of them is refused still"
    assert len(done["taken"]) == 1
    assert [entry["table"] for entry in done["left"]] == ["", "headwatch_rows"]
    assert "weather" in done["left"][1]["reason"]
    assert engines(url) == ["a"]
    after = {path.name for path in (tmp_path / "store.spool" / "poison").iterdir()}
    assert {name.split(".")[0] for name in before - after} == set(done["taken"])
    assert command(capfd, "aside", "--retry", "--url", url)[0] == 1
    assert engines(url) == ["a"], "once"


def test_one_that_is_named_is_dropped_for_good(url: str, capfd: pytest.CaptureFixture[str]):
    left = command(capfd, "aside", "--url", url)[1]["left"]
    name = next(entry["name"] for entry in left if "weather" in entry["reason"])
    code, done = command(capfd, "aside", name, "--drop", "--url", url)
    assert (code, done["dropped"]) == (0, [name])
    mended(url)
    names = [entry["name"] for entry in left if entry["table"]]
    assert command(capfd, "aside", "--retry", "--url", url)[1]["taken"] == [one for one in names if one != name]
    assert command(capfd, "aside", "--drop", "--url", url)[1]["left"] == []
    assert command(capfd, "aside", "--retry", "--url", url) == (0, {"taken": [], "dropped": [], "left": []})
    assert "nothing of that name was set aside" in command(capfd, "aside", name, "--url", url)[1]
    assert engines(url) == ["a"]


def test_a_spool_in_use_is_left_alone(url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    spool = Spool(tmp_path / "store.spool", 64 << 20)
    try:
        assert command(capfd, "aside", "--url", url)[0] == 0, "a look is no harm"
        code, message = command(capfd, "aside", "--drop", "--url", url)
    finally:
        spool.close()
    assert (code, message.splitlines()[-1]) == (
        1, f"headwatch: error: the spool {tmp_path}/store.spool is in use: stop the sidecar first")
