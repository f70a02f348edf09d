"""A purge: planted identifiers are found everywhere before it and nowhere after it, in files as they lie on the disk."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from headwatch.aggregate.windows import Aggregator
from headwatch.cli.main import main
from headwatch.config import (
    Config,
    DriftConfig,
    HttpConfig,
    PrivacyConfig,
    RequestsConfig,
    SpoolConfig,
    StoreConfig,
    WindowConfig,
    WireConfig,
)
from headwatch.errors import HeadwatchError
from headwatch.findings import DocumentExhibit, RequestExhibit
from headwatch.identifiers import Keyring, Veil
from headwatch.incident.ledger import Ledger
from headwatch.model import Document
from headwatch.pipeline import Sidecar
from headwatch.places import salts_path
from headwatch.purge.run import purge
from headwatch.wire.columns import view
from headwatch_exporters.clickhouse.connection import connect, unconnected
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.spool.spool import Spool

from ..contract.deliveries import empty
from ..unit import frames
from ..unit.incidents import incident
from .disk_search import files_with

if TYPE_CHECKING:
    from headwatch.identifiers import Identifier
    from headwatch.model import RequestContext

pytestmark = pytest.mark.store

PLANTED: dict[Identifier, str] = {
    "user": "zebra-user-77", "tenant": "zebra-tenant-77", "document": "zebra-document-77",
}  # fmt: skip
THEIRS, OTHERS = "engine-of-zebra-77", "engine-of-others-77"


def config(folder: Path, *, hashed: bool) -> Config:
    return Config(
        wire=WireConfig(endpoint=f"ipc://{folder}/frames", control_endpoint=f"ipc://{folder}/control"),
        http=HttpConfig(port=0),
        window=WindowConfig(requests=2),
        store=StoreConfig(url=f"chdb://{folder}/state/store"),
        spool=SpoolConfig(folder=f"{folder}/state/spool"),
        requests=RequestsConfig(log_path=f"{folder}/state/requests.jsonl"),
        privacy=PrivacyConfig(hash=list(PLANTED) if hashed else []),
        drift=DriftConfig(interval_windows=2000),
    )


def request(engine_id: str, *, theirs: bool) -> RequestContext:
    own = "77" if theirs else "1"
    name = PLANTED["document"] if theirs else "kb-1"
    documents = [
        Document(name, source="wiki", version="7", labels={"tenant": f"zebra-tenant-{own}"}),
        Document("kb-2", source="tickets", version="3"),
    ]
    return msgspec.structs.replace(
        frames.context(engine_id), request_id=f"chatcmpl-{engine_id}", user=f"zebra-user-{own}", tenant=f"zebra-tenant-{own}",
        documents=documents,
    )  # fmt: skip


def fill(settings: Config) -> None:
    """Have the sidecar see requests of both, and an incident that shows theirs."""
    sidecar = Sidecar(settings)
    sidecar.start()
    for number, (engine_id, theirs) in enumerate(((THEIRS, True), (OTHERS, False))):
        batch = frames.detailed(3, time_ns=time.time_ns() + number, finished=[engine_id])
        batch = msgspec.structs.replace(batch, requests=[request(engine_id, theirs=theirs)])
        sidecar._consume(batch, view(batch))
    sidecar.tick(everything=True)
    sidecar.stop()
    shown = document_of(settings)
    found = incident(exhibits=msgspec.structs.replace(
        incident().exhibits,
        documents=(DocumentExhibit(shown, "wiki", "7", "", 1, 0.1, 0.9), DocumentExhibit("kb-2", "", "3", "", 1, 0.9, 0.1)),
        requests=(RequestExhibit(f"chatcmpl-{THEIRS}", THEIRS, "", time.time_ns(), "support", "measured", 0.1),),
    ))  # fmt: skip
    with closing(Ledger(_drift(settings) / "incidents.db")) as ledger, ledger.change() as file:
        row = (found.id, "open", "model", "model", found.opened_ns, found.updated_ns, 0, 1, "", msgspec.json.encode(found))
        file.execute("INSERT INTO incident VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        waiting = "INSERT INTO outbox (key, incident, route, kind, page, body) VALUES ('k', ?, 'webhook', 'opened', 1, ?)"
        file.execute(waiting, (row[0], row[-1]))
    with closing(ClickHouseExporter.open(settings.store, settings.spool, _folder(settings) / "spool")) as exporter:
        exporter.export(replace(empty(time.time_ns()), incidents=(found,)))
    on_its_way(settings)


def on_its_way(settings: Config) -> None:
    """Have a request of theirs wait in the spool, and another one there that was set aside."""
    veil = Veil(Keyring(salts_path(settings), 30, 400), frozenset(PLANTED)) if settings.privacy.hash else None
    aggregator = Aggregator(WindowConfig(), veil=veil)
    batch = frames.summary([(10, {"lookback": 0.4}, [0.2] * 5)], request=request(THEIRS, theirs=True), time_ns=time.time_ns())
    aggregator.add(batch, view(batch))
    _, records = aggregator.collect(0, everything=True)
    exporter = ClickHouseExporter(unconnected(settings.store), settings.store)
    made = exporter._record(replace(empty(time.time_ns()), requests=tuple(records)))
    with closing(Spool(_folder(settings) / "spool", 1 << 30)) as spool:
        spool.append(made)
        for one in made.batches:
            spool.set_aside(one, "planted", made.time_ns)


def document_of(settings: Config) -> str:
    """Return how the planted document is stored."""
    if not settings.privacy.hash:
        return PLANTED["document"]
    return Keyring(salts_path(settings), 30, 400).hashed("document", PLANTED["document"])


def words(settings: Config, kind: Identifier) -> list[str]:
    """Return what must not be found any more: the name in every form and, of somebody, their request."""
    forms = Keyring(salts_path(settings), 30, 400).stored(kind, PLANTED[kind]) if settings.privacy.hash else [PLANTED[kind]]
    return [*forms, *([] if kind == "document" else [THEIRS])]


def places(settings: Config, word: str) -> set[str]:
    """Return the kinds of places below the state's folder that hold *word*."""
    return {path.split("/", 1)[0] for path in files_with(_folder(settings), word)}


def _folder(settings: Config) -> Path:
    return Path(settings.store.url.removeprefix("chdb://")).parent


def _drift(settings: Config) -> Path:
    return _folder(settings) / "store.drift"


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("kind", list(PLANTED))
def test_what_was_planted_is_found_before_and_nowhere_after(tmp_path: Path, kind: Identifier, hashed: bool) -> None:
    settings = config(tmp_path, hashed=hashed)
    fill(settings)
    wanted = words(settings, kind)
    before = set().union(*(places(settings, word) for word in wanted))
    assert {"store", "spool", "requests.jsonl"} <= before, "the search finds what is there"
    if kind == "document":
        assert "store.drift" in before
    if hashed:
        assert not places(settings, PLANTED[kind]), "it never was there as it is"
    report = purge(settings, kind, PLANTED[kind], who="ada")
    assert report.left == 0
    assert report.removed["headwatch_documents"] >= 1
    for word in wanted:
        assert files_with(_folder(settings), word) == []
    assert places(settings, OTHERS) >= {"store"}, "others are still there"
    with closing(connect(settings.store)) as connection:
        (audit,) = connection.query("SELECT who, action, what, removed FROM headwatch_audit")
        assert (audit["who"], audit["action"], audit["what"]) == ("ada", "purge", kind)
        assert audit["removed"] == report.removed
        (told,) = connection.query("SELECT state, length(documents.id) AS documents FROM headwatch_incidents FINAL")
        assert told == {"state": "open", "documents": 1 if kind == "document" else 2}
        expected = 2 if kind == "document" else 1
        assert connection.query("SELECT uniqExact(engine_id) AS n FROM headwatch_requests")[0]["n"] == expected
    assert purge(settings, kind, PLANTED[kind]).removed == {}


def test_everything_before_a_moment_goes(tmp_path: Path) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    report = purge(settings, None, before_ns=2_000_000_000 * 10**9)  # the incident was opened in 2027
    assert report.left == 0
    for word in (THEIRS, OTHERS, "kb-2"):
        found = [path for path in files_with(_folder(settings), word) if not path.startswith("store.drift")]
        assert [path for path in found if "/202701_" not in path] == [], "but for the incident, which is open"
    with closing(connect(settings.store)) as connection:
        for table in ("otel_metrics_exp_histogram", "headwatch_requests", "headwatch_heads_1m", "headwatch_heads_1d"):
            assert connection.query(f"SELECT count() AS n FROM {table}")[0]["n"] == 0, table


def test_a_running_sidecar_is_told_of_and_nothing_is_touched(tmp_path: Path) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    sidecar = Sidecar(settings)
    try:
        with pytest.raises(HeadwatchError, match=r"in use|another"):
            purge(settings, "user", PLANTED["user"])
    finally:
        sidecar.start()
        sidecar.stop()
    assert places(settings, THEIRS)


def test_the_command_asks_and_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path, hashed=False)
    fill(settings)
    monkeypatch.setenv("HEADWATCH_STORE_URL", settings.store.url)
    monkeypatch.setenv("HEADWATCH_SPOOL_FOLDER", settings.spool.folder)
    monkeypatch.setenv("HEADWATCH_REQUESTS_LOG_PATH", settings.requests.log_path)
    assert main(["store", "purge", "--user", PLANTED["user"]]) == 1
    assert "say --yes" in capsys.readouterr().err
    assert places(settings, THEIRS)
    assert main(["store", "purge", "--user", PLANTED["user"], "--yes", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["what"], report["left"]) == ("user", 0)
    assert not places(settings, THEIRS)
    assert main(["store", "purge", "--user", "", "--yes"]) != 0
    assert main(["store", "purge", "--before", "yesterday", "--yes"]) != 0
