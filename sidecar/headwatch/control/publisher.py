"""The sidecar's end of live control: a bound XPUB socket on a thread of its own.

The message goes out when it changes, when a subscriber arrives (XPUB tells), when a time limit passes, and every second
besides: so a worker that starts has it within milliseconds, and one that missed a message within a second.  A subscriber
that does not read loses messages and holds up nobody.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from typing import TYPE_CHECKING

import zmq

from headwatch.errors import CommandError
from headwatch.wire.endpoint import listens

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("headwatch.control")

REPEAT_SECONDS = 1.0
_SOCKET_MESSAGES = 8
"""Held for each subscriber that does not read."""
_SUBSCRIPTION_BYTES = 64
"""Largest message that a subscriber may send: its subscription is one byte."""
_GAP_SECONDS = 0.002
"""At least, between two messages: whoever subscribes in a loop makes five hundred a second at most."""


class Publisher:
    """Publishes what *message* returns, which is called on the publishing thread and tells in how many seconds it changes."""

    def __init__(self, endpoint: str, message: Callable[[], tuple[bytes, float]]) -> None:
        self._endpoint = endpoint
        self._message = message
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headwatch-control", daemon=True)
        self._lock = threading.Lock()
        self._wake_read = self._wake_write = -1
        """A pipe that wakes the thread; -1 while it is not open."""

    def start(self) -> None:
        """Bind and start the thread.

        Raises:
            CommandError: The endpoint is in use or cannot be bound.
        """
        # Opened here: a context that is only collected, with a socket open, waits for ever.
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, _SOCKET_MESSAGES)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _SUBSCRIPTION_BYTES)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of every subscriber, not only of the first
        try:
            if self._endpoint.startswith("ipc://") and listens(self._endpoint):
                raise zmq.ZMQError(zmq.EADDRINUSE)  # noqa: TRY301 - libzmq would take the other's place without a word
            self._socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            self._close()
            raise CommandError(
                f"cannot publish live control on {self._endpoint}: {error.strerror}; is another sidecar running? "
                "(wire.control_endpoint)"
            ) from error
        self._thread.start()

    def wake(self) -> None:
        """Publish now.  Safe from threads."""
        with self._lock, contextlib.suppress(BlockingIOError):  # the pipe is full: it will wake
            if self._wake_write >= 0:
                os.write(self._wake_write, b"!")

    def stop(self) -> None:
        """End the thread and free the endpoint."""
        self._stop.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(5.0)
        if self._wake_read >= 0:
            self._close()

    def _close(self) -> None:
        self._socket.close()
        self._context.term()
        with self._lock:  # a number that is closed may be another file's already
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        while not self._stop.is_set():
            wait = REPEAT_SECONDS
            try:
                payload, until_change = self._message()
                self._socket.send(payload, zmq.NOBLOCK)
                wait = min(wait, until_change)
            except Exception:  # the next message may do better, and a thread that ends would take the off switch with it
                logger.exception("a control message could not be published; the next one goes on")
            for ready, _ in poller.poll(math.ceil(wait * 1000)):
                if ready == self._wake_read:
                    os.read(self._wake_read, 4096)
            while self._socket.poll(0):
                self._socket.recv(zmq.NOBLOCK)
            self._stop.wait(_GAP_SECONDS)
