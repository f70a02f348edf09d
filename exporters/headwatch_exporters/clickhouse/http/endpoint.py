"""The read-only ClickHouse HTTP endpoint over the embedded store: an ASGI application, which the console mounts.

Whatever is asked, ``/healthz`` answers and the store is written: queries run on threads of their own, a bounded number at once
and a bounded number in the queue, each within limits that no client can raise; the event loop only carries bytes.  Every read
is counted and audited, those that are refused too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import parse_qsl, urlsplit

from headwatch import __version__
from headwatch.addresses import is_loopback
from headwatch.places import store_url
from headwatch_exporters.clickhouse.http.asked import read_request
from headwatch_exporters.clickhouse.http.audit import LogAudit, Read
from headwatch_exporters.clickhouse.http.engine import Engine
from headwatch_exporters.clickhouse.http.job import NOTHING
from headwatch_exporters.clickhouse.http.reads import Reads
from headwatch_exporters.clickhouse.http.refusal import QueryError
from headwatch_exporters.clickhouse.http.respond import Responder
from headwatch_exporters.clickhouse.http.users import Users

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from starlette.types import Receive, Scope, Send

    from headwatch.config import ClickHouseConfig, Config
    from headwatch_exporters.clickhouse.http.audit import Audit

logger = logging.getLogger("headwatch.clickhouse")

MOUNTED_AT = "/clickhouse"
_SENDING = 64
"""Answers that may be under way after their query has ended, besides those that run and wait."""
_BODY_SECONDS = 10.0
_ALIVE = frozenset({"/ping", "/replicas_status"})
_METHODS = frozenset({"GET", "HEAD", "POST"})
_OWN_SITE = frozenset({"none", "same-origin"})
_FIXED = {
    "X-Headwatch-Version": __version__,
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_CANCELLED = "cancelled"
_Result = TypeVar("_Result")


class _Gone(Exception):  # noqa: N818 - no error: the client has left
    """The client has closed the connection."""


class ClickHouseEndpoint:
    """Answers queries with *reads* for *users*; :meth:`open` makes one."""

    def __init__(self, reads: Reads, users: Users, config: ClickHouseConfig, audit: Audit) -> None:
        self._reads = reads
        self._users = users
        self._audit = audit
        self._most_bytes = config.max_query_bytes
        self._most_requests = config.max_running + config.max_waiting + _SENDING
        self._requests = 0
        self._counts: Counter[str] = Counter()

    @classmethod
    def open(cls, config: Config, audit: Audit | None = None) -> Self | None:
        """Return the endpoint over the embedded store of *config*; None where it is off, or the store is a server or away.

        Raises:
            ConfigError: A user's secret cannot be used.
        """
        url = urlsplit(store_url(config.store))
        if not config.clickhouse.enabled or not config.store.enabled or url.scheme != "chdb":
            return None
        users = Users(config.clickhouse.users, everybody=is_loopback(config.http.host))
        engine = None
        try:
            engine = Engine(os.path.realpath(url.path))  # as the driver spells it: chDB compares letter by letter
            reads = Reads(engine, config.clickhouse)
        except QueryError as error:
            if engine is not None:
                engine.close(0.0)
            reason = str(error).splitlines()[0]
            logger.error("there is no ClickHouse endpoint until the sidecar starts again: %s", reason)  # noqa: TRY400 - one line
            return None
        return cls(reads, users, config.clickhouse, audit or LogAudit())

    @property
    def counters(self) -> dict[str, int]:
        """Return how many reads ended in which way: ``ok``, ``cancelled``, or by the name of the error."""
        return dict(self._counts)

    def close(self) -> None:
        """Stop what runs and free the store.  Safe from any thread."""
        self._reads.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"].removeprefix(MOUNTED_AT).rstrip("/")
        reply, peer = self._reply(send), (scope.get("client") or ("",))[0]
        if scope["method"] not in _METHODS:
            await reply.text(b"GET, HEAD and POST are answered\n", 405, {"Allow": "GET, HEAD, POST"})
            self._note(Read(time_ns=time.time_ns(), peer=peer, outcome="METHOD_NOT_ALLOWED"))
        elif path in _ALIVE or (not path and scope["method"] == "GET" and b"query=" not in scope["query_string"]
                                and headers.get("content-length", "0") == "0"):  # fmt: skip
            await reply.text(b"Ok.\n")
        elif path:
            await reply.text(b"There is no handle for this path; ask %s\n" % MOUNTED_AT.encode(), 404)
        else:
            await self._query(scope["query_string"], headers, peer, receive, send)

    async def _query(
        self, query_string: bytes, headers: dict[str, str], peer: str, receive: Receive, send: Send
    ) -> None:
        """Answer one query, count and note it, and let nothing out but an answer."""
        started = time.monotonic()
        reply, user, tried, figures = self._reply(send), "", "", NOTHING
        self._requests += 1
        try:
            self._check_room()
            _check_site(headers)
            url = _parameters(query_string)
            tried = self._users.named(headers, url)
            reader = self._users.admit(headers, url)
            user, tried = reader.name, ""
            body = await _body(receive, self._most_bytes)
            asked = read_request(url, headers, body, self._most_bytes)
            reply.query_id = asked.query_id
            figures = await _while_there(self._reads.run(reader, asked, reply), receive, reply)
            outcome = "ok"
        except QueryError as error:
            outcome = "ok" if reply.complete else error.name
            await reply.error(error)
        except _Gone:
            outcome = _CANCELLED
        finally:
            self._requests -= 1
        self._note(Read(
            time_ns=time.time_ns(), peer=peer, user=user, tried=tried, query_id=reply.query_id, query=reply.audited,
            rows=figures.result_rows, bytes=reply.sent_bytes, read_rows=figures.read_rows,
            seconds=round(time.monotonic() - started, 6), outcome=outcome,
        ))  # fmt: skip

    def _note(self, read: Read) -> None:
        """Count *read*, and have it kept by another thread."""
        self._counts[read.outcome] += 1
        try:
            self._reads.helpers.submit(self._record, read)
        except RuntimeError:  # the endpoint is closed: this is the last of it
            self._record(read)

    def _check_room(self) -> None:
        if self._requests > self._most_requests:
            raise QueryError("TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many simultaneous queries: {self._requests - 1}")

    def _record(self, read: Read) -> None:
        try:
            self._audit.record(read)
        except Exception:
            self._counts["audit_failed"] += 1
            logger.exception("a read could not be audited")

    def _reply(self, send: Send) -> Responder:
        return Responder(send, _FIXED, self._reads.catalog)


def _check_site(headers: dict[str, str]) -> None:
    """Refuse what a page of another site has a browser send: it could read no answer, but it could keep the engine busy."""
    if headers.get("sec-fetch-site", "none") not in _OWN_SITE:
        raise QueryError("ACCESS_DENIED", "a page of another site cannot ask")


def _parameters(query_string: bytes) -> dict[str, str]:
    """Return the parameters of the URL, the last of each name.

    Raises:
        QueryError: They are not UTF-8.
    """
    try:
        return dict(parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict"))
    except ValueError as error:
        raise QueryError("BAD_ARGUMENTS", "the parameters of the URL are not UTF-8, or too many") from error


async def _body(receive: Receive, most_bytes: int) -> bytes:
    """Return the body of the request.

    Raises:
        QueryError: It is longer than *most_bytes*, or takes too long.
        _Gone: The client leaves.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                body += message.get("body", b"")
                if len(body) > most_bytes:
                    raise QueryError("QUERY_IS_TOO_LARGE", f"the body is longer than {most_bytes} bytes")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise QueryError("TIMEOUT_EXCEEDED", f"the query did not arrive within {_BODY_SECONDS:.0f} s") from None


async def _while_there(work: Coroutine[Any, Any, _Result], receive: Receive, reply: Responder) -> _Result:
    """Return what *work*, which answers with *reply*, returns; cancel it where the client leaves before.

    Raises:
        _Gone: The client has left.
    """
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_leaving(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() or reply.complete:  # the server calls it leaving as well when everything is sent
            return await working
        raise _Gone
    finally:
        for task in (working, watching):
            task.cancel()
            with suppress(asyncio.CancelledError, QueryError):
                await task


async def _leaving(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
