"""A child process of a benchmark, and the socket to it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec
import zmq

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

Answer = TypeVar("Answer")
ANSWER_SECONDS = 600.0
_POLL_MILLISECONDS = 500
_WAITING_MESSAGES = 64
"""Messages that may wait for the child; the next one waits for a place: nothing is lost, and memory is bounded."""


class Child:
    """Runs ``python -m MODULE ENDPOINT ARGUMENTS…``.  A context manager: leaving it ends the process."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = module.rpartition(".")[2]
        self._folder = tempfile.TemporaryDirectory(prefix="headwatch-bench-")
        endpoint = f"ipc://{Path(self._folder.name) / 'child'}"
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, _WAITING_MESSAGES)
        self._socket.connect(endpoint)
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", module, endpoint, *arguments], stdin=subprocess.DEVNULL, stdout=sys.stderr
        )

    def tell(self, message: msgspec.Struct, tensors: Sequence[bytes] = ()) -> None:
        """Send *message*, and *tensors* behind it."""
        parts = [msgspec.json.encode(message), *tensors]
        while True:
            if self._socket.poll(_POLL_MILLISECONDS, zmq.POLLOUT):
                self._socket.send_multipart(parts)
                return
            self._check()

    def ask(self, message: msgspec.Struct, kind: type[Answer]) -> Answer:
        """Send *message* and return the answer.

        Raises:
            CommandError: The process has ended, or does not answer.
        """
        self.tell(message)
        for _ in range(int(ANSWER_SECONDS * 1000 / _POLL_MILLISECONDS)):
            if self._socket.poll(_POLL_MILLISECONDS):
                return msgspec.json.decode(self._socket.recv(), type=kind)
            self._check()
        raise CommandError(f"{self._name} did not answer within {ANSWER_SECONDS:.0f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            if self._socket.poll(_POLL_MILLISECONDS, zmq.POLLOUT):
                self._socket.send(b"")
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket.close()
        self._context.term()
        self._folder.cleanup()

    def _check(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise CommandError(f"{self._name} ended with exit code {code}; its message stands above")
