"""A step's rows by detail level: each level has buffers and a frame of its own, so that one long look slows nobody down.

Nearly always all rows want the same level, at most 1, and there is one part.  Levels 2 to 4 are bounded: by bytes in a step
(``capture.max_detail_bytes``), and whole rows by requests at a time and by bytes of a request over its life.  A row that
does not fit gets the highest level that does; how often, and why, is counted.

Deterministic: ranks that plan the same rows divide them in the same way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.capture.output.buffer import allocate
from headwatch.capture.output.detail_buffer import allocate_detail, row_bytes
from headwatch.wire.detail_columns import BLOCK_PROFILE, FULL_ROWS, TOP_POSITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.capture.output.buffer import SummaryBuffer
    from headwatch.capture.plan.step import RequestRows
    from headwatch.config import CaptureConfig
    from headwatch.model import AttentionKind

SPAN_MASSES = 1
"""The highest level that costs nothing beyond the summaries: no part is made for a lower one beside it."""
DETAIL_COST = 16
"""How many plain rows take as long as one of a higher level, about: 17 to 26 were measured with the compiled CPU kernel.  The
budget reckons with it, so that few close looks do not make every row seem dear."""


@dataclass(slots=True)
class StepPart:
    """Rows of one detail level, and the buffers that the layers fill."""

    detail: int
    rows: list[RequestRows]
    taken: int
    """Rows."""
    spans: int
    """Spans of all rows, one more than the prompt's for each row."""
    buffers: list[SummaryBuffer] = field(default_factory=list)
    memo: dict[Any, Any] = field(default_factory=dict)
    """What kernels prepare once for all layers of the step."""
    attention: AttentionKind = "self"
    longest: int = field(init=False)
    """Most positions that are read for any of its rows."""

    def __post_init__(self) -> None:
        self.longest = max((row.keys for row in self.rows), default=0)

    @property
    def written(self) -> bool:
        """Return whether any layer has a summary to send."""
        return any(buffer.written for buffer in self.buffers)


class Divider:
    """Divides steps into parts, and remembers which requests are sent whole.  Not safe from threads."""

    def __init__(self, config: CaptureConfig, cells: int) -> None:
        """Take the number of heads in all layers together as *cells*."""
        self._config = config
        self._cells = cells
        self._sent_bytes: dict[str, int] = {}
        """Whole rows so far of each request that is sent whole, by engine id."""
        self.reduced: Counter[str] = Counter()
        """Rows that got less detail than was wanted, by reason."""

    def divide(self, rows: Sequence[RequestRows]) -> list[StepPart]:
        """Return the parts of *rows*, the lowest level first."""
        plain = max((item.detail for item in rows if item.detail <= SPAN_MASSES), default=SPAN_MASSES)
        if all(item.detail <= SPAN_MASSES for item in rows):
            return [_part(plain, list(rows))] if rows else []
        divided: dict[int, list[RequestRows]] = {}
        room = self._config.max_detail_bytes
        for item in rows:
            if item.detail <= SPAN_MASSES:
                divided.setdefault(plain, []).append(item)
                continue
            levels, room = self._levels(item, room)
            for level, run in groupby(range(len(levels)), key=levels.__getitem__):
                divided.setdefault(level, []).append(_picked(item, list(run)))
        return [_part(level, members) for level, members in sorted(divided.items())]

    def forget(self, engine_id: str) -> None:
        """Free what the request *engine_id* held; it has ended."""
        self._sent_bytes.pop(engine_id, None)

    def _levels(self, item: RequestRows, room: int) -> tuple[list[int], int]:
        """Return the level of each row of *item*, and what is left of *room* bytes after them."""
        engine_id = item.request.context.engine_id
        wanted = item.detail
        if wanted >= FULL_ROWS and engine_id not in self._sent_bytes:
            if len(self._sent_bytes) < self._config.max_full_requests:
                self._sent_bytes[engine_id] = 0
            else:
                wanted = TOP_POSITIONS
                self.reduced["full_requests"] += len(item.positions)
        levels = []
        for position in item.positions.tolist():
            level = wanted
            if level >= FULL_ROWS and not self._fits(engine_id, position):
                level = TOP_POSITIONS
                self.reduced["full_bytes"] += 1
            fitting = level
            while fitting >= BLOCK_PROFILE and row_bytes(position, self._cells, fitting, self._config) > room:
                fitting -= 1
            if fitting < level:
                self.reduced["step_bytes"] += 1
            room -= row_bytes(position, self._cells, fitting, self._config)
            if fitting >= FULL_ROWS:
                self._sent_bytes[engine_id] += self._whole(position)
            levels.append(fitting)
        return levels, room

    def _fits(self, engine_id: str, position: int) -> bool:
        return self._sent_bytes[engine_id] + self._whole(position) <= self._config.max_full_bytes

    def _whole(self, position: int) -> int:
        config = self._config
        return row_bytes(position, self._cells, FULL_ROWS, config) - row_bytes(position, self._cells, TOP_POSITIONS, config)


def allocate_part(part: StepPart, layers: tuple[int, ...], heads: int, config: CaptureConfig) -> SummaryBuffer:
    """Return an empty buffer for *part* and *layers* of *heads* heads each."""
    buffer = allocate(
        layers, heads, part.taken, part.spans, values=config.value_mass and part.detail >= SPAN_MASSES,
        centroid=part.attention == "cross",
    )
    if part.detail >= BLOCK_PROFILE:
        positions = np.concatenate([item.positions for item in part.rows])
        buffer.detail = allocate_detail(positions, len(layers), heads, part.detail, config)
    return buffer


def _part(detail: int, rows: list[RequestRows]) -> StepPart:
    """Return *rows* as a part, each with its place in the part's buffers."""
    placed = []
    first_row = first_span = 0
    for item in rows:
        placed.append(replace(item, first_row=first_row, first_span=first_span))
        first_row += len(item.positions)
        first_span += len(item.positions) * (item.request.spans.spans + 1)
    return StepPart(detail, placed, first_row, first_span)


def _picked(item: RequestRows, chosen: list[int]) -> RequestRows:
    """Return the rows *chosen* (ascending) of *item*."""
    if len(chosen) == len(item.positions):
        return item
    index = np.array(chosen, np.int64)
    positions = item.positions[index]
    return replace(
        item, positions=positions, query_index=item.query_index[index], weights=item.weights[index],
        keys=int(positions[-1]) + 1,
    )  # fmt: skip
