"""A sender that mirrors the one that pages: on a thread of its own, as well as it can.

A mirror may be slow or away without holding up a page.  Its messages wait in memory, are tried :data:`ATTEMPTS` times, then
dropped and counted; a process that is killed loses those that waited.  Only the route is owed every message.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from headwatch.errors import HeadwatchError
from headwatch.health import PagerHealth

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch_exporters.paging.page import Page, Sender

logger = logging.getLogger("headwatch.pager")

QUEUE_JOBS = 100
ATTEMPTS = 5
STOP_SECONDS = 5.0


class Mirror:
    """Runs one sender.  :meth:`send` and :meth:`refresh` never block; a full queue drops its oldest message."""

    def __init__(self, sender: Sender, pause_seconds: float = 1.0) -> None:
        self.name = sender.name
        self.refresh_seconds = sender.refresh_seconds
        self._sender = sender
        self._pause = pause_seconds
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=QUEUE_JOBS)
        self._thread = threading.Thread(target=self._run, name=f"headwatch-mirror-{sender.name}", daemon=True)
        self._stopping = threading.Event()
        self._up = True
        self._sent = self._failed = self._dropped = 0
        self._last_error = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, page: Page) -> None:
        """Queue *page*; where the queue is full the oldest message makes room, and is counted as dropped."""
        self._offer(lambda: self._sender.send(page))

    def refresh(self, pages: list[Page]) -> None:
        """Queue a reminder of what is open; while others wait it is left out, since they speak for themselves."""
        if self._queue.empty():
            self._offer(lambda: self._sender.refresh(pages))

    def stop(self) -> None:
        """Send what is queued while it goes well, for at most :data:`STOP_SECONDS`, and close the sender."""
        self._stopping.set()
        self._offer(None)
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._sender.close()

    def health(self) -> PagerHealth:
        """Return what it has done so far."""
        return PagerHealth(pages=False, up=self._up, sent=self._sent, failed=self._failed, dropped=self._dropped,
                           pending=self._queue.qsize(), opened={}, last_error=self._last_error)

    def _offer(self, job: Callable[[], None] | None) -> None:
        while True:
            try:
                self._queue.put_nowait(job)
            except queue.Full:
                try:
                    self._queue.get_nowait()
                    self._dropped += 1
                except queue.Empty:
                    continue
            else:
                return

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            self._do(job)

    def _do(self, job: Callable[[], None]) -> None:
        pause = self._pause
        for attempt in range(1, ATTEMPTS + 1):
            try:
                job()
            except Exception as error:  # noqa: BLE001 - a sender must not end its thread
                self._note(error)
            else:
                self._sent += 1
                self._up, self._last_error = True, ""
                return
            if attempt == ATTEMPTS or self._stopping.wait(pause):
                break
            pause *= 2
        self._dropped += 1

    def _note(self, error: Exception) -> None:
        self._failed += 1
        self._last_error = f"{type(error).__name__}: {error}"
        if self._up:
            logger.error("mirror %s failed: %s", self.name, self._last_error,
                         exc_info=None if isinstance(error, HeadwatchError) else error)
        self._up = False
