"""The sidecar's end of the wire: a bound PULL socket, read on a thread of its own.

Every frame is checked before anything is made of it; a frame that cannot be read is counted by reason and dropped, and
never ends the thread.  Frames wait in a bounded :class:`~headwatch.ingest.backlog.Backlog`; while they wait for long, requests
are left out by the rule of :mod:`headwatch.ingest.thinning`; where even that is not enough, the workers drop, and count.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import zmq

from headwatch.errors import CommandError, WireError
from headwatch.ingest.backlog import Backlog
from headwatch.ingest.thinning import Thinning
from headwatch.model import SummaryBatch, TextFrame
from headwatch.wire import codec, columns
from headwatch.wire.endpoint import listens
from headwatch.wire.texts import checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.config import WireConfig
    from headwatch.ingest.workers import WorkerRegistry
    from headwatch.wire.columns import Columns

logger = logging.getLogger("headwatch.ingest")

_POLL_MILLISECONDS = 100
_STOP_SECONDS = 10.0
_RECEIVE_FRAMES = 8
"""That ZeroMQ holds for each worker beside the backlog."""


class Receiver:
    """Receives frames and hands each summary, with its columns, to *consume* on the receiving thread, each text to *texts*."""

    def __init__(
        self,
        config: WireConfig,
        registry: WorkerRegistry,
        consume: Callable[[SummaryBatch, Columns], None],
        clock_ns: Callable[[], int] = time.time_ns,
        texts: Callable[[TextFrame], None] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        """*texts*: None where none are kept; one that comes all the same is rejected.

        *whole*: nothing is ever thinned, for who needs each row; what there is no room for waits in the worker's queue.
        """
        self._whole = whole
        self._config = config
        self._texts = texts
        self._registry = registry
        self._consume = consume
        self._clock_ns = clock_ns
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-ingest", daemon=True)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._backlog = Backlog(config.backlog_bytes)
        self._thinning = Thinning()
        self.counters: Counter[str] = Counter()

    @property
    def thinning(self) -> int:
        """Return how far requests are thinned at the moment: one in so many is kept."""
        return self._thinning.factor

    def start(self) -> None:
        """Bind and start the thread.

        Raises:
            CommandError: The endpoint is in use or cannot be bound.
        """
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, _RECEIVE_FRAMES)
        self._socket.setsockopt(zmq.MAXMSGSIZE, self._config.max_frame_bytes)
        try:
            _bind(self._socket, self._config.endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            self._context.term()
            raise CommandError(
                f"cannot listen for workers on {self._config.endpoint}: {error.strerror}; is another sidecar running? "
                "(wire.endpoint)"
            ) from error
        self._thread.start()

    def stop(self) -> None:
        """Take what has already arrived, then end the thread and free the endpoint."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():  # a socket belongs to one thread
            logger.error("frames that arrived are not taken in within %.0f s; what waits is lost", _STOP_SECONDS)
            return
        self._socket.close()
        self._context.term()

    def accept(self, payload: bytes | memoryview) -> None:
        """Take one frame's bytes; whatever is wrong with them is counted, not raised."""
        try:
            frame = codec.decode(self._bounded(payload))
            if isinstance(frame, SummaryBatch):
                self._summary(frame)
                self._registry.summary(frame.worker, frame.sequence, self._clock_ns())
                self.counters["frames"] += 1
            elif isinstance(frame, TextFrame):
                self._text(frame)
                self.counters["text_frames"] += 1
            else:
                self._registry.status(frame, self._clock_ns())
                self.counters["status_frames"] += 1
        except WireError as error:
            self._reject(error.reason, error)
        except Exception as error:  # noqa: BLE001 - bytes from outside must not end the thread
            self._reject("unexpected", error)

    def _summary(self, frame: SummaryBatch) -> None:
        """Hand on the rows of *frame* that are kept, and the news of requests that have ended."""
        kept = self._thinning.kept(frame)
        if kept is None:
            self._consume(frame, columns.view(frame))
            return
        rows, standing = kept
        left = len(frame.row_request) // columns.ROW_BYTES - len(rows)
        if rows:
            self._consume(standing, columns.view(standing).taking(rows))
        elif frame.finished:
            empty = columns.without_rows(frame)
            self._consume(empty, columns.view(empty))
        self.counters["thinned_rows"] += left
        self.counters["thinned_head_summaries"] += left * len(frame.layers) * frame.heads

    def _text(self, frame: TextFrame) -> None:
        if self._texts is None:
            raise WireError("text_off", "a text, and text.enabled is off in the sidecar's configuration; nothing of it is kept")
        self._texts(checked(frame))

    def _bounded(self, payload: bytes | memoryview) -> bytes | memoryview:
        if len(payload) > self._config.max_frame_bytes:  # ZeroMQ holds it to the same bound
            raise WireError("too_large", f"frame of {len(payload)} bytes, over wire.max_frame_bytes")
        return payload

    def _reject(self, reason: str, error: Exception) -> None:
        name = f"rejected.{reason}"
        self.counters[name] += 1
        if self.counters[name] == 1:
            logger.warning("frame rejected (%s): %s; further ones are only counted", reason, error)

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            self._take()
            while last and len(self._backlog):
                self.accept(self._backlog.pop().buffer)
            if last:
                return
            if len(self._backlog):
                self.accept(self._backlog.pop().buffer)
            else:
                self._socket.poll(_POLL_MILLISECONDS)

    def _take(self) -> None:
        """Take what has arrived, as far as there is room."""
        while self._backlog.fill < 1.0:
            try:
                self._backlog.append(self._socket.recv(zmq.NOBLOCK, copy=False))
            except zmq.Again:
                break
        if not self._whole:
            self._thinning.adjust(self._backlog.fill)


def _bind(bound: zmq.Socket[bytes], endpoint: str) -> None:
    if endpoint.startswith("ipc://") and listens(endpoint):  # libzmq itself would take the other's place without a word
        raise zmq.ZMQError(zmq.EADDRINUSE)
    bound.bind(endpoint)
