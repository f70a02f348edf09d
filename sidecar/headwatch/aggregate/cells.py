"""What is open of one engine's window: a histogram for each stratum, and what a window needs beside it.

Rows wait in a stratum until there are enough of them to be counted in one pass over the buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.carried import CarriedCell
from headwatch.aggregate.closing import stacked, with_carried
from headwatch.aggregate.histogram import OFFSET, SCALE, HistogramBlock
from headwatch.model import WINDOW_FEATURES
from headwatch.native.frames import frames
from headwatch.records import Stratum, WindowBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.places import Places
    from headwatch.aggregate.ranks import Lives
    from headwatch.aggregate.values import CarriedValues
    from headwatch.model import WorkerIdentity

_BLOCK_ROWS = 64


@dataclass(slots=True)
class Cell:
    """One stratum of an open window."""

    block: HistogramBlock
    waiting: NDArray[np.float32]
    """[_BLOCK_ROWS, F, L, H]: rows that wait to be counted, ..."""
    weights: list[int] = field(default_factory=list)
    """... and the weights of those that do."""
    rows: int = 0
    log_length: float = 0.0
    """Weighted sum over the rows of log2 of the tokens that each sees, ..."""
    row_weight: float = 0.0
    """... and of their weights."""
    carried: CarriedCell | None = None
    """None while no row of the stratum carried value masses."""

    def count_row(self, position: int, weight: int) -> None:
        """Count a row, once for all the ranks that send parts of it."""
        self.rows += 1
        self.log_length += weight * math.log2(max(position, 0) + 1)
        self.row_weight += weight

    def add(self, values: NDArray[np.float32], weight: int, places: Places) -> None:
        """Take the values of a row, [F, L, H], of the heads at *places*."""
        fast = frames()
        if fast is not None and places.whole:
            fast.keep(self.waiting, len(self.weights), values)
        elif places.whole:
            self.waiting[len(self.weights)] = values
        else:
            row = self.waiting[len(self.weights)]
            row.fill(np.nan)
            row[:, places.layers, places.heads] = values
        self.weights.append(weight)
        if len(self.weights) >= _BLOCK_ROWS:
            self._count()

    def flush(self) -> None:
        """Count the rows that wait."""
        if self.weights:
            self._count()
        if self.carried is not None:
            self.carried.flush()

    def _count(self) -> None:
        """Count the rows that wait; what none of them defines, such as spans of a kind that no prompt has, costs nothing."""
        rows = self.waiting[: len(self.weights)].reshape(len(self.weights), len(WINDOW_FEATURES), -1)
        weights = np.array(self.weights, np.int64)
        there = np.flatnonzero(~np.isnan(rows).all(axis=(0, 2)))
        for run in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1):
            if len(run):
                some = rows[:, run[0] : run[-1] + 1].reshape(len(rows), -1)
                self.block.observe(some, weights, int(run[0]) * rows.shape[2])
        self.weights.clear()


@dataclass(slots=True)
class OpenEngine:
    """The open window of one engine."""

    lives: Lives
    start_ns: int
    cells: dict[Stratum, Cell] = field(default_factory=dict)
    recent: dict[str, tuple[tuple[str | bool, ...], Cell]] = field(default_factory=dict)
    """By request: what made the stratum of its last row, and the cell."""

    @property
    def worker(self) -> WorkerIdentity:
        """Return the rank that stands for all."""
        return self.lives.worker

    def cell(self, stratum: Stratum) -> Cell:
        """Return the cell of *stratum*, a new one where there is none."""
        cell = self.cells.get(stratum)
        if cell is None:
            shape = (len(WINDOW_FEATURES), self.worker.layers, self.worker.heads)
            cell = self.cells[stratum] = Cell(HistogramBlock(math.prod(shape)), np.empty((_BLOCK_ROWS, *shape), np.float32))
        return cell

    def fill(
        self, cell: Cell, values: NDArray[np.float32], carried: CarriedValues | None, weight: int, places: Places
    ) -> None:
        """Add to *cell* the *values* [F, L, H] of a row that has the heads at *places*."""
        cell.add(values, weight, places)
        if carried is not None:
            if cell.carried is None:
                cell.carried = CarriedCell(self.worker.layers, self.worker.heads)
            cell.carried.add(carried, weight, places)

    def window(self, end_ns: int, number: int) -> WindowBatch:
        """Return what the window came to."""
        cells = list(self.cells.values())
        shape = (len(cells), len(WINDOW_FEATURES), self.worker.layers, self.worker.heads)
        for cell in cells:
            cell.flush()
        with np.errstate(invalid="ignore"):  # a stratum whose rows came from other ranks alone has no length
            length = np.array([cell.log_length for cell in cells]) / np.array([cell.row_weight for cell in cells])
        window = WindowBatch(
            start_ns=self.start_ns,
            end_ns=end_ns,
            worker=self.worker,
            strata=tuple(self.cells),
            features=WINDOW_FEATURES,
            layers=np.arange(self.worker.layers, dtype=np.int32),
            scale=SCALE,
            offset=OFFSET,
            rows=np.array([cell.rows for cell in cells], np.uint32),
            number=number,
            log_length=length,
            **stacked([cell.block for cell in cells], shape),
        )
        return with_carried(window, [cell.carried for cell in cells])
