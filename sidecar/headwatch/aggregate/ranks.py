"""The ranks of one engine: tensor parallel ones send the heads, pipeline parallel ones the layers of the same rows.

Their frames come in no particular order, each rank restarts by itself, and a frame of any of them may be lost.  So a window
belongs to one life of each rank, and a request has ended when every rank has said so, or some time after the first did.
Nothing here waits for a rank: what never comes is missing in the numbers of its own heads, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.model import WorkerIdentity

LAST_RANKS_NS = 2_000_000_000
"""How long the other ranks may take to say that a request has ended."""


class Lives:
    """Which life of each rank an open window belongs to."""

    def __init__(self, worker: WorkerIdentity) -> None:
        self.worker = worker
        """Stands for all: the lowest rank that has sent something."""
        self._started_ns = {worker.rank: worker.start_ns}

    def admit(self, worker: WorkerIdentity) -> bool:
        """Return whether *worker* belongs to the same engine as it was; if it does not, what is open must be closed."""
        shape = self.worker
        if (worker.layers, worker.heads, worker.ranks) != (shape.layers, shape.heads, shape.ranks):
            return False
        if worker.start_ns > self._started_ns.setdefault(worker.rank, worker.start_ns):
            return False
        if worker.rank < self.worker.rank:
            self.worker = worker
        return True


class Ending:
    """What the ranks have said of one request's end."""

    def __init__(self) -> None:
        self._said: set[int] = set()
        self._first_ns: int | None = None
        self.complete = False
        """Whether every rank has said it."""

    def say(self, worker: WorkerIdentity) -> None:
        """Note that *worker* ended the request."""
        self._said.add(worker.rank)
        self.complete = len(self._said) >= worker.ranks

    def reached(self, now_ns: int) -> bool:
        """Return whether the request has ended; *now_ns* is the sidecar's clock, asked at every tick."""
        if self.complete or not self._said:
            return self.complete
        if self._first_ns is None:
            self._first_ns = now_ns
        return now_ns - self._first_ns >= LAST_RANKS_NS
