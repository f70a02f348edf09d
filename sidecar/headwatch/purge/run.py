"""The purge as a whole: what is on its way first goes into the store, then everything is removed, counted again, and audited.

The sidecar must be stopped: store, spool, history and incidents belong to it while it runs, and whoever else asks is told so.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch.errors import CommandError
from headwatch.identifiers import Keyring
from headwatch.incident.ledger import FILE_NAME as INCIDENTS
from headwatch.places import HISTORY, drift_folder, salts_path, spool_folder
from headwatch.presence import alone
from headwatch.purge.files import (
    purge_documents,
    purge_history,
    purge_incidents,
    purge_request_logs,
    requests_in_logs,
    without_wanted,
)
from headwatch.purge.wanted import Wanted
from headwatch.watch.desk import DOCUMENTS
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.upkeep.purge import IDENTIFYING, others_of, purge_rows, requests_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.config import Config
    from headwatch.identifiers import Identifier
    from headwatch_exporters.spool.record import Batch

DRAIN_SECONDS = 600.0
_POLL_SECONDS = 0.2


class PurgeReport(msgspec.Struct, frozen=True):
    """What a purge did."""

    what: str
    """``user tenant document before``; never whom."""
    removed: dict[str, int]
    """By place: rows of tables, windows, exhibits, lines; places that held nothing are left out."""
    left: int
    """What a second look, after everything, still found."""
    seconds: float
    others: dict[str, list[str]] = {}
    """Services and instances that write to the same store: what their sidecars keep beside it is on their hosts."""


def keyring_of(config: Config) -> Keyring | None:
    """Return the salts of *config*; None where nothing was ever hashed.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = salts_path(config)
    return Keyring(path, config.privacy.rotate_days, 1) if path.exists() else None


def purge(
    config: Config, kind: Identifier | None, value: str = "", before_ns: int = 0, who: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> PurgeReport:
    """Remove everything of the *kind* named *value*, or from before *before_ns* where *kind* is None.

    Raises:
        CommandError: A sidecar runs, the spool does not empty itself, or a file is in use.
        ConfigError: The salts cannot be read.
        HistoryError: The history cannot be rewritten.
        StoreError: The store is in use, cannot be reached, or refuses.
    """
    with alone(config):
        return _purge(config, kind, value, before_ns, who, progress)


def _purge(
    config: Config, kind: Identifier | None, value: str, before_ns: int, who: str, progress: Callable[[str], None]
) -> PurgeReport:
    started = time.monotonic()
    wanted = Wanted(None, before_ns=before_ns) if kind is None else Wanted.of(kind, value, keyring_of(config))
    places = _Places(config)
    exporter = None
    others: dict[str, list[str]] = {}
    if config.store.enabled:
        exporter = ClickHouseExporter.open(config.store, config.spool, spool_folder(config))
    try:
        if exporter is not None:
            progress("what is on its way goes into the store first")
            _drain(exporter)
            if kind is not None:
                wanted = wanted.with_requests(requests_of(exporter.connection, kind, wanted.forms))
        if places.log is not None:
            wanted = wanted.with_requests(requests_in_logs(places.log, wanted))
        removed = _remove(places, exporter, wanted, progress)
        progress("a second look")
        left = sum(_remove(places, exporter, wanted, lambda _: None).values())
        what = kind or "before"
        if exporter is not None:
            now = time.time_ns()
            entry: dict[str, list[object]] = {
                "time": [now], "who": [who], "action": ["purge"], "what": [what], "removed": [removed],
            }  # fmt: skip
            exporter.connection.insert("headwatch_audit", entry, f"purge:{now}")
            others = others_of(exporter.connection, config.service.name)
    except (OSError, sqlite3.Error) as error:
        raise CommandError(f"a file cannot be rewritten, run the purge again: {error}") from error
    finally:
        if exporter is not None:
            exporter.close()
    return PurgeReport(what, removed, left, time.monotonic() - started, others)


class _Places:
    """Where files lie."""

    def __init__(self, config: Config) -> None:
        folder = drift_folder(config)
        self.history, self.incidents, self.documents = folder / HISTORY, folder / INCIDENTS, folder / DOCUMENTS
        path = config.requests.log_path
        self.log = Path(path) if path not in {"", "-"} else None


def _remove(
    places: _Places, exporter: ClickHouseExporter | None, wanted: Wanted, progress: Callable[[str], None]
) -> dict[str, int]:
    """Remove what is wanted from every place, and return how much by place.

    What says whose a request was, rows of requests and lines of the log, goes last: a purge that is cut short is run again.
    """
    progress("incidents, history, documents")
    removed = {
        "incidents": purge_incidents(places.incidents, wanted),
        "history": purge_history(places.history, wanted),
        "documents remembered": purge_documents(places.documents, wanted),
    }
    if exporter is not None:
        progress("the store")
        removed["spool"] = exporter.rewrite_spool(_without_identifiers)
        removed |= purge_rows(
            exporter.connection, wanted.kind, wanted.forms, wanted.engine_ids, wanted.before_ns,
            lambda incident: without_wanted(incident, wanted)[0],
        )  # fmt: skip
    if places.log is not None:
        removed["log of requests"] = purge_request_logs(places.log, wanted)
    return {place: count for place, count in removed.items() if count}


def _without_identifiers(batch: Batch) -> Batch | None:
    """Return *batch*, which the store did not take; None where it may name somebody: nobody can tell any more."""
    return None if batch.table in IDENTIFYING else batch


def _drain(exporter: ClickHouseExporter) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        health = exporter.spool_health()
        if health is None or not health.records:
            return
        if time.monotonic() > deadline:
            raise CommandError(
                f"{health.records} deliveries still wait in the spool ({health.last_error or 'the store is slow'}); a purge "
                "must not leave them behind: run it again once the store takes them"
            )
        with suppress(InterruptedError):
            time.sleep(_POLL_SECONDS)
