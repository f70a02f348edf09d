"""A receiver and a collector of canaries where no sidecar runs: how CI holds a release candidate against production.

It binds the configured wire endpoint, takes what the worker sends, and keeps nothing but canaries.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from headwatch.aggregate.windows import Aggregator
from headwatch.canary.collector import Collector
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry

if TYPE_CHECKING:
    from headwatch.config import Config
    from headwatch.model import SummaryBatch
    from headwatch.wire.columns import Columns

_TICK_SECONDS = 0.25


class StandAlone:
    """The receiver, while the block lasts."""

    def __init__(self, config: Config) -> None:
        self.collector = Collector()
        self._aggregator = Aggregator(config.window, canaries=self.collector)
        self._lock = threading.Lock()
        self._registry = WorkerRegistry()
        self._receiver = Receiver(config.wire, self._registry, self._consume)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="headwatch-stand-alone", daemon=True)

    def __enter__(self) -> Self:
        """Bind and start.

        Raises:
            CommandError: The endpoint is in use: a sidecar runs.
        """
        self._receiver.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._receiver.stop()

    @property
    def workers(self) -> int:
        """Return how many workers have reported so far."""
        return len(self._registry.health())

    def _consume(self, batch: SummaryBatch, columns: Columns) -> None:
        with self._lock:
            self._aggregator.add(batch, columns)

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            with self._lock:
                self._aggregator.collect(time.time_ns())
