"""Queries of the endpoint from admission to their end: place, session, job, and what is left to do when a client has gone."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.http import hello
from headwatch_exporters.clickhouse.http.catalog import read_catalog
from headwatch_exporters.clickhouse.http.job import NOTHING, Job
from headwatch_exporters.clickhouse.http.places import Places
from headwatch_exporters.clickhouse.http.refusal import QueryError
from headwatch_exporters.clickhouse.http.sessions import Sessions
from headwatch_exporters.clickhouse.http.settings import limits

if TYPE_CHECKING:
    from headwatch.config import ClickHouseConfig
    from headwatch_exporters.clickhouse.http.asked import Asked
    from headwatch_exporters.clickhouse.http.engine import Engine, Figures
    from headwatch_exporters.clickhouse.http.respond import Responder
    from headwatch_exporters.clickhouse.http.sessions import Session
    from headwatch_exporters.clickhouse.http.users import Reader

logger = logging.getLogger("headwatch.clickhouse")

_SENDING_SECONDS = 30.0
"""How much longer than its query an answer may be under way."""
_CLOSE_SECONDS = 5.0
_HELPERS = 2


class Reads:
    """Runs queries on *engine* within *config*.  :meth:`run` belongs to one event loop, :meth:`close` to any thread."""

    def __init__(self, engine: Engine, config: ClickHouseConfig) -> None:
        with engine.handle() as handle:
            self.catalog = read_catalog(handle)
        self._engine = engine
        self._limits = limits(config)
        self._seconds = config.max_execution_seconds + _SENDING_SECONDS
        self._places = Places(config.max_running, config.max_waiting, config.queue_seconds)
        self._sessions = Sessions()
        self._threads = ThreadPoolExecutor(config.max_running, "headwatch-clickhouse")
        self.helpers = ThreadPoolExecutor(_HELPERS, "headwatch-clickhouse-help")
        self._ids: set[str] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._running: dict[asyncio.Task[Figures], asyncio.AbstractEventLoop] = {}
        self._stopping = False

    async def run(self, reader: Reader, asked: Asked, reply: Responder) -> Figures:
        """Answer *asked* of *reader* with *reply*; return what the query did.

        Raises:
            QueryError: It is refused, or fails.
        """
        if _is_hello(asked):
            await reply.text(hello.answer(self.catalog, asked.protocol_version), headers=hello.HEADERS, kind=hello.KIND)
            return NOTHING
        if asked.query_id in self._ids:
            raise QueryError(
                "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", f"Query with id = {asked.query_id} is already running."
            )
        session = self._sessions.take(reader.name, asked)
        self._ids.add(asked.query_id)
        running = asyncio.create_task(self._in_turn(reader, asked, session, reply))
        self._running[running] = asyncio.get_running_loop()
        try:
            return await running
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise QueryError("QUERY_WAS_CANCELLED", "Query was cancelled: the sidecar is stopping.") from None
        finally:
            del self._running[running]
            self._end(reader, asked, session)

    def close(self) -> None:
        """Kill what runs, and free the store, within five seconds."""
        self._stopping = True
        for running, loop in list(self._running.items()):
            loop.call_soon_threadsafe(running.cancel)
        if not self._engine.close(_CLOSE_SECONDS):
            logger.warning("a query did not end within %.0f s of being killed; the store stays open", _CLOSE_SECONDS)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.helpers.shutdown(wait=False)

    def _end(self, reader: Reader, asked: Asked, session: Session) -> None:
        """Let the next query of this session and this id in.  Safe to repeat by the query that has them."""
        if session.held_by == asked.query_id:
            self._ids.discard(asked.query_id)
            self._sessions.give_back(reader.name, asked, session)

    def _ended(self, job: Job, reader: Reader, asked: Asked, session: Session) -> None:
        if job.plan is not None:
            session.settings.update(job.plan.kept)
        self._end(reader, asked, session)

    def _started(self, reader: Reader, asked: Asked, session: Session) -> Job:
        """Return a job that runs in the place that was taken, and gives it back."""
        try:
            job = Job(self._engine, self.catalog, asked, reader, session.settings, self._limits)
            job.start(self._threads)
        except (OSError, RuntimeError) as error:  # no file descriptor is left; no thread is taken any more
            self._places.give_back()
            raise QueryError("TOO_MANY_SIMULTANEOUS_QUERIES", f"a query cannot be started: {error}") from error
        job.done.add_done_callback(lambda _: self._places.give_back())
        return job

    async def _in_turn(self, reader: Reader, asked: Asked, session: Session, reply: Responder) -> Figures:
        await self._places.take()
        return await self._job(reader, asked, session, reply)

    async def _job(self, reader: Reader, asked: Asked, session: Session, reply: Responder) -> Figures:
        job = self._started(reader, asked, session)
        try:
            async with asyncio.timeout(self._seconds):
                return await reply.answer(job, asked, self.helpers, lambda: self._ended(job, reader, asked, session))
        except TimeoutError:
            raise QueryError("TIMEOUT_EXCEEDED", f"the answer was not taken within {self._seconds:g} s") from None
        finally:
            reply.audited = job.audited
            ending = asyncio.create_task(job.end(self.helpers))
            self._ends.add(ending)
            ending.add_done_callback(self._ends.discard)
            await asyncio.shield(ending)


def _is_hello(asked: Asked) -> bool:
    question = asked.query.strip().removesuffix(";").removesuffix("FORMAT Native").rstrip()
    native = asked.query.rstrip("; \n").endswith("FORMAT Native") or asked.default_format == "Native"
    return bool(asked.protocol_version) and native and " ".join(question.split()) == hello.QUESTION
