"""What the Triton kernel's programs do: tables made once a step, uploaded in one piece.

Rows of one request that see positions in common form a *tile*, which reads its keys once; a tile's positions are cut into
*splits*, so that a long context keeps the whole GPU busy.  One program takes one split and one KV head.  Where a split or a
span ends, the sum of the open span goes to a *slot*: split k and span s of a tile own slot k + s, which is theirs alone,
because both only grow along the context.  So a tile of S spans and K splits needs S + K + 1 slots, and sums need no atomics:
the result is the same in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headwatch.capture.layers.attention import AttentionRule
    from headwatch.capture.plan.step import RequestRows

ROW_FIELDS = ("number", "query_index", "position", "first", "last", "mass_base", "tile", "place")
"""Number in the step; token of the query tensor; position; first and last position seen; first entry among the span
masses; its tile and its place there."""
TILE_FIELDS = (
    "batch_index", "first_row", "rows", "end_at", "spans", "start", "keys", "first_item", "splits", "first_slot", "stop",
)  # fmt: skip
"""``end_at``: where the request's span ends stand; ``start`` and ``stop``: the positions read, ``keys``: those in the cache."""
ITEM_FIELDS = ("tile", "start", "stop", "span", "slot")
"""One split of one tile: its positions, the span that ``start`` lies in, and the slot of that span's sum."""
_ALIGN = 16
"""Tables start at multiples of 64 bytes: a pointer whose alignment changes would make Triton compile again."""


@dataclass(frozen=True, slots=True)
class Work:
    """The tables of one step, for the layers that hide the same positions."""

    flat: NDArray[np.int32]
    """All tables behind each other: rows, tiles, items, ends, documents."""
    starts: tuple[int, ...]
    """Where each table starts in ``flat``."""
    rows: int
    items: int
    slots: int
    split: int
    """Positions in a split."""


@dataclass(frozen=True, slots=True)
class _Tile:
    request: int
    places: range
    start: int
    stop: int


def plan_work(
    requests: Sequence[RequestRows], rule: AttentionRule, rows_per_tile: int, programs_per_split: int, programs: int, least: int
) -> Work:
    """Return the work of one layer.

    *programs_per_split* is the number of programs that one split starts (KV heads); the length of splits, a multiple of
    *least*, is chosen such that about *programs* start in all.
    """
    seen = [_visible(request, rule) for request in requests]
    tiles = [tile for number, rows in enumerate(seen) for tile in _tiles(number, rows, rows_per_tile)]
    total = sum(tile.stop - tile.start for tile in tiles)
    split = -(-max(1, total * programs_per_split // programs) // least) * least

    end_at = np.cumsum([0, *(request.request.spans.spans for request in requests)]).tolist()
    row_table: list[tuple[int, ...]] = []
    tile_table: list[tuple[int, ...]] = []
    item_table: list[tuple[int, ...]] = []
    slots = 0
    for tile in tiles:
        request, spans = requests[tile.request], requests[tile.request].request.spans
        starts = range(tile.start, tile.stop, split)
        tile_table.append((
            request.batch_index, len(row_table), len(tile.places), end_at[tile.request], spans.spans,
            tile.start, request.keys, len(item_table), len(starts), slots, tile.stop,
        ))  # fmt: skip
        for place, index in enumerate(tile.places):
            first, last = seen[tile.request][index]
            row_table.append((
                request.first_row + index, int(request.query_index[index]), int(request.positions[index]), first, last,
                request.first_span + index * (spans.spans + 1), len(tile_table) - 1, place,
            ))  # fmt: skip
        for number, start in enumerate(starts):
            span = int(np.searchsorted(spans.ends, start, side="right"))
            item_table.append((len(tile_table) - 1, start, min(start + split, tile.stop), span, slots + number + span))
        slots += spans.spans + len(starts) + 1

    tables = [
        *(np.array(table, np.int32).ravel() for table in (row_table, tile_table, item_table)),
        *(np.concatenate([getattr(r.request.spans, name) for r in requests]).astype(np.int32) for name in ("ends", "document")),
    ]
    sizes = [-(-max(1, len(table)) // _ALIGN) * _ALIGN for table in tables]
    starts_at = np.cumsum([0, *sizes]).tolist()
    flat = np.zeros(starts_at[-1], np.int32)
    for start, table in zip(starts_at, tables, strict=False):
        flat[start : start + len(table)] = table
    return Work(flat, tuple(starts_at[:-1]), len(row_table), len(item_table), slots, split)


def _visible(request: RequestRows, rule: AttentionRule) -> list[tuple[int, int]]:
    """Return the first and the last position that each row of *request* sees."""
    if not rule.causal:
        return [(0, request.keys - 1)] * len(request.positions)
    return [(rule.first_visible(position), position) for position in request.positions.tolist()]


def _tiles(request: int, seen: Sequence[tuple[int, int]], limit: int) -> Iterator[_Tile]:
    """Yield runs of at most *limit* rows; a row that sees nothing of what the run sees starts a new one."""
    begin = 0
    for index in range(1, len(seen) + 1):
        full = index - begin == limit
        if index == len(seen) or full or seen[index][0] > max(last for _, last in seen[begin:index]):
            rows = seen[begin:index]
            yield _Tile(request, range(begin, index), min(first for first, _ in rows), max(last for _, last in rows) + 1)
            begin = index
