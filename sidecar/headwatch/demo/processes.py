"""The demo's two servers as processes: started with a log file each, watched, and always ended.

A server runs below :mod:`headwatch.demo.guard`, in a session of its own, so that Ctrl-C reaches the demo alone and the
demo ends the servers in the order that it wants.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_GUARD = Path(__file__).with_name("guard.py")
_LOG_LINES = 20
_POLL_SECONDS = 0.25


class Server:
    """One server process and its log.  A context manager: leaving it ends the server."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environ: Mapping[str, str], *, grace_seconds: float = 15.0
    ) -> None:
        self.name = name
        self.log = log
        self._grace_seconds = grace_seconds
        guard = [sys.executable, "-I", str(_GUARD), str(os.getpid()), str(grace_seconds)]
        with log.open("ab") as stream:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*guard, *command], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=dict(environ),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the id of the guard."""
        return self._process.pid

    def check(self) -> None:
        """Return if the server is alive.

        Raises:
            CommandError: It has ended; the message ends with the last lines of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise CommandError(f"{self.name} ended with exit code {code}; the end of {self.log}:\n{tail(self.log)}")

    def wait_until_healthy(
        self, url: str, timeout_seconds: float, check_others: Callable[[], None] = lambda: None
    ) -> None:
        """Return as soon as ``GET url`` is answered by 200; *check_others* is called while waiting and may raise.

        Raises:
            CommandError: The server ended, or did not answer in *timeout_seconds*.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            self.check()
            check_others()
            try:
                if httpx.get(url, timeout=2.0, trust_env=False).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_SECONDS)
        raise CommandError(f"{self.name} did not answer at {url} within {timeout_seconds:.0f} s; the end of "
                           f"{self.log}:\n{tail(self.log)}")

    def stop(self) -> None:
        """End the server and everything that it started; returns when all of it is gone."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(self._grace_seconds + 10.0)
        except subprocess.TimeoutExpired:  # the guard itself is stuck: its command dies with it
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def tail(log: Path, lines: int = _LOG_LINES) -> str:
    """Return the last *lines* of the file *log*; empty where there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def free_ports(count: int) -> list[int]:
    """Return *count* TCP ports of loopback that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()
