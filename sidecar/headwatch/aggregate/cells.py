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
from headwatch.records import Stratum, WindowBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.places import Places
    from headwatch.aggregate.ranks import Lives
    from headwatch.aggregate.values import CarriedValues, RowValues
    from headwatch.model import WorkerIdentity

_BLOCK_ROWS = 32


@dataclass(slots=True)
class Cell:
    """One stratum of an open window."""

    block: HistogramBlock
    waiting: list[NDArray[np.float32]] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    """Of the rows that wait."""
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

    def add(self, values: NDArray[np.float32], weight: int) -> None:
        """Take the values of a row, [F · L · H]."""
        self.waiting.append(values)
        self.weights.append(weight)
        if len(self.waiting) >= _BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Count the rows that wait."""
        if self.waiting:
            self.block.observe(np.stack(self.waiting), np.array(self.weights, np.int64))
            self.waiting.clear()
            self.weights.clear()
        if self.carried is not None:
            self.carried.flush()


@dataclass(slots=True)
class OpenEngine:
    """The open window of one engine."""

    lives: Lives
    start_ns: int
    cells: dict[Stratum, Cell] = field(default_factory=dict)

    @property
    def worker(self) -> WorkerIdentity:
        """Return the rank that stands for all."""
        return self.lives.worker

    def cell(self, stratum: Stratum) -> Cell:
        """Return the cell of *stratum*, a new one where there is none."""
        cell = self.cells.get(stratum)
        if cell is None:
            size = len(WINDOW_FEATURES) * self.worker.layers * self.worker.heads
            cell = self.cells[stratum] = Cell(HistogramBlock(size))
        return cell

    def fill(
        self, cell: Cell, values: RowValues, carried: CarriedValues | None, weight: int, places: Places
    ) -> None:
        """Add to *cell* a row that has the heads at *places*."""
        if places.whole((self.worker.layers, self.worker.heads)):
            full = values.window.copy()  # a row may wait for long, and must not keep its whole frame
        else:
            full = np.full((len(WINDOW_FEATURES), self.worker.layers, self.worker.heads), np.nan, np.float32)
            full[:, places.layers, places.heads] = values.window
        cell.add(full.reshape(-1), weight)
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
