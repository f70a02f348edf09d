"""Frames as a worker sends them while it decodes: several requests in each step, which begin and end at different times.

Numbers are random, their shapes and sizes are not: four documents among six spans, two routes, detail 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.model import FEATURES, Document, RequestContext, Span, SummaryBatch, WorkerIdentity
from headwatch.wire import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_NS = 40_000_000
"""Time of one step; a window of a minute has 1,500."""
_SEQUENCE = 1 << 16
"""Numbers from here on, and times in nanoseconds, take the same bytes whatever they are, so that they can be written over."""
_TIME_NS = 1 << 60
_ANSWER = 200
"""Tokens that a request generates."""


class Shape(msgspec.Struct, frozen=True):
    """What a frame holds."""

    layers: int
    heads: int
    rows: int
    """Requests in each step."""

    @property
    def summaries(self) -> int:
        """Return the head summaries of a frame."""
        return self.layers * self.heads * self.rows


class Template:
    """An encoded frame whose number and time can be written over, which costs a copy and not an encoding."""

    def __init__(self, batch: SummaryBatch) -> None:
        marked = msgspec.structs.replace(batch, sequence=_SEQUENCE, time_ns=_TIME_NS)
        self._payload = codec.encode(marked)
        self._sequence = self._payload.index(b"\xce" + _SEQUENCE.to_bytes(4, "big")) + 1
        self._time = self._payload.index(b"\xcf" + _TIME_NS.to_bytes(8, "big")) + 1

    def at(self, number: int, time_ns: int) -> bytearray:
        """Return the frame number *number* (of 4 bytes, from 0 on) at *time_ns* (nanoseconds since 1970)."""
        payload = bytearray(self._payload)
        payload[self._sequence : self._sequence + 4] = (_SEQUENCE + number).to_bytes(4, "big")
        payload[self._time : self._time + 8] = time_ns.to_bytes(8, "big")
        return payload


def templates(shape: Shape, count: int) -> list[Template]:
    """Return the frames of *count* steps."""
    return [Template(batch) for batch in _batches(shape, count)]


def _batches(shape: Shape, count: int) -> Iterator[SummaryBatch]:
    random = np.random.default_rng(0)
    worker = WorkerIdentity("bench", 0, 1, "model", "", "float32", shape.layers, shape.heads, "bench")
    documents = [Span("document", 10 + 100 * number, 110 + 100 * number, number) for number in range(4)]
    spans = [Span("system", 0, 10), *documents, Span("user", 410, 430)]
    named = [Document(f"d{number}") for number in range(4)]
    for step in range(count):
        lives, ages = zip(*(divmod(step + row * _ANSWER // shape.rows, _ANSWER) for row in range(shape.rows)), strict=True)
        contexts = [
            RequestContext(f"r{row}-{life}", 430, spans, named, f"r{row}-{life}", f"route-{row % 2}")
            for row, life in enumerate(lives)
        ]
        size = (shape.rows, shape.layers, shape.heads)
        mass = random.dirichlet(np.ones(len(spans) + 1), size).astype("<f4")
        yield SummaryBatch(
            worker=worker, sequence=step, time_ns=0, layers=list(range(shape.layers)), heads=shape.heads, head_offset=0,
            requests=contexts, row_request=np.arange(shape.rows, dtype="<i4").tobytes(),
            row_position=np.array([429 + age for age in ages], "<i4").tobytes(),  # the first is the prompt's last row
            features=random.random((*size, len(FEATURES)), np.float32).tobytes(),
            span_mass=np.ascontiguousarray(np.moveaxis(mass, -1, 1)).tobytes(),
            finished=[context.engine_id for context, age in zip(contexts, ages, strict=True) if age == _ANSWER - 1],
        )  # fmt: skip
