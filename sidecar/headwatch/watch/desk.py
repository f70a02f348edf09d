"""The watch inside a running sidecar: what it is fed, what it hands on, and the threads that belong to it.

The desk turns what closed and ended into observed windows, has the watch judge them, and says what exporters and the console
may show.  A failure of drift detection (a full disk, say) costs nobody else anything: it is logged once, shown in ``/readyz``,
and with the next window the watch is opened anew and goes on where it last saved, so that no window is judged in half.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from headwatch.canary.collector import Collector
from headwatch.canary.runner import CanaryRunner
from headwatch.drift.observe import Observer
from headwatch.drift.signals import DocumentBook
from headwatch.drift.telemetry import START_NS
from headwatch.errors import CanaryError, HeadwatchError
from headwatch.incident.ledger import FILE_NAME
from headwatch.incident.outbox import Outbox
from headwatch.incident.paint import clean
from headwatch.observed import DRIFT_FEATURES
from headwatch.places import drift_folder
from headwatch.watch.recent import WINDOWS
from headwatch.watch.references import References
from headwatch.watch.watch import Watch
from headwatch_exporters.paging.pager import Pager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from headwatch.canary.compare import Comparison
    from headwatch.config import Config
    from headwatch.findings import (
        BaselineInForce,
        CanaryExhibit,
        DeployEvent,
        DriftStatus,
        FingerprintInForce,
        Incident,
    )
    from headwatch.health import CanaryRuns, Health, PagerHealth
    from headwatch.incident.book import Book, Change
    from headwatch.observed import ObservedWindow
    from headwatch.records import RequestRecord, WindowBatch

logger = logging.getLogger("headwatch.watch")

DOCUMENTS = "documents.json"
FINGERPRINTS = "fingerprints"
_MOST_OPEN = 200
_MOST_TOLD_AGAIN = 200
"""Releases, the latest: well below what the store remembers to have taken (``non_replicated_deduplication_window``)."""
_MOST_RUNS = 1000
_TOLD_AGAIN_NS = 30 * 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class News:
    """What exporters are told, since they were told last."""

    drift: DriftStatus | None
    incidents: tuple[Incident, ...]
    open_incidents: tuple[Incident, ...]
    canaries: tuple[CanaryExhibit, ...]
    deploys: tuple[DeployEvent, ...]
    baselines: tuple[BaselineInForce, ...]
    fingerprints: tuple[FingerprintInForce, ...]
    precision: dict[str, tuple[int, int]]


class Desk:
    """The watch, its observer and its pager.  :meth:`take` is called by one thread, the rest by any."""

    def __init__(self, config: Config, now: Callable[[], int] = time.time_ns) -> None:
        """Open the drift folder and go on where it stands.

        Raises:
            HeadwatchError: A file cannot be opened, or the page's route is not usable.
        """
        self._config = config
        self._folder = drift_folder(config)
        self._now = now
        self.collector = Collector()
        """Takes the rows of canary requests."""
        self.runner = (
            CanaryRunner(config.canary, self.collector, self._folder / FINGERPRINTS, now, on_result=self._canary)
            if config.canary.endpoint else None
        )  # fmt: skip
        self._watch = self._opened()
        self._outbox = Outbox(self._folder / FILE_NAME, now)
        self._pager = Pager(config, self._outbox, self._open_incidents)
        window_ns = int(config.window.seconds * 1e9)
        self._observer = Observer(
            DRIFT_FEATURES, window_ns, self.first_number, requests=config.window.requests, book=_documents(self._folder),
            workers_due_ns=_workers_due_ns(self._watch),
        )  # fmt: skip
        self._lock = threading.Lock()
        self._status: DriftStatus | None = None
        self._canaries: list[CanaryExhibit] = []
        self._told = max((entry.number for entry in self.book.changes(0)), default=0)
        marked = self.book.calendar.deploys_after(0)
        self._deployed = max((number for number, _ in marked), default=0)
        self._deploys = [one for _, one in marked if one.time_ns >= now() - _TOLD_AGAIN_NS][-_MOST_TOLD_AGAIN:]
        """First those that an earlier life may not have told, or that came while no sidecar ran: see :meth:`_changed`."""
        self._references = References()
        self._failure = ""
        self._is_new = True

    @property
    def first_number(self) -> int:
        """Return the number of the first window of this life, where windows close by count."""
        return max(self._watch.engine.window, (self._watch.history.span() or (-1, -1))[1]) + 1

    @property
    def book(self) -> Book:
        """Return the incidents."""
        return self._watch.book

    @property
    def status(self) -> DriftStatus | None:
        """Return where detection stood after the last window; None before the first."""
        return self._status

    @property
    def failure(self) -> str:
        """Return why the last window could not be judged; empty where it was."""
        return self._failure

    def start(self) -> None:
        """Judge the windows that an earlier life kept and did not judge, and start to send pages."""
        self._judge(())
        self._pager.start()
        if self.runner is not None:
            self.runner.start()

    def stop(self) -> None:
        """Try once more to send what is due, and close the files."""
        if self.runner is not None:
            self.runner.stop()
        self._pager.stop()
        self._outbox.close()
        self._watch.close()

    def _canary(self, found: Comparison) -> None:
        """Take a canary run that has ended."""
        with self._lock:
            for run in found.exhibits:
                self._observer.canary(run)
            self._canaries = [*self._canaries, *found.exhibits][-_MOST_RUNS:]

    def pagers(self) -> dict[str, PagerHealth]:
        """Return the state of the senders of pages."""
        return self._pager.health()

    def canary(self) -> CanaryRuns | None:
        """Return what the runner of canaries says of its work; None where none are sent."""
        return self.runner.counts() if self.runner is not None else None

    def take(
        self, windows: Iterable[WindowBatch], requests: Sequence[RequestRecord], health: Health, *, everything: bool = False
    ) -> None:
        """Take what has closed and ended, and judge the windows that are complete."""
        with self._lock:
            for batch in windows:
                self._observer.add_window(batch)
            self._observer.add_requests(requests)
            self._observer.health(health)
            self._mark_deploys()
            released = tuple(self._observer.release(health.time_ns, everything=everything))
        if released:
            self._judge(released)
            self._remember_documents()

    def news(self) -> News:
        """Return what there is to tell, once."""
        with self._lock:
            canaries, self._canaries = tuple(self._canaries), []
            deploys, self._deploys = tuple(self._deploys), []
        try:
            changed, live, precision = self._changed(), tuple(self.book.open_incidents()[:_MOST_OPEN]), self.book.precision()
        except HeadwatchError as error:  # the rest of the delivery goes out, and what changed comes with a later one
            logger.warning("incidents cannot be told of: %s", error)
            changed, live, precision = (), (), {}
        baselines = self._references.baselines(*self._watch.engine.in_force, self._now())
        runs = self.runner.health() if self.runner is not None else None
        fingerprints = self._references.fingerprints(runs.fingerprint if runs is not None else None, self._now())
        return News(self._status, changed, live, canaries, deploys, baselines, fingerprints, precision)

    def _changed(self) -> tuple[Incident, ...]:
        """Return the incidents that changed since the last call; at first what an earlier life may not have told.

        A command may have closed one while no sidecar ran, and a kill kept another from the store; whoever has them already
        takes them once.
        """
        found: dict[str, Incident] = {}
        if self._is_new:
            recent = self.book.resolved_since(self._now() - _TOLD_AGAIN_NS)
            found = {one.id: one for one in (*self.book.open_incidents(), *recent)[:_MOST_OPEN]}
        told = self._told
        for entry in self.book.changes(told):
            told = entry.number
            found[entry.incident] = self.book.get(entry.incident)
        self._told, self._is_new = told, False
        return tuple(found.values())

    def _opened(self) -> Watch:
        return Watch(self._config, self._folder, self._now, self._ask_canary, self._pin_canary)

    def _ask_canary(self) -> bool:
        if self.runner is None or self.runner.health().state == "failing":
            return False
        self.runner.order_run()
        return True

    def _pin_canary(self) -> None:
        if self.runner is None:
            return
        try:
            self.runner.owe_pin()
        except CanaryError as error:
            if error.reason != "invalid":  # it cannot be written down: the window is judged again later
                raise
            logger.warning("canaries are not pinned anew: %s", error)  # the fingerprint is the operator's own file

    def _open_incidents(self) -> Sequence[Incident]:
        return self.book.open_incidents()

    def _mark_deploys(self) -> None:
        try:
            marked = self.book.calendar.deploys_after(self._deployed)
        except HeadwatchError as error:  # they come with a later window
            logger.warning("releases cannot be told of: %s", error)
            return
        for number, deploy in marked:
            self._deployed = number
            self._observer.deploy(deploy)
            self._deploys.append(deploy)

    def _judge(self, windows: Sequence[ObservedWindow]) -> None:
        """Judge what an earlier life, or an earlier failure, left unjudged, and then *windows*."""
        try:
            if self._failure:
                opened = self._opened()  # the book of the old one serves until then: a failure here costs nobody else anything
                self._watch.close()
                self._watch = opened
            for seen in (*self._watch.catch_up(), *map(self._watch.take, windows)):
                self._status = seen.status
                for change in seen.changes:
                    _log(change)
                if seen.changes:
                    self._pager.poke()
        except HeadwatchError as error:
            if str(error) != self._failure:
                logger.error("drift detection cannot go on: %s", error)  # noqa: TRY400 - the line says all
            self._failure = str(error) or type(error).__name__
        except Exception as error:  # the rest of the sidecar goes on, and readiness tells
            failure = f"unexpected {type(error).__name__}; the log has the details"
            if failure != self._failure:
                logger.exception("drift detection cannot go on")
            self._failure = failure
        else:
            self._failure = ""

    def _remember_documents(self) -> None:
        path = self._folder / DOCUMENTS
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(msgspec.json.encode(self._observer.book))
            temporary.replace(path)
        except OSError as error:
            logger.warning("cannot write %s: %s", path, error.strerror)


def _log(change: Change) -> None:
    incident = change.incident
    if change.action == "merged":
        return
    level = logging.WARNING if incident.paged and incident.state == "open" else logging.INFO
    logger.log(level, "incident %s %s: %s/%s, %s", incident.id, change.action, incident.verdict.drift_class,
               incident.verdict.cause, clean(incident.verdict.sentence))  # fmt: skip


def _workers_due_ns(watch: Watch) -> int | None:
    """Return how long after this start workers may stay silent: None where no earlier life has known any.

    Where an incident says already that they are silent they may not: it stays open until they report.
    """
    span = watch.history.span()
    if span is None or not any("capture_up" in window.telemetry for window in watch.history.read(span[1] - WINDOWS, span[1])):
        return None
    silent = any(
        one.name == "capture_up"
        for incident in watch.book.open_incidents() for event in (incident.event, *watch.book.events(incident.id))
        for one in event.evidence
    )  # fmt: skip
    return 0 if silent else START_NS


def _documents(folder: Path) -> DocumentBook:
    """Return what an earlier life knew of documents; a file that cannot be read is begun anew."""
    path = folder / DOCUMENTS
    if not path.exists():
        return DocumentBook()
    try:
        return msgspec.json.decode(path.read_bytes(), type=DocumentBook)
    except (OSError, msgspec.MsgspecError) as error:
        logger.warning("cannot read %s, versions of documents are learned anew: %s", path, error)
        return DocumentBook()
