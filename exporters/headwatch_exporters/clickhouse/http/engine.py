"""The embedded engine as the endpoint uses it: a handle for each query, results through a pipe, and a way to stop one.

Why a pipe: ``SELECT … INTO OUTFILE '/proc/self/fd/N'`` has chDB itself format the whole answer, in any format and as it comes,
with as much in memory as a pipe holds.  Its streaming API gives one document a block, which is no JSON and no Parquet; its
plain API holds everything.  A reader that is slow slows the query; one that is gone does not end it (chDB 26.9 goes on after
EPIPE), so it has to be killed.

A handle costs 0.2 ms and starts without settings: nothing of one client is ever seen by another.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from headwatch_exporters.clickhouse.http.quoting import literal, parameter
from headwatch_exporters.clickhouse.http.refusal import QueryError, from_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

Progress = dict[str, int]
MARK = "headwatch-endpoint:"
"""Every query of the endpoint has a ``log_comment`` that begins so: how it is found where it has to be killed."""
_KILL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Figures:
    """What a query did."""

    result_rows: int
    result_bytes: int
    read_rows: int
    read_bytes: int
    seconds: float


class Handle:
    """One handle on the engine, for one request.  Errors are :class:`QueryError`."""

    def __init__(self, connection: Any, returned: Callable[[], None]) -> None:
        self._connection = connection
        self._returned = returned

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the handle back."""
        try:
            self._connection.close()
        finally:
            self._returned()

    def ask(self, sql: str, **texts: str) -> bytes:
        """Return what *sql*, one of our own questions, answers as raw text; *texts* are its ``{name:String}``."""
        return self._query(sql, {name: parameter(text) for name, text in texts.items()}).bytes()  # type: ignore[no-any-return]

    def restrict(self, settings: Mapping[str, str]) -> None:
        """Set *settings*, then read only.  Nothing can be set on this handle afterwards."""
        self._query(f"SET {', '.join(f'{name} = {literal(value)}' for name, value in settings.items())}", {})
        self._query("SET readonly = 1", {})

    def run(
        self, sql: str, into: int, formatted: str, parameters: Mapping[str, str],
        progress: Callable[[Progress], None] | None = None,
    ) -> Figures:  # fmt: skip
        """Have *sql* answered into the file descriptor *into*, and return what it did.

        *sql* has no FORMAT and no SETTINGS.  *parameters* are written as ClickHouse takes them over HTTP.
        """
        if progress is not None:
            self._connection.set_progress_callback(progress)
        result = self._query(
            f"{sql} INTO OUTFILE '/proc/self/fd/{into}' TRUNCATE COMPRESSION 'none' FORMAT {formatted}", parameters
        )
        return Figures(
            result.rows_read(),
            result.bytes_read(),
            result.storage_rows_read(),
            result.storage_bytes_read(),
            result.elapsed(),
        )

    def _query(self, sql: str, parameters: Mapping[str, str]) -> Any:
        try:
            return self._connection.query(sql, "TSVRaw", params=dict(parameters))
        except Exception as error:  # RuntimeError and ChdbError of two packages, by version
            raise from_engine(str(error)) from error


class Engine:
    """The store at *path*, which this process has open."""

    def __init__(self, path: str) -> None:
        import chdb  # noqa: PLC0415 - heavy, and only where the endpoint is on

        self._connect = chdb.connect
        self._path = path
        self._changed = threading.Condition()
        self._open = 0
        self._closed = False
        self._killing = threading.Lock()
        self._killed_last = False
        self._killer = self.handle()

    def handle(self) -> Handle:
        """Return a new handle.

        Raises:
            QueryError: The engine is closed, or does not open.
        """
        with self._changed:
            if self._closed:
                raise QueryError("QUERY_WAS_CANCELLED", "the sidecar is stopping")
            try:
                connection = self._connect(self._path)
            except Exception as error:
                raise from_engine(str(error)) from error
            self._open += 1
        return Handle(connection, self._returned)

    def kill(self, mark: str) -> None:
        """Stop queries of which the ``log_comment`` begins with *mark*; those that have not begun yet are not found."""
        with self._killing:
            if not self._killed_last:
                self._killer.ask(f"KILL QUERY WHERE startsWith(Settings['log_comment'], {literal(mark)}) ASYNC")

    def close(self, seconds: float) -> bool:
        """Kill what runs, and give out no further handle; return whether all have come back within *seconds*.

        A handle that is open keeps the store open.
        """
        ends = time.monotonic() + seconds
        with self._changed:
            self._closed = True
        while self._open > 1 and time.monotonic() < ends:
            self.kill(MARK)
            with self._changed:
                self._changed.wait_for(lambda: self._open <= 1, _KILL_SECONDS)
        with self._killing:
            if not self._killed_last:
                self._killed_last = True
                self._killer.close()
        return not self._open

    def _returned(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()


def pipe(wanted_bytes: int) -> tuple[int, int]:
    """Return the reading and the writing end of a pipe that holds *wanted_bytes* where the system allows it."""
    import fcntl  # noqa: PLC0415 - Linux and macOS, as chDB

    reading, writing = os.pipe()
    resize = getattr(fcntl, "F_SETPIPE_SZ", None)
    if resize is not None:
        with suppress(OSError):  # the user's share of pipe memory is used up: 64 KiB do as well
            fcntl.fcntl(writing, resize, wanted_bytes)
    return reading, writing
