"""The sidecar process: ingest → aggregate → exporters, joined here and nowhere else.

Threads: one receives, one seals texts where they are kept, one for each exporter, one serves HTTP, a few run queries of the
ClickHouse endpoint; the main thread closes windows and hands out deliveries.
An exporter that is slow or down holds up nobody: it has a bounded queue, retries, then drops and counts; before the store lies
a spool on disk.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch.aggregate.evidence import EvidenceQueue
from headwatch.aggregate.head_map import load_head_map
from headwatch.aggregate.windows import Aggregator
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.control.controller import Controller
from headwatch.delivery import ExporterThread
from headwatch.errors import CommandError
from headwatch.health import Health, spool_reasons
from headwatch.identifiers import Keyring, Veil
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import SILENT_NS, WorkerRegistry
from headwatch.native.frames import frames
from headwatch.places import control_state_path, salts_path, spool_folder, store_url
from headwatch.presence import Presence
from headwatch.records import Delivery
from headwatch.secret_file import read_secret
from headwatch.text.endpoint import open_to_others
from headwatch.text.keeper import TextKeeper
from headwatch.watch.desk import Desk
from headwatch_exporters.audit_file import AuditFile
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.http.endpoint import ClickHouseEndpoint
from headwatch_exporters.otlp import OtlpExporter
from headwatch_exporters.prometheus import PrometheusExporter
from headwatch_exporters.request_log import RequestLog
from headwatch_exporters.traces import TraceExporter

if TYPE_CHECKING:
    from headwatch.config import Config
    from headwatch.config_file import Loaded
    from headwatch.console.view import IncidentView, Reader
    from headwatch.findings import DriftStatus
    from headwatch.health import WorkerHealth
    from headwatch.model import SummaryBatch, TextFrame
    from headwatch.wire.columns import Columns
    from headwatch_exporters.base import Exporter

logger = logging.getLogger("headwatch.sidecar")

_TICK_SECONDS = 0.5
_QUEUED_DELIVERIES = 4
"""Single rows are handed to the store while it has fewer deliveries waiting: their memory is bounded by that."""
_LATE_PARTS_DAYS = 62
_HEALTH_SECONDS = 5.0
"""A delivery goes out so often at least, so that health is exported also where there is no traffic."""


class Sidecar:
    """Everything that runs in the sidecar process.  Also what the HTTP surface shows (``SidecarView``)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._lock = threading.Lock()
        frames()  # compiled now, where it has to be: the first rows need not wait for it
        self._presence = _presence(config)
        self._unseen = ""
        """Why commands cannot see that a sidecar runs, though files may be kept."""
        self._audit = AuditFile(config.audit) if config.audit.path else None
        secret, token = (
            read_secret(name, path) if path else b""
            for name, path in (
                ("wire.control_secret_file", config.wire.control_secret_file), ("http.token_file", config.http.token_file),
            )
        )  # fmt: skip
        self._texts = _text_keeper(config)
        head_maps = {}
        if config.grounding.head_map:
            head_map = load_head_map(config.grounding.head_map)
            head_maps[head_map.model] = head_map.mask()
        self._evidence = EvidenceQueue(config.evidence) if config.store.enabled else None
        self._desk = Desk(config) if config.drift.enabled else None
        self._veil = _veil(config)
        self._aggregator = Aggregator(
            config.window, head_maps, self._evidence,
            canaries=self._desk.collector if self._desk is not None else None,
            first_number=self._desk.first_number if self._desk is not None else 0,
            veil=self._veil,
        )  # fmt: skip
        self._registry = WorkerRegistry(_watermark_path(config))
        self._prometheus = PrometheusExporter(config.prometheus)
        store = ClickHouseExporter.open(config.store, config.spool, spool_folder(config)) if config.store.enabled else None
        self._reader = store.reader() if store is not None else None
        exporters: list[Exporter] = [self._prometheus]
        if store is not None:
            exporters.append(store)
        if config.otlp.endpoint:
            exporters.append(OtlpExporter(config.otlp))
        if config.otlp.traces_endpoint:
            exporters.append(TraceExporter(config.otlp))
        if config.requests.log_path:
            exporters.append(RequestLog(config.requests))
        self._threads = [
            ExporterThread(exporter, spool=store.spool_health) if exporter is store and store is not None
            else ExporterThread(exporter)
            for exporter in exporters
        ]  # fmt: skip
        self._store_thread = next((thread for thread in self._threads if store is not None and thread.name == store.name), None)
        self._receiver = Receiver(config.wire, self._registry, self._consume,
                                  texts=self._keep_text if self._texts is not None else None)  # fmt: skip
        self._control = Controller(config.wire, secret, control_state_path(config), self._reporting)
        runner = self._desk.runner if self._desk is not None else None
        try:
            self._endpoint = ClickHouseEndpoint.open(config)
        except Exception:
            if store is not None:
                store.close()
            raise
        app = create_app(self, config.http.host, token, runner, self._endpoint)
        self._http = HttpServer(app, config.http.host, config.http.port)
        self._last_delivery = 0.0

    @property
    def reader(self) -> Reader | None:
        """Return what reads the store back, or None where the store is off."""
        return self._reader

    @property
    def control(self) -> Controller:
        """Return live control: what the HTTP surface shows and changes, and what incidents raise."""
        return self._control

    @property
    def incidents(self) -> IncidentView | None:
        """Return the incidents, or None where drift detection is off."""
        return self._desk.book if self._desk is not None else None

    def drift(self) -> DriftStatus | None:
        """Return where drift detection stands; None before the first window, and where it is off."""
        return self._desk.status if self._desk is not None else None

    def start(self) -> None:
        """Open the ports and start the threads.

        Raises:
            CommandError: A port is in use.
        """
        try:
            self._http.start()
            self._receiver.start()
            self._control.start()
        except Exception:
            self._receiver.stop()
            self._http.stop()
            self._close_exporters()
            raise
        if self._texts is not None:
            self._texts.start()
        if self._audit is not None:
            self._audit.begin()
        for thread in self._threads:
            thread.start()
        if self._desk is not None:
            self._desk.start()
        logger.info("workers: %s; http: http://%s:%d; store: %s", self.config.wire.endpoint, self.config.http.host,
                    self._http.port, "on" if self._reader is not None else "off")

    def tick(self, *, everything: bool = False) -> None:
        """Close what is due and hand it to the exporters."""
        now_ns = time.time_ns()
        with self._lock:
            windows, requests = self._aggregator.collect(now_ns, everything=everything)
            ready = everything or self._store_keeps_up()
            rows = self._evidence.take() if self._evidence is not None and ready else ()
        texts = self._texts.take() if self._texts is not None and ready else ()
        due = time.monotonic() - self._last_delivery >= _HEALTH_SECONDS
        if windows or requests or rows or texts or due or everything:
            self._last_delivery = time.monotonic()
            self._show_presence()
            delivery = Delivery(now_ns, self.config.service.name, tuple(windows), tuple(requests), self.health(), rows, texts)
            delivery = self._judged(delivery, everything=everything)
            for thread in self._threads:
                thread.offer(delivery if thread is self._store_thread else replace(delivery, rows=(), texts=()))
        self._registry.save()
        self._control.heard(self._reporting())

    def stop(self) -> None:
        """Take what has arrived, close every window and request, flush the exporters, free the ports."""
        self._control.stop()
        self._receiver.stop()
        if self._texts is not None:
            self._texts.stop()
        self.tick(everything=True)
        self._close_exporters()
        self._http.stop()
        if self._desk is not None:
            self._desk.stop()
        if self._audit is not None:
            self._audit.end()
        if self._presence is not None:
            self._presence.close()

    def _close_exporters(self) -> None:
        """Write what is queued, and close the store: a process that ends with it open may wait for ever."""
        if self._endpoint is not None:
            try:
                self._endpoint.close()
            except Exception:
                logger.exception("the ClickHouse endpoint did not end well")  # what is queued must be written all the same
        for thread in self._threads:
            thread.stop()

    def health(self) -> Health:
        """Return the state of the pair now."""
        with self._lock:
            evidence = self._evidence.counters if self._evidence is not None else {}
            counts = {**self._aggregator.counters, **self._aggregator.canary_counters, **evidence}
        return Health(
            time_ns=time.time_ns(),
            workers=self._registry.health(),
            ingest={**counts, **self._receiver.counters},
            thinning=self._receiver.thinning,
            exporters={thread.name: thread.health() for thread in self._threads},
            pagers=self._desk.pagers() if self._desk is not None else {},
            canary=self._desk.canary() if self._desk is not None else None,
            reads=self._endpoint.counters if self._endpoint is not None else {},
            texts=self._texts.counters if self._texts is not None else {},
        )

    def render_metrics(self, accept: str | None) -> tuple[bytes, str]:
        """Return the Prometheus exposition and its content type."""
        return self._prometheus.render(accept)

    def readiness(self) -> list[str]:
        """Return why the sidecar is not ready; empty where it is."""
        state = self.health()
        reasons = [
            f"exporter {name}: {health.last_error or 'down'}" for name, health in state.exporters.items() if not health.up
        ]
        reasons += [
            reason
            for health in state.exporters.values()
            if health.spool is not None
            for reason in spool_reasons(health.spool, state.time_ns)
        ]
        reasons += [
            f"pages by {name}: {pager.last_error or 'down'}"
            for name, pager in state.pagers.items()
            if pager.pages and not pager.up
        ]
        if not self._registry.health():
            reasons.append("no worker has reported yet")
        elif not self._reporting():
            reasons.append("every worker is silent")
        if self._desk is not None and self._desk.failure:
            reasons.append(f"drift detection: {self._desk.failure}")
        if self._audit is not None and self._audit.failure:
            reasons.append(f"audit: {self._audit.failure}")
        if self._unseen:
            reasons.append(self._unseen)
        return reasons

    def _judged(self, delivery: Delivery, *, everything: bool) -> Delivery:
        """Have the watch take what closed and ended; return *delivery* with what it says."""
        if self._desk is None:
            return delivery
        self._desk.take(delivery.windows, delivery.requests, delivery.health, everything=everything)
        news = self._desk.news()
        return replace(
            delivery, drift=news.drift, incidents=news.incidents, open_incidents=news.open_incidents, canaries=news.canaries,
            deploys=news.deploys, baselines=news.baselines, fingerprints=news.fingerprints, precision=news.precision,
            page_route=self.config.incident.route,
        )  # fmt: skip

    def _show_presence(self) -> None:
        """Hold the lock, where the disk did not let us before."""
        if self._presence is None:
            try:
                self._presence, self._unseen = _presence(self.config), ""
            except CommandError as error:
                self._unseen = str(error)

    def _reporting(self) -> list[WorkerHealth]:
        """Return the workers that are not silent."""
        now_ns = time.time_ns()
        return [worker for worker in self._registry.health() if now_ns - worker.received_ns <= SILENT_NS]

    def _store_keeps_up(self) -> bool:
        """Return whether single rows may go on to the store; until it does they wait in one place."""
        return self._store_thread is not None and self._store_thread.health().queue_batches < _QUEUED_DELIVERIES

    def _consume(self, batch: SummaryBatch, columns: Columns) -> None:
        with self._lock:
            self._aggregator.add(batch, columns)

    def _keep_text(self, frame: TextFrame) -> None:
        if self._texts is None:
            return
        if self._veil is not None:
            with self._lock:  # salts belong to one thread at a time
                frame = msgspec.structs.replace(frame, context=self._veil(frame.context))
        self._texts.offer(frame)


def run_sidecar(loaded: Loaded) -> int:
    """Run the sidecar until SIGTERM or SIGINT; return its exit code.

    Raises:
        CommandError: A port is in use, a purge is at work, or the lock in the drift folder is somebody else's.
        StoreError: The store cannot be opened.
        ConfigError: The head map cannot be read.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    sidecar = Sidecar(loaded.config)
    sidecar.start()
    while not ended.wait(_TICK_SECONDS):
        try:
            sidecar.tick()
        except Exception:
            logger.exception("a tick failed; the next one goes on")
    sidecar.stop()
    return 0


def _text_keeper(config: Config) -> TextKeeper | None:
    """Return what keeps texts; None where none are kept."""
    if not config.text.enabled:
        return None
    if open_to_others(config.wire.endpoint):
        logger.warning("texts cross %s as they are, and another user of this machine could listen there while no sidecar does; "
                       "use ipc:// in a folder that others cannot enter (wire.endpoint)", config.wire.endpoint)
    return TextKeeper(config.text, config.service.name)


def _presence(config: Config) -> Presence | None:
    """Return what says that a sidecar runs; None while nothing can be kept in the drift folder, or where nothing can be locked.

    Raises:
        CommandError: A purge is at work, or the lock is somebody else's.
    """
    try:
        return Presence(config)
    except OSError:
        return None


def _veil(config: Config) -> Veil | None:
    """Return what hashes identifiers; a salt is kept for as long as anything may be that was hashed with it."""
    kinds = config.privacy.hash
    if not kinds:
        return None
    keyring = Keyring(salts_path(config), config.privacy.rotate_days, _longest_days(config))
    keyring.current()  # what cannot be kept is said now, and not when the first request comes
    return Veil(keyring, frozenset(kinds))


def _longest_days(config: Config) -> int:
    """Return the most days for which anything is kept that may hold a hashed identifier.

    A line of the log waits until its file is put aside, and then until that is deleted.  A part of the store goes when its last
    row may: a month of incidents with the one that was resolved last.
    """
    texts = [config.text.rule(route).ttl_days for route in ("", *config.text.routes)]
    store = max(*config.store.ttl_days().values(), *texts) + _LATE_PARTS_DAYS
    return max(store, config.drift.history_days, 2 * config.requests.log_days)


def _watermark_path(config: Config) -> Path | None:
    if not config.store.enabled:
        return None
    url = store_url(config.store)
    if not url.startswith("chdb://"):
        return None
    store = Path(url.removeprefix("chdb://"))
    return store.with_name(store.name + ".ingest.json")
