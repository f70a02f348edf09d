"""One exporter on a thread of its own: a bounded queue, retries with back-off, then drop and count.

What is dropped is measurements: the next window measures again.  What was *found* is told once (an incident that changed, a
canary run, a release, a baseline in force), and somebody may page on it in the store.  So a delivery that is dropped hands that
on to the next.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from headwatch.errors import HeadwatchError
from headwatch.health import ExporterHealth

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.health import SpoolHealth
    from headwatch.records import Delivery
    from headwatch_exporters.base import Exporter

logger = logging.getLogger("headwatch.export")

QUEUE_DELIVERIES = 64
ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.5
STOP_SECONDS = 10.0
MAX_CARRIED = 1000
"""What dropped deliveries found and waits for the next one, so many of each kind; the oldest go."""


class ExporterThread:
    """Runs one exporter.  :meth:`offer` never blocks; a full queue drops its oldest delivery."""

    def __init__(
        self,
        exporter: Exporter,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        spool: Callable[[], SpoolHealth | None] = lambda: None,
    ) -> None:
        """*spool* says where the spool of *exporter* stands, where it has one: what is exported then is on its way only."""
        self.name = exporter.name
        self._exporter = exporter
        self._spool = spool
        self._pause = first_pause_seconds
        self._queue: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._lost: Delivery | None = None
        """What was given up after the last attempt, until the next one takes over what it found."""
        self._thread = threading.Thread(target=self._run, name=f"headwatch-{exporter.name}", daemon=True)
        self._stopping = threading.Event()
        self._up = True
        self._batches = 0
        self._points = 0
        self._dropped = 0
        self._errors = 0
        self._last_error = ""
        self._duration_seconds = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, delivery: Delivery) -> None:
        """Queue *delivery*; where the queue is full the oldest one makes room, and is counted as dropped."""
        with self._changed:
            if len(self._queue) == QUEUE_DELIVERIES:
                oldest = self._queue.popleft()
                self._queue[0] = _carrying(oldest, self._queue[0])
                self._dropped += 1
            self._queue.append(delivery)
            self._changed.notify_all()

    def stop(self) -> None:
        """Deliver what is queued, for at most :data:`STOP_SECONDS`, and close the exporter."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.ident is not None:  # it was started
            self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            logger.error("%s did not finish in %.0f s; %d deliveries are lost", self.name, STOP_SECONDS, len(self._queue))
            return
        self._exporter.close()

    def health(self) -> ExporterHealth:
        """Return what the exporter has done so far; of one with a spool, what has arrived."""
        spool = self._spool()
        if spool is not None:
            return ExporterHealth(
                up=self._up and spool.up,
                exported_batches=spool.sent_records,
                exported_points=spool.sent_rows,
                dropped_batches=self._dropped,
                errors=self._errors + spool.send_errors,
                last_error=self._last_error or spool.last_error,
                last_duration_seconds=spool.last_duration_seconds,
                queue_batches=len(self._queue),
                spool=spool,
            )
        return ExporterHealth(
            up=self._up,
            exported_batches=self._batches,
            exported_points=self._points,
            dropped_batches=self._dropped,
            errors=self._errors,
            last_error=self._last_error,
            last_duration_seconds=self._duration_seconds,
            queue_batches=len(self._queue),
        )

    def _run(self) -> None:
        while (delivery := self._next()) is not None:
            self._deliver(delivery)

    def _next(self) -> Delivery | None:
        """Return the oldest delivery, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping.is_set())
            if not self._queue:
                return None
            delivery = self._queue.popleft()
        if self._lost is not None:  # it is older than everything that was ever queued behind it
            delivery, self._lost = _carrying(self._lost, delivery), None
        return delivery

    def _deliver(self, delivery: Delivery) -> None:
        pause = self._pause
        for attempt in range(1, ATTEMPTS + 1):
            started = time.monotonic()
            try:
                self._points += self._exporter.export(delivery)
            except Exception as error:  # noqa: BLE001 - an exporter must not end its thread
                self._failed(error)
            else:
                self._duration_seconds = time.monotonic() - started
                self._batches += 1
                if not self._up:
                    logger.warning("%s is back", self.name)
                self._up, self._last_error = True, ""
                return
            if attempt == ATTEMPTS or self._stopping.wait(pause):  # a sidecar that is told to end does not wait for a peer
                break
            pause *= 2
        self._lost = replace(delivery, windows=(), requests=(), rows=(), texts=())
        with self._changed:
            self._dropped += 1

    def _failed(self, error: Exception) -> None:
        self._errors += 1
        self._last_error = f"{type(error).__name__}: {error}"
        if self._up:
            logger.error("%s failed: %s", self.name, self._last_error,
                         exc_info=None if isinstance(error, HeadwatchError) else error)
        self._up = False


def _carrying(lost: Delivery, delivery: Delivery) -> Delivery:
    """Return *delivery*, which is later, with what *lost* found; of an incident in both, as it was later."""
    newer = {incident.id for incident in delivery.incidents}
    incidents = (*(incident for incident in lost.incidents if incident.id not in newer), *delivery.incidents)
    return replace(
        delivery,
        incidents=incidents[-MAX_CARRIED:],
        canaries=(*lost.canaries, *delivery.canaries)[-MAX_CARRIED:],
        deploys=(*lost.deploys, *delivery.deploys)[-MAX_CARRIED:],
        baselines=(*lost.baselines, *delivery.baselines)[-MAX_CARRIED:],
        fingerprints=(*lost.fingerprints, *delivery.fingerprints)[-MAX_CARRIED:],
    )
