"""Joins the rows of canary requests into signatures, as they arrive from the ranks of an engine.

Aggregation hands every row of a canary over instead of counting it.  A signature is complete when every head of every layer
has sent all its rows, or, where some layers are not captured, when aggregation says that the request has ended on every rank.
What is incomplete is named and never compared.  Bounded: the rows of so many canaries are held, the oldest make room.
Safe from threads.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headwatch.canary.signature import Signature
from headwatch.model import CANARY_ROWS, FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headwatch.model import RequestContext, WorkerIdentity

MAX_OPEN = 16
_POLL_SECONDS = 0.25


@dataclass(slots=True)
class _Open:
    """A canary whose rows are arriving."""

    worker: WorkerIdentity
    context: RequestContext
    values: NDArray[np.float32]  # [R, L, H, F]
    filled: NDArray[np.bool_] = field(repr=False)  # [R, L, H]
    ended: bool = False


class Collector:
    """Holds the canaries that are under way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._open: OrderedDict[tuple[str, str], _Open] = OrderedDict()
        self.discarded = 0
        """Canaries that had to make room, or whose rows fit no signature."""

    def add(
        self, worker: WorkerIdentity, context: RequestContext, position: int, features: NDArray[np.float32],
        layers: NDArray[np.int64], heads: slice, time_ns: int,  # noqa: ARG002 - the signature of aggregation's sink
    ) -> None:
        """Take the row at *position*: *features* [layers, heads, F] of the global *layers* and *heads*."""
        key = (worker.instance, context.engine_id)
        first = max(context.prompt_tokens - CANARY_ROWS, 0)
        with self._changed:
            item = self._open.get(key)
            if item is None:
                shape = (min(CANARY_ROWS, context.prompt_tokens), worker.layers, worker.heads)
                item = self._open[key] = _Open(
                    worker, context, np.full((*shape, len(FEATURES)), np.nan, np.float32), np.zeros(shape, np.bool_)
                )
                while len(self._open) > MAX_OPEN:
                    self._open.popitem(last=False)
                    self.discarded += 1
            row = position - first
            if not 0 <= row < len(item.values) or item.filled.shape[1:] != (worker.layers, worker.heads):
                self.discarded += 1
                return
            item.values[row, layers, heads] = features
            item.filled[row, layers, heads] = True
            self._changed.notify_all()

    def finished(self, instance: str, engine_id: str) -> None:
        """Take note that the request *engine_id* of *instance* has ended on every rank."""
        with self._changed:
            item = self._open.get((instance, engine_id))
            if item is not None:
                item.ended = True
                self._changed.notify_all()

    def take(self, request_id: str, timeout_seconds: float) -> Signature | str:
        """Return the signature of the request that the client knows as *request_id*, or why there is none in time.

        Frames leave a worker by a queue of their own, so they may come after the client has its answer.
        """
        deadline = self._clock() + timeout_seconds
        with self._changed:
            while True:
                now = self._clock()
                key = next((key for key, item in self._open.items() if item.context.request_id == request_id), None)
                item = None if key is None else self._open[key]
                if key is not None and item is not None and (item.ended or item.filled.all() or now >= deadline):
                    del self._open[key]
                    return _signature(item)
                if now >= deadline:
                    return "no rows of it arrived: is capture on, does the worker report here, is its canary_limit reached?"
                self._changed.wait(min(max(deadline - now, 0.0), _POLL_SECONDS))


def _signature(item: _Open) -> Signature | str:
    whole = (item.filled == item.filled.any(axis=0)).all(axis=(1, 2))  # [R]: has every head that any row has
    if not whole.all():
        return f"incomplete: {int(whole.sum())} of {len(whole)} rows arrived whole"
    context = item.context
    return Signature(
        context.canary, context.prompt_tokens, context.prompt_digest, context.adapter, item.worker, item.values
    )
