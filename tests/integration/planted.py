"""A sidecar's state with planted identifiers: in requests, documents, rows, the log, the spool, history and incidents."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch.aggregate.windows import Aggregator
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
from headwatch.findings import DocumentExhibit, Incident, RequestExhibit
from headwatch.identifiers import Keyring, Veil
from headwatch.incident.ledger import Ledger
from headwatch.model import Document
from headwatch.pipeline import Sidecar
from headwatch.places import salts_path
from headwatch.wire.columns import view
from headwatch_exporters.clickhouse.connection import unconnected
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.spool.spool import Spool

from ..contract.deliveries import empty
from ..unit import frames
from ..unit.incidents import incident
from .disk_search import files_with

if TYPE_CHECKING:
    from headwatch.identifiers import Identifier
    from headwatch.model import RequestContext

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
    found = showing(settings)
    with closing(Ledger(drift_of(settings) / "incidents.db")) as ledger, ledger.change() as file:
        row = (found.id, "open", "model", "model", found.opened_ns, found.updated_ns, 0, 1, "", msgspec.json.encode(found))
        file.execute("INSERT INTO incident VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        waiting = "INSERT INTO outbox (key, incident, route, kind, page, body) VALUES ('k', ?, 'webhook', 'opened', 1, ?)"
        file.execute(waiting, (row[0], row[-1]))
    with closing(ClickHouseExporter.open(settings.store, settings.spool, state_of(settings) / "spool")) as exporter:
        exporter.export(replace(empty(time.time_ns()), incidents=(found,)))
    on_its_way(settings)


def showing(settings: Config, number: int = 1) -> Incident:
    """Return an incident that shows their request and their document."""
    user, tenant, document = (stored_as(settings, kind) for kind in PLANTED)
    return incident(number, exhibits=msgspec.structs.replace(
        incident().exhibits,
        documents=(
            DocumentExhibit(document, "wiki", "7", "", 1, 0.1, 0.9, tenant), DocumentExhibit("kb-2", "", "3", "", 1, 0.9, 0.1),
        ),
        requests=(
            RequestExhibit(f"chatcmpl-{THEIRS}", THEIRS, "", time.time_ns(), "support", "measured", 0.1, "", user, tenant),
        ),
    ))  # fmt: skip


def on_its_way(settings: Config) -> None:
    """Have a request of theirs wait in the spool, and another one there that was set aside."""
    veil = Veil(Keyring(salts_path(settings), 30, 400), frozenset(PLANTED)) if settings.privacy.hash else None
    aggregator = Aggregator(WindowConfig(), veil=veil)
    batch = frames.summary([(10, {"lookback": 0.4}, [0.2] * 5)], request=request(THEIRS, theirs=True), time_ns=time.time_ns())
    aggregator.add(batch, view(batch))
    _, records = aggregator.collect(0, everything=True)
    exporter = ClickHouseExporter(unconnected(settings.store), settings.store)
    made = exporter._record(replace(empty(time.time_ns()), requests=tuple(records)))
    with closing(Spool(state_of(settings) / "spool", 1 << 30)) as spool:
        spool.append(made)
        for one in made.batches:
            spool.set_aside(one, "planted", made.time_ns)


def stored_as(settings: Config, kind: Identifier) -> str:
    """Return how the planted identifier of this kind is stored."""
    if not settings.privacy.hash:
        return PLANTED[kind]
    return Keyring(salts_path(settings), 30, 400).hashed(kind, PLANTED[kind])


def words(settings: Config, kind: Identifier) -> list[str]:
    """Return what must not be found any more: the name in every form and, of somebody, their request."""
    forms = Keyring(salts_path(settings), 30, 400).stored(kind, PLANTED[kind]) if settings.privacy.hash else [PLANTED[kind]]
    return [*forms, *([] if kind == "document" else [THEIRS])]


def places(settings: Config, word: str) -> set[str]:
    """Return the kinds of places below the state's folder that hold *word*."""
    return {path.split("/", 1)[0] for path in files_with(state_of(settings), word)}


def state_of(settings: Config) -> Path:
    """Return the folder that everything is below."""
    return Path(settings.store.url.removeprefix("chdb://")).parent


def drift_of(settings: Config) -> Path:
    """Return the folder of history and incidents."""
    return state_of(settings) / "store.drift"
