"""The HTTP server of the sidecar: uvicorn on a thread of its own."""

from __future__ import annotations

import errno
import socket
import threading
import time
from typing import TYPE_CHECKING

import uvicorn

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from starlette.applications import Starlette

_START_SECONDS = 10.0
_CONCURRENCY = 256
"""Connections.  Those of the ClickHouse endpoint are limited by itself, to fewer: the rest is for /healthz and its like."""


class HttpServer:
    """Serves *app* on *host*:*port* (0: any free one, see :attr:`port` after :meth:`start`)."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        self.host = host
        self.port = port
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, lifespan="off", ws="none",
            limit_concurrency=_CONCURRENCY, timeout_keep_alive=5, timeout_graceful_shutdown=2, server_header=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind and serve.

        Raises:
            CommandError: The address is in use or cannot be bound.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self.host, self.port))
            bound.listen(128)
        except OSError as error:
            bound.close()
            hint = "; is another sidecar running?" if error.errno == errno.EADDRINUSE else ""
            raise CommandError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror}{hint} (http.host, http.port)"
            ) from error
        self.port = bound.getsockname()[1]
        self._socket = bound
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="headwatch-http", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                self.stop()
                raise CommandError(f"the HTTP server did not start within {_START_SECONDS:.0f} s")
            time.sleep(0.01)

    def stop(self) -> None:
        """Let open requests end, for at most two seconds, and free the port.  Does nothing where it was not started."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(5.0)
        if self._socket is not None:
            self._socket.close()
