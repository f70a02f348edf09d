"""One exporter on a thread of its own: a bounded queue, retries with back-off, then drop and count."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING

from headwatch.errors import HeadwatchError
from headwatch.health import ExporterHealth

if TYPE_CHECKING:
    from headwatch.records import Delivery
    from headwatch_exporters.base import Exporter

logger = logging.getLogger("headwatch.export")

QUEUE_DELIVERIES = 64
ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.5
STOP_SECONDS = 10.0


class ExporterThread:
    """Runs one exporter.  :meth:`offer` never blocks; a full queue drops its oldest delivery."""

    def __init__(self, exporter: Exporter, first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self.name = exporter.name
        self._exporter = exporter
        self._pause = first_pause_seconds
        self._queue: queue.Queue[Delivery | None] = queue.Queue(maxsize=QUEUE_DELIVERIES)
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
        while True:
            try:
                self._queue.put_nowait(delivery)
            except queue.Full:
                try:
                    self._queue.get_nowait()
                    self._dropped += 1
                except queue.Empty:
                    continue
            else:
                return

    def stop(self) -> None:
        """Deliver what is queued, for at most :data:`STOP_SECONDS`, and close the exporter."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            logger.error("%s did not finish in %.0f s; %d deliveries are lost", self.name, STOP_SECONDS,
                         self._queue.qsize())
            return
        self._exporter.close()

    def health(self) -> ExporterHealth:
        """Return what the exporter has done so far."""
        return ExporterHealth(
            up=self._up,
            exported_batches=self._batches,
            exported_points=self._points,
            dropped_batches=self._dropped,
            errors=self._errors,
            last_error=self._last_error,
            last_duration_seconds=self._duration_seconds,
            queue_batches=self._queue.qsize(),
        )

    def _run(self) -> None:
        while (delivery := self._queue.get()) is not None:
            self._deliver(delivery)

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
        self._dropped += 1

    def _failed(self, error: Exception) -> None:
        self._errors += 1
        self._last_error = f"{type(error).__name__}: {error}"
        if self._up:
            logger.error("%s failed: %s", self.name, self._last_error,
                         exc_info=None if isinstance(error, HeadwatchError) else error)
        self._up = False
