"""How far a purge reaches: what is older than the store's evidence, other services' rows, logs that were moved, any sidecar."""

from __future__ import annotations

import gzip
import shutil
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.cli.main import main
from headwatch.config import DriftConfig, PrivacyConfig, StoreConfig
from headwatch.errors import HeadwatchError
from headwatch.findings import Incident
from headwatch.pipeline import Sidecar
from headwatch.presence import alone
from headwatch.purge.run import purge
from headwatch_exporters.clickhouse.connection import connect
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.upkeep.purge import _keys

from ..clickhouse_http import ClickHouseHttp
from ..contract.deliveries import empty, full
from ..programs import free_port
from .disk_search import files_with
from .planted import PLANTED, THEIRS, config, drift_of, fill, places, showing, state_of, stored_as, words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch.config import Config
    from headwatch.identifiers import Identifier

pytestmark = pytest.mark.store

_TELL_WHOSE = ("headwatch_requests", "headwatch_documents", "headwatch_request_heads", "headwatch_rows")


def age(settings: Config) -> None:
    """Have everything expire that expires with the evidence: what said whose a request was."""
    with closing(connect(settings.store)) as connection:
        for table in _TELL_WHOSE:
            connection.command(f"TRUNCATE TABLE {table} SYNC")
    shutil.rmtree(state_of(settings) / "spool")
    (state_of(settings) / "requests.jsonl").unlink()


@pytest.mark.parametrize("kind", ["user", "tenant"])
def test_history_and_incidents_are_found_when_the_evidence_has_expired(tmp_path: Path, kind: Identifier) -> None:
    settings = config(tmp_path, hashed=True)
    fill(settings)
    age(settings)
    for word in (stored_as(settings, kind), THEIRS):
        held = files_with(drift_of(settings), word)
        assert any(name.startswith("history") for name in held), word
        assert any(name.startswith("incidents") for name in held), word
        assert "store" in places(settings, word)
    report = purge(settings, kind, PLANTED[kind])
    assert report.left == 0
    assert set(report.removed) == {"history", "incidents", "headwatch_incidents"}
    for word in words(settings, kind):
        assert files_with(state_of(settings), word) == []


def test_a_sidecar_without_a_store_is_noticed_and_its_files_are_purged(tmp_path: Path) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    folder, log = drift_of(settings), state_of(settings) / "requests.jsonl"
    shutil.rmtree(state_of(settings) / "store")
    drift = msgspec.structs.replace(settings.drift, folder=str(folder))
    settings = msgspec.structs.replace(settings, store=StoreConfig(enabled=False), drift=drift)
    sidecar = Sidecar(settings)
    sidecar.start()
    try:
        with pytest.raises(HeadwatchError, match="stop the sidecar first"):
            purge(settings, "user", PLANTED["user"])
    finally:
        sidecar.stop()
    assert files_with(folder, THEIRS)
    report = purge(settings, "user", PLANTED["user"])
    assert {"history", "incidents", "log of requests"} <= set(report.removed)
    assert files_with(folder, THEIRS) == []
    assert PLANTED["user"].encode() not in log.read_bytes()
    with alone(settings), pytest.raises(HeadwatchError, match="a purge is at work"):
        Sidecar(settings)


def test_logs_that_were_put_aside_are_purged_whoever_did_it(tmp_path: Path) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    log = state_of(settings) / "requests.jsonl"
    content = log.read_bytes()
    names = ("requests.jsonl.1", "requests.jsonl-20261130", "requests.jsonl.2.gz", "requests.jsonl-20261129.gz")
    for name in names:
        log.with_name(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    log.with_name("requests.jsonl.1.purging").write_bytes(content)  # of a purge that was killed
    report = purge(settings, "user", PLANTED["user"])
    assert report.left == 0
    assert report.removed["log of requests"] == 1 + len(names)
    assert files_with(state_of(settings), THEIRS) == []
    for name in names:
        path = log.with_name(name)
        kept = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        assert kept.count(b"\n") == 1, "the other request's line"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouseHttp]:
    found = ClickHouseHttp(tmp_path / "server", free_port())
    found.listen()
    yield found
    found.close()


def test_a_store_that_several_share_is_purged_for_all_and_the_others_are_named(
    tmp_path: Path, server: ClickHouseHttp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drift = DriftConfig(folder=f"{tmp_path}/drift")
    settings = msgspec.structs.replace(
        config(tmp_path, hashed=False), store=StoreConfig(url=server.url), drift=drift,
        privacy=PrivacyConfig(salts_file=f"{tmp_path}/salts.json"),
    )
    theirs = replace(full(time.time_ns()), service="another-service")
    context = msgspec.structs.replace(theirs.requests[0].context, engine_id=THEIRS, user=PLANTED["user"])
    mine, other = showing(settings, 1), showing(settings, 2)
    with closing(ClickHouseExporter.open(settings.store)) as exporter:
        exporter.export(replace(empty(theirs.time_ns), service=settings.service.name, incidents=(mine,)))
        requests = (replace(theirs.requests[0], context=context), *theirs.requests[1:])
        exporter.export(replace(theirs, requests=requests, incidents=(other,), page_route="alertmanager"))
    report = purge(settings, "user", PLANTED["user"])
    assert report.left == 0
    assert report.removed["headwatch_incidents"] == 2
    assert report.removed["headwatch_requests"] == 1
    assert list(report.others) == ["another-service"]
    assert report.others["another-service"]
    with closing(connect(settings.store)) as connection:
        rows = connection.query("SELECT service, id, page_route, document FROM headwatch_incidents FINAL ORDER BY id")
        assert [(row["service"], row["id"], row["page_route"]) for row in rows] == [
            ("vllm", mine.id, ""), ("another-service", other.id, "alertmanager"),
        ]  # fmt: skip
        for row, before in zip(rows, (mine, other), strict=True):
            assert PLANTED["user"] not in row["document"]
            shown = msgspec.json.decode(row["document"], type=Incident)
            assert shown == msgspec.structs.replace(
                before, exhibits=msgspec.structs.replace(before.exhibits, requests=())
            )
    for name, value in {
        "STORE_URL": server.url, "SPOOL_FOLDER": settings.spool.folder, "DRIFT_FOLDER": drift.folder,
        "PRIVACY_SALTS_FILE": f"{tmp_path}/salts.json",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"HEADWATCH_{name}", value)
    assert main(["store", "purge", "--user", PLANTED["user"], "--yes"]) == 0
    said = capsys.readouterr().out
    assert "nothing was kept of it" in said
    assert f"also in this store: another-service ({report.others['another-service'][0]}); run the purge on the host" in said


def test_what_is_remembered_of_documents_under_a_salt_that_is_gone_goes(tmp_path: Path) -> None:
    settings = config(tmp_path, hashed=True)
    fill(settings)
    book = drift_of(settings) / "documents.json"
    mine, gone = stored_as(settings, "document"), "h:abcdef:" + "0" * 24
    remembered = msgspec.json.decode(book.read_bytes())
    remembered["versions"]["known"][f"wiki\x1f{gone}"] = next(iter(remembered["versions"]["known"].values()))
    book.write_bytes(msgspec.json.encode(remembered))
    assert mine in book.read_text()
    assert purge(settings, "document", PLANTED["document"]).left == 0
    assert mine not in book.read_text()
    assert gone not in book.read_text()
    assert "tickets" in book.read_text(), "others stay"


def test_purges_of_one_store_have_keys_of_their_own_and_old_ones_go(tmp_path: Path, server: ClickHouseHttp) -> None:
    """On a server a young table of keys is another purge's; in an embedded store there is no other."""
    settings = msgspec.structs.replace(config(tmp_path, hashed=False), store=StoreConfig(url=server.url))
    with closing(ClickHouseExporter.open(settings.store)) as exporter:
        connection = exporter.connection
        with _keys(connection, {"ada"}, ()) as mine:
            with _keys(connection, {"bob"}, ()) as theirs:
                assert connection.query(f"SELECT key FROM {theirs}") == [{"key": "bob"}]
            assert connection.query(f"SELECT key FROM {mine}") == [{"key": "ada"}]
        connection.command(f"CREATE TABLE headwatch_purge_keys_{int(time.time()) - 90_000}_0 (key String) ENGINE = Memory")
        with _keys(connection, (), ()):
            pass
    assert left(settings) == []


def test_a_mutation_that_a_killed_purge_left_holds_up_no_other(tmp_path: Path) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    with closing(connect(settings.store)) as connection:
        connection.command("CREATE TABLE headwatch_purge_keys_0 (kind String, key String) ENGINE = Memory")
        connection.command("SYSTEM STOP MERGES headwatch_requests")
        connection.command(
            "ALTER TABLE headwatch_requests DELETE WHERE engine_id IN (SELECT key FROM headwatch_purge_keys_0) "
            "SETTINGS mutations_sync = 0"
        )
    assert left(settings) == ["headwatch_purge_keys_0"]
    assert purge(settings, "user", PLANTED["user"]).left == 0
    assert left(settings) == []
    with closing(connect(settings.store)) as connection:
        assert connection.query("SELECT command FROM system.mutations WHERE NOT is_done") == []


def left(settings: Config) -> list[str]:
    with closing(connect(settings.store)) as connection:
        asked = "SELECT name FROM system.tables WHERE startsWith(name, 'headwatch_purge_keys')"
        return [row["name"] for row in connection.query(asked)]
