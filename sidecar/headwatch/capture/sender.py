"""Frames out of the worker, on a thread of their own.

The engine's thread only puts a frame into a bounded queue and never waits: where the queue is full the frame is dropped
and counted.  The thread encodes and sends over ZeroMQ PUSH, which reconnects by itself, so the sidecar may start before,
after or never.  Frames that wait for a sidecar that is away are kept up to the bound, then dropped, newest first.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

import zmq

from headwatch.wire import codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.config import WireConfig
    from headwatch.model import StatusFrame, SummaryBatch

_POLL_SECONDS = 0.2
_SOCKET_FRAMES = 8
"""Frames that ZeroMQ itself may hold for a connected sidecar."""


class Sender:
    """Sends summary frames as they come and a status frame at an interval.  Safe to call from the engine's thread."""

    def __init__(self, config: WireConfig, status: Callable[[], StatusFrame]) -> None:
        self._config = config
        self._status = status
        self._queue: queue.Queue[tuple[Callable[[], SummaryBatch], int]] = queue.Queue(maxsize=config.queue_frames)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-sender", daemon=True)
        self.frames_sent = 0
        self.frames_dropped = 0
        self.rows_sent = 0
        self.rows_dropped = 0
        self.error = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, build: Callable[[], SummaryBatch], rows: int) -> None:
        """Queue a frame, built later on the sending thread, or drop it and count its *rows*.  Never blocks."""
        try:
            self._queue.put_nowait((build, rows))
        except queue.Full:
            self.frames_dropped += 1
            self.rows_dropped += rows

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Send what is queued, as far as the sidecar takes it within *timeout_seconds*, and end the thread."""
        self._stop.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
                socket.setsockopt(zmq.LINGER, 200)
                socket.setsockopt(zmq.SNDHWM, _SOCKET_FRAMES)
                socket.setsockopt(zmq.IMMEDIATE, 1)  # hold nothing for a peer that is not there
                socket.connect(self._config.endpoint)
                self._loop(socket)
        except Exception as error:  # noqa: BLE001 - this thread lives inside vLLM: it ends, and says why
            self.error = f"sender stopped: {type(error).__name__}: {error}"

    def _loop(self, socket: zmq.Socket[bytes]) -> None:
        next_status = 0.0
        pending: tuple[bytes, int] | None = None
        while not (self._stop.is_set() and pending is None and self._queue.empty()):
            if time.monotonic() >= next_status and self._send(socket, codec.encode(self._status())):
                next_status = time.monotonic() + self._config.status_seconds
            if pending is None:
                pending = self._next()
            elif self._send(socket, pending[0]):
                self.frames_sent += 1
                self.rows_sent += pending[1]
                pending = None
            elif self._stop.is_set():
                return

    def _next(self) -> tuple[bytes, int] | None:
        try:
            build, rows = self._queue.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return None
        return codec.encode(build()), rows

    def _send(self, socket: zmq.Socket[bytes], payload: bytes) -> bool:
        if not socket.poll(int(_POLL_SECONDS * 1000), zmq.POLLOUT):
            return False
        try:
            socket.send(payload, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True
