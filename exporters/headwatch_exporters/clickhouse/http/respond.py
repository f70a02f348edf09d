"""Answers as ClickHouse's HTTP interface sends them: headers, what is held back before the first byte, late errors."""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.http.blocks import Blocks
from headwatch_exporters.clickhouse.http.encoding import packing
from headwatch_exporters.clickhouse.http.hello import DISPLAY_NAME
from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from starlette.types import Send

    from headwatch_exporters.clickhouse.http.asked import Asked
    from headwatch_exporters.clickhouse.http.catalog import Catalog
    from headwatch_exporters.clickhouse.http.encoding import Packing
    from headwatch_exporters.clickhouse.http.engine import Figures, Progress
    from headwatch_exporters.clickhouse.http.job import Job

HOLD_BYTES = 256 * 1024
"""An answer is held until it has so much, so that an error of its beginning still gets its status."""
WAIT_END_BYTES = 4 * 1024 * 1024
"""The same where the client asks to wait for the end; a longer answer is sent as it comes."""
_PACKED_AT_ONCE_BYTES = 8 * 1024
_LAST_WORD_SECONDS = 1.0
_PLAIN = "text/plain; charset=UTF-8"


class Responder:
    """Sends one answer through *send*."""

    def __init__(self, send: Send, fixed: Mapping[str, str], catalog: Catalog) -> None:
        self._send = send
        self._fixed = fixed
        self._catalog = catalog
        self._tag = secrets.token_hex(8)
        self.query_id = ""
        self.audited = ""
        """The query without its literals, where it is known."""
        self.started = False
        self.complete = False
        self._packing: Packing | None = None
        self.sent_bytes = 0

    async def text(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = _PLAIN
    ) -> None:
        """Send *body*, whole."""
        await self._start(status, {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})})
        await self._body(body, more=False)

    async def error(self, error: QueryError) -> None:
        """Send *error*: with its status, or, where the answer has begun, at its end, which is then broken off.

        Where the answer is complete there is nothing left to say.
        """
        if self.complete:
            return
        body = error.body(self._catalog.version)
        if not self.started:
            headers = {"X-ClickHouse-Exception-Code": str(error.code)}
            if error.status == 401:  # noqa: PLR2004 - what browsers and drivers ask a password for
                headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
            await self.text(body, error.status, headers)
            return
        tag = self._tag.encode()
        marked = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (tag, body, len(body), tag)
        if self._packing is not None:
            marked = self._packing.pack(marked) + self._packing.finish()
        with suppress(TimeoutError):  # who takes nothing is not told
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await self._body(marked, more=True)

    async def answer(self, job: Job, asked: Asked, packer: Executor, ended: Callable[[], None]) -> Figures:
        """Send what *job* answers, and return what it did; *ended* is called before the client can know that it has.

        Raises:
            QueryError: It failed.
        """
        held, whole = bytearray(), False
        most = WAIT_END_BYTES if asked.wait_end else HOLD_BYTES
        while not whole and len(held) < most:
            piece = await job.read()
            held += piece
            whole = not piece
        figures = await job.done if whole else None
        plan = job.plan
        if plan is None:
            raise QueryError("UNKNOWN_EXCEPTION", "the query has no plan and did not fail")
        headers = {
            "Content-Type": plan.content_type if plan.sql else _PLAIN,
            "X-ClickHouse-Format": plan.format,
            "Content-Encoding": plan.encoding if plan.sql else "",
            "X-ClickHouse-Summary": json.dumps(_summary(figures)),
        }
        if asked.compress and plan.sql:
            self._packing = Blocks()
        elif plan.encoding and plan.sql:
            self._packing = packing(plan.encoding)
        steps = [("X-ClickHouse-Progress", json.dumps(_texts(step))) for step in job.progress]
        if figures is not None:
            ended()
            body = await self._packed(bytes(held), packer, last=True)
            await self._start(200, {**headers, "Content-Length": str(len(body))}, steps)
            await self._body(body, more=False)
            return figures
        await self._start(200, headers, steps)
        piece = bytes(held)
        held.clear()
        while piece:
            await self._body(await self._packed(piece, packer), more=True)
            piece = await job.read()
        figures = await job.done
        ended()
        await self._body(await self._packed(b"", packer, last=True), more=False)
        return figures

    async def _packed(self, piece: bytes, packer: Executor, *, last: bool = False) -> bytes:
        """Return *piece* as it is sent; where that is work, it is done by *packer*."""
        if self._packing is None:
            return piece
        work = functools.partial(_pack, self._packing, piece, last=last)
        if len(piece) <= _PACKED_AT_ONCE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(packer, work)

    async def _start(self, status: int, headers: Mapping[str, str], more: list[tuple[str, str]] | None = None) -> None:
        own = {
            "X-ClickHouse-Server-Display-Name": DISPLAY_NAME,
            "X-ClickHouse-Query-Id": self.query_id,
            "X-ClickHouse-Timezone": self._catalog.timezone,
            "X-ClickHouse-Exception-Tag": self._tag,
        }
        listed = [*self._fixed.items(), *own.items(), *(more or ()), *headers.items()]
        coded = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in listed if value
        ]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": coded})

    async def _body(self, body: bytes, *, more: bool) -> None:
        self.sent_bytes += len(body)
        self.complete = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _pack(packing: Packing, piece: bytes, *, last: bool) -> bytes:
    return packing.pack(piece) + (packing.finish() if last else b"")


def _texts(progress: Progress) -> dict[str, str]:
    return {name: str(value) for name, value in progress.items()}


def _summary(figures: Figures | None) -> dict[str, str]:
    """Return the summary; zeros where the answer is sent before the query has ended, as a server does."""
    return {
        "read_rows": str(figures.read_rows if figures else 0),
        "read_bytes": str(figures.read_bytes if figures else 0),
        "written_rows": "0",
        "written_bytes": "0",
        "total_rows_to_read": "0",
        "result_rows": str(figures.result_rows if figures else 0),
        "result_bytes": str(figures.result_bytes if figures else 0),
        "elapsed_ns": str(int(figures.seconds * 1e9) if figures else 0),
    }
