"""A ClickHouse server by URL for tests: chDB behind the part of ClickHouse's HTTP interface that the driver's client uses."""

from __future__ import annotations

import re
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import chdb

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_INSERT = re.compile(r"\s*INSERT INTO (.+?)\s+FORMAT Native\s*$", re.IGNORECASE | re.DOTALL)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_TRANSPORT = {"query", "database", "default_format", "wait_end_of_query", "client_protocol_version", "session_id", "compress",
              "send_progress_in_http_headers", "http_headers_progress_interval_ms", "enable_http_compression", "buffer_size",
              "query_id"}  # fmt: skip


class ClickHouseHttp:
    """The server; its chDB stays open while nobody listens."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.url = f"http://default:@127.0.0.1:{port}/default"
        self.before_insert: Callable[[], None] = lambda: None
        """May sleep, or raise, which cuts the connection."""
        self.after_insert: Callable[[], None] = lambda: None
        self._connection = chdb.connect(str(folder))
        self._lock = threading.Lock()
        self._listener: ThreadingHTTPServer | None = None

    def listen(self) -> None:
        """Accept connections."""
        self._listener = ThreadingHTTPServer(("127.0.0.1", self.port), partial(_Handler, self.run))
        self._listener.daemon_threads = True
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def refuse(self) -> None:
        """Let nobody connect."""
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None

    def close(self) -> None:
        """End."""
        self.refuse()
        self._connection.close()

    def query(self, sql: str) -> list[tuple[str, ...]]:
        """Return the rows of *sql*, asked beside the interface."""
        with self._lock:
            text = self._connection.query(sql, "TSV").bytes().decode()
        return [tuple(line.split("\t")) for line in text.splitlines()]

    def run(self, arguments: dict[str, str], body: bytes) -> tuple[bytes, str]:
        """Return the answer to a request and its format."""
        sql = arguments.get("query") or body.decode()
        settings = {name for name in arguments if name not in _TRANSPORT and not name.startswith("param_")}
        quoted = {name: arguments[name].replace("'", "''") for name in settings}
        clause = ", ".join(f"{name} = '{value}'" for name, value in quoted.items())
        if found := _INSERT.match(sql):
            self.before_insert()
            with self._lock, TemporaryFile(buffering=0) as file:
                file.write(body)
                source = f"FROM INFILE '/proc/self/fd/{file.fileno()}' COMPRESSION 'none'"
                self._connection.query(f"INSERT INTO {found[1]} {source} SETTINGS {clause} FORMAT Native")
            self.after_insert()
            return b"", ""
        form = found[1] if (found := _FORMAT.search(sql)) else arguments.get("default_format", "TSV")
        parameters = {name.removeprefix("param_"): value for name, value in arguments.items() if name.startswith("param_")}
        with self._lock:
            answer = self._connection.query(_FORMAT.sub("", sql), form, params=parameters).bytes()
        return answer, form if answer else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, run: Callable[[dict[str, str], bytes], tuple[bytes, str]], *arguments: Any) -> None:
        self._run = run
        super().__init__(*arguments)

    def do_GET(self) -> None:  # /ping
        self._answer(200, b"Ok.\n", {})

    def do_POST(self) -> None:
        body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self._whole()
        arguments = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        try:
            if self.headers.get("Content-Encoding") == "zstd":
                body = zstd.decompress(body)
            answer, form = self._run(arguments, body)
        except ConnectionError:
            self.close_connection = True
        except zstd.ZstdError as error:
            self._answer(500, f"Code: 561. {error}".encode(), {"X-ClickHouse-Exception-Code": "561"})
        except RuntimeError as error:
            code = re.search(r"Code: (\d+)", str(error))
            self._answer(500, str(error).encode(), {"X-ClickHouse-Exception-Code": code[1] if code else "1002"})
        else:
            self._answer(200, answer, {"X-ClickHouse-Format": form} if form else {})

    def log_message(self, *_: Any) -> None:
        pass

    def _whole(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> bytes:
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
