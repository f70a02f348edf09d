"""How many queries run at once, how many wait, and for how long.  For one event loop."""

from __future__ import annotations

import asyncio

from headwatch_exporters.clickhouse.http.refusal import QueryError


class Places:
    """*running* places, and a queue of *waiting* before them in which nobody stays longer than *seconds*."""

    def __init__(self, running: int, waiting: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(running)
        self._running = running
        self._most_waiting = waiting
        self._seconds = seconds
        self.waiting = 0

    async def take(self) -> None:
        """Return with a place, which :meth:`give_back` frees.

        Raises:
            QueryError: The queue is full, or no place became free in time.
        """
        if self._free.locked() and self.waiting >= self._most_waiting:
            raise QueryError("TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many simultaneous queries: {self._running} run and "
                             f"{self.waiting} wait")  # fmt: skip
        self.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise QueryError("TOO_MANY_SIMULTANEOUS_QUERIES", f"Too many simultaneous queries: none of {self._running} ended "
                             f"within {self._seconds:g} s") from None  # fmt: skip
        finally:
            self.waiting -= 1

    def give_back(self) -> None:
        """Free a place."""
        self._free.release()
