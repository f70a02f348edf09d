"""Frames out of the worker, on a thread of their own.

The engine's thread only puts a frame into a queue that is bounded in frames and in bytes, and never waits: where the queue
is full the frame is dropped and counted.  The thread encodes and sends over ZeroMQ PUSH, which reconnects by itself, so the
sidecar may start before, after or never.  Frames that wait for a sidecar that is away are kept up to the bounds, then
dropped, newest first.  A frame over ``wire.max_frame_bytes`` is dropped as well: the sidecar would cut the line for it.

Every row that is offered ends as sent or as dropped.  A frame that cannot be built is dropped and counted; a socket that
breaks is said so (:attr:`Sender.error`) and replaced after a pause.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import zmq

from headwatch.wire import codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.config import WireConfig
    from headwatch.model import StatusFrame, SummaryBatch

_POLL_SECONDS = 0.2
_RESTART_SECONDS = 5.0
_SOCKET_FRAMES = 8
"""Frames that ZeroMQ itself may hold for a connected sidecar."""


class Sender:
    """Sends summary frames as they come and a status frame at an interval.  Safe to call from the engine's thread."""

    def __init__(self, config: WireConfig, status: Callable[[], StatusFrame]) -> None:
        self._config = config
        self._status = status
        self._queue: queue.Queue[tuple[Callable[[], SummaryBatch], int, int]] = queue.Queue(maxsize=config.queue_frames)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-sender", daemon=True)
        self._lock = threading.Lock()
        self._queued_bytes = 0
        self.frames_sent = 0
        self.frames_dropped = 0
        self.frames_too_large = 0
        """Dropped because of their size; counted in ``frames_dropped`` as well."""
        self.rows_sent = 0
        self.rows_dropped = 0
        self.errors: Counter[str] = Counter()
        self.error = ""
        """Why nothing can be sent at the moment; empty while all is well."""
        self._pending: tuple[bytes, int] | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, build: Callable[[], SummaryBatch], rows: int, size_bytes: int = 0) -> None:
        """Queue a frame of about *size_bytes*, built later on the sending thread, or drop it and count its *rows*.

        Never blocks.
        """
        if self._stop.is_set():
            self._drop(rows)
            return
        with self._lock:  # held for some additions only, on either thread
            fits = not self._queued_bytes or self._queued_bytes + size_bytes <= self._config.queue_bytes
            self._queued_bytes += size_bytes if fits else 0
        if not fits:
            self._drop(rows)
            return
        try:
            self._queue.put_nowait((build, rows, size_bytes))
        except queue.Full:
            self._release(size_bytes)
            self._drop(rows)

    def stop(self, timeout_seconds: float = 1.0) -> None:
        """Send what is queued, as far as the sidecar takes it within *timeout_seconds*, drop the rest, end the thread."""
        self._stop.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            try:
                with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
                    socket.setsockopt(zmq.LINGER, 200)
                    socket.setsockopt(zmq.SNDHWM, _SOCKET_FRAMES)
                    socket.setsockopt(zmq.IMMEDIATE, 1)  # hold nothing for a peer that is not there
                    socket.connect(self._config.endpoint)
                    self._loop(socket)
            except Exception as error:  # noqa: BLE001 - this thread lives inside vLLM: it says why, and tries again
                self.errors[type(error).__name__] += 1
                self.error = f"sender: {type(error).__name__}: {error}"
            if self._stop.wait(_RESTART_SECONDS if self.error else 0.0):
                break
        self._drop_rest()

    def _loop(self, socket: zmq.Socket[bytes]) -> None:
        next_status = 0.0
        while not (self._stop.is_set() and self._pending is None and self._queue.empty()):
            if time.monotonic() >= next_status and self._send_status(socket):
                next_status = time.monotonic() + self._config.status_seconds
            if self._pending is None:
                self._pending = self._next()
            elif self._send(socket, self._pending[0]):
                self.frames_sent += 1
                self.rows_sent += self._pending[1]
                self._pending = None
            elif self._stop.is_set():
                return

    def _send_status(self, socket: zmq.Socket[bytes]) -> bool:
        """Return whether the status is done with: sent, or not to be had."""
        try:
            payload = codec.encode(self._status())
        except Exception as error:  # noqa: BLE001 - frames go on without it
            self.errors[type(error).__name__] += 1
            return True
        return self._send(socket, payload)

    def _next(self) -> tuple[bytes, int] | None:
        try:
            build, rows, size_bytes = self._queue.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return None
        try:
            payload = codec.encode(build())
        except Exception as error:  # noqa: BLE001 - one bad frame must not end the thread
            self.errors[type(error).__name__] += 1
            self._drop(rows)
            return None
        finally:
            self._release(size_bytes)
        if len(payload) > self._config.max_frame_bytes:
            self.frames_too_large += 1
            self._drop(rows)
            return None
        return payload, rows

    def _drop_rest(self) -> None:
        if self._pending is not None:
            self._drop(self._pending[1])
            self._pending = None
        while True:
            try:
                _, rows, size_bytes = self._queue.get_nowait()
            except queue.Empty:
                return
            self._release(size_bytes)
            self._drop(rows)

    def _drop(self, rows: int) -> None:
        with self._lock:
            self.frames_dropped += 1
            self.rows_dropped += rows

    def _release(self, size_bytes: int) -> None:
        with self._lock:
            self._queued_bytes -= size_bytes

    def _send(self, socket: zmq.Socket[bytes], payload: bytes) -> bool:
        if not socket.poll(int(_POLL_SECONDS * 1000), zmq.POLLOUT):
            return False
        try:
            socket.send(payload, zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.error = ""
        return True
