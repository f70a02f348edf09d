"""One query on a thread of its own, its answer through a pipe into the event loop, and its end whatever happens.

A job ends when its query has ended, not when its client has gone: only then is its place free.  A query that nobody waits for
any more is killed, again and again until it is gone, since one that has not begun yet cannot be.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from typing import TYPE_CHECKING, Any

from headwatch_exporters.clickhouse.http.engine import MARK, Figures, pipe
from headwatch_exporters.clickhouse.http.plan import make_plan, without_literals
from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from headwatch_exporters.clickhouse.http.asked import Asked
    from headwatch_exporters.clickhouse.http.catalog import Catalog
    from headwatch_exporters.clickhouse.http.engine import Engine, Progress
    from headwatch_exporters.clickhouse.http.plan import Plan
    from headwatch_exporters.clickhouse.http.users import Reader

logger = logging.getLogger("headwatch.clickhouse")

PIPE_BYTES = 1 << 20
NOTHING = Figures(0, 0, 0, 0, 0.0)
_KILL_SECONDS = 0.1
_PROGRESS_KEPT = 16


class Job:
    """A query of *reader* that runs from :meth:`start` on.  Its methods belong to the event loop's thread."""

    def __init__(
        self, engine: Engine, catalog: Catalog, asked: Asked, reader: Reader, held: Mapping[str, str],
        ceilings: Mapping[str, float],
    ) -> None:  # fmt: skip
        self._engine = engine
        self._catalog = catalog
        self._asked = asked
        self._reader = reader
        self._held = dict(held)
        self._ceilings = ceilings
        self._mark = f"{MARK}{uuid.uuid4().hex}"
        self._reading = self._writing = -1
        self._given_up = False
        self.plan: Plan | None = None
        """Known when the first byte can be read."""
        self.audited = ""
        self.progress: list[Progress] = []
        self.done: asyncio.Future[Figures]

    def start(self, executor: Executor) -> None:
        """Run the query on a thread of *executor*.

        Raises:
            OSError: There is no pipe to be had.
            RuntimeError: *executor* takes nothing more.
        """
        self._reading, self._writing = pipe(PIPE_BYTES)
        os.set_blocking(self._reading, False)
        try:
            self.done = asyncio.get_running_loop().run_in_executor(executor, self._work)
        except RuntimeError:
            os.close(self._reading)
            os.close(self._writing)
            raise

    async def read(self) -> bytes:
        """Return what comes next of the answer; nothing at its end."""
        while True:
            try:
                return os.read(self._reading, PIPE_BYTES)
            except BlockingIOError:
                await _readable(self._reading)

    async def end(self, helpers: Executor) -> None:
        """Return once the query has ended; one that still runs is killed.  To be called once, whatever happened before."""
        self._given_up = True
        os.close(self._reading)
        loop = asyncio.get_running_loop()
        while not self.done.done():
            try:
                await loop.run_in_executor(helpers, self._engine.kill, self._mark)
            except QueryError as error:
                logger.warning("cannot kill a query that nobody waits for: %s", error)
            await asyncio.wait({self.done}, timeout=_KILL_SECONDS)
        if not self.done.cancelled():
            self.done.exception()  # looked at, so that asyncio does not report it

    def _work(self) -> Figures:
        """Run on a thread of the pool."""
        try:
            with self._engine.handle() as handle:
                try:
                    plan = make_plan(
                        handle, self._catalog, self._asked, self._reader, self._held, self._ceilings, self._mark
                    )
                except QueryError:
                    self.audited = without_literals(handle, self._asked.query, formatted=False)
                    raise
                self.audited = without_literals(handle, plan.sql or self._asked.query, formatted=bool(plan.sql))
                handle.restrict(plan.settings)
                self.plan = plan
                if not plan.sql or self._given_up:
                    return NOTHING
                return handle.run(
                    plan.sql, self._writing, plan.format, self._asked.parameters,
                    self._note if self._asked.progress else None,
                )  # fmt: skip
        finally:
            os.close(self._writing)

    def _note(self, progress: Progress) -> None:
        self.progress = [*self.progress[1 - _PROGRESS_KEPT :], progress]


async def _readable(number: int) -> None:
    """Return when the file descriptor *number* can be read."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[Any] = loop.create_future()
    loop.add_reader(number, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(number)
