"""The aggregator: frames in, closed windows and ended requests out.

Windows are aligned to the clock of the worker's frames, one set of strata for each engine.  A window closes a grace
period after its end by the sidecar's clock; rows that come later are counted in the window then open, and as late.  The
ranks of an engine fill the same window and the same requests, each its own heads and layers; a row counts once.
Means and histograms are weighted by what each row stands for, so that they stay unbiased where rows and requests were
sampled unequally (docs/adr/0007-weights.md).
Everything is bounded: strata, open requests, rows waiting in a stratum.

Not safe from threads: the pipeline holds one lock around it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.carried import CarriedCell
from headwatch.aggregate.closing import stacked, with_carried
from headwatch.aggregate.histogram import OFFSET, SCALE, HistogramBlock
from headwatch.aggregate.ranks import Lives
from headwatch.aggregate.requests import OpenRequest
from headwatch.aggregate.strata import overflow, stratum_of
from headwatch.aggregate.values import CarriedValues, RowValues, SpanTable
from headwatch.aggregate.weights import whole_weight
from headwatch.errors import WireError
from headwatch.model import WINDOW_FEATURES, SummaryBatch, WorkerIdentity
from headwatch.records import RequestRecord, Stratum, WindowBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.aggregate.evidence import EvidenceQueue
    from headwatch.config import WindowConfig
    from headwatch.wire.columns import Columns

GRACE_NS = 2_000_000_000
_BLOCK_ROWS = 32
"""Rows that wait in a stratum before they are counted together: one pass over the buckets serves them all."""
_JUMP_WINDOWS = 10
"""Frames that are so much older than the open window are not late: the worker's clock was set back."""
MAX_LAYERS = 1024
MAX_HEADS = 1024


@dataclass(slots=True)
class _Cell:
    """One stratum of an open window."""

    block: HistogramBlock
    waiting: list[NDArray[np.float32]] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    """Of the rows that wait."""
    rows: int = 0
    carried: CarriedCell | None = None
    """None while no row of the stratum carried value masses."""

    def add(self, values: NDArray[np.float32], weight: int) -> None:
        self.waiting.append(values)
        self.weights.append(weight)
        if len(self.waiting) >= _BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.block.observe(np.stack(self.waiting), np.array(self.weights, np.int64))
            self.waiting.clear()
            self.weights.clear()
        if self.carried is not None:
            self.carried.flush()


@dataclass(slots=True)
class _Engine:
    """The open window of one engine."""

    lives: Lives
    start_ns: int
    cells: dict[Stratum, _Cell] = field(default_factory=dict)

    @property
    def worker(self) -> WorkerIdentity:
        """Return the rank that stands for all."""
        return self.lives.worker


class Aggregator:
    """Holds the open windows and the open requests."""

    def __init__(
        self,
        config: WindowConfig,
        head_maps: dict[str, NDArray[np.bool_]] | None = None,
        evidence: EvidenceQueue | None = None,
    ) -> None:
        """Prepare; single rows go to *evidence*, and nowhere where there is none."""
        self._window_ns = int(config.seconds * 1e9)
        self._idle_ns = int(config.request_idle_seconds * 1e9)
        self._config = config
        self._head_maps = head_maps or {}
        self._evidence = evidence
        self._engines: dict[str, _Engine] = {}
        self._requests: dict[tuple[str, str], OpenRequest] = {}
        self._ended: dict[tuple[str, str], int] = {}
        """Requests that ended before all ranks said so, and when: what still comes of them makes no second record."""
        self._closed: list[WindowBatch] = []
        self.counters: Counter[str] = Counter()

    def add(self, batch: SummaryBatch, columns: Columns) -> None:
        """Take one frame, whose columns were checked by :func:`headwatch.wire.columns.view`.

        Raises:
            WireError: The frame's layers or heads do not fit the model that its worker claims.
        """
        worker = batch.worker
        layers = np.asarray(batch.layers, np.int64)
        heads = slice(batch.head_offset, batch.head_offset + batch.heads)
        if not (0 <= worker.layers <= MAX_LAYERS and 0 <= worker.heads <= MAX_HEADS):
            raise WireError("model_size", f"a model of {worker.layers} layers and {worker.heads} heads is not plausible")
        if len(layers) and (layers.min() < 0 or layers.max() >= worker.layers or heads.stop > worker.heads):
            raise WireError("shape", "the frame has layers or heads that its model does not have")
        engine = self._engine(worker, batch.time_ns) if len(columns.request) else None
        tables: dict[int, SpanTable] = {}
        weights = columns.weight.tolist()
        for row, (number, position) in enumerate(zip(columns.request.tolist(), columns.position.tolist(), strict=True)):
            context = batch.requests[number]
            request = self._request(worker, context.engine_id, number, batch)
            if request is not None:
                table = request.table_of(batch.attention)
            else:
                table = tables.setdefault(number, SpanTable(context, cross=batch.attention == "cross"))
            values = table.values(
                columns.features[row], columns.span_mass[row] if columns.span_mass else None, position
            )
            carried = (
                table.carried(columns.value_mass[row], columns.output_norm[row], position)
                if columns.value_mass and columns.output_norm is not None else None
            )
            first = worker.rank == engine.worker.rank if engine is not None else False
            if request is not None:
                centroid = None if columns.centroid is None else columns.centroid[row]
                first = request.add(position, values, carried, layers, heads, batch.time_ns, weights[row], centroid)
            if engine is not None:
                weight = whole_weight(context.weight * weights[row], context.engine_id, position)
                cell = self._count(engine, stratum_of(worker, context, position), values, carried, weight, layers, heads)
                cell.rows += first  # the other ranks send the rest of the same row
            if columns.detail is not None and self._evidence is not None:
                self._evidence.add(batch, columns, row, request)
            self.counters["rows"] += 1
        self.counters["head_summaries"] += len(columns.request) * len(layers) * batch.heads
        for engine_id in batch.finished:
            ended = self._requests.get((worker.instance, engine_id))
            if ended is not None:
                ended.ending.say(worker)

    def collect(self, now_ns: int, *, everything: bool = False) -> tuple[list[WindowBatch], list[RequestRecord]]:
        """Return the windows that have closed and the requests that have ended by *now_ns*, or all of them."""
        for instance, engine in list(self._engines.items()):
            if everything or now_ns >= engine.start_ns + self._window_ns + GRACE_NS:
                self._close(instance, engine)
        ended = [
            key
            for key, request in self._requests.items()
            if everything or request.ending.reached(now_ns) or now_ns - request.last_ns > self._idle_ns
        ]
        self._forget(now_ns)
        records = []
        for key in ended:
            request = self._requests.pop(key)
            if request.worker.ranks > 1 and not request.ending.complete:
                self._ended[key] = now_ns
            self.counters.update(f"field.{reason}" for reason in request.context.errors)
            records.append(request.record(self._head_maps.get(request.worker.model, self._head_maps.get(""))))
        closed, self._closed = self._closed, []
        return closed, records

    def _engine(self, worker: WorkerIdentity, time_ns: int) -> _Engine:
        start = time_ns - time_ns % self._window_ns
        engine = self._engines.get(worker.instance)
        jumped = engine is not None and start < engine.start_ns - _JUMP_WINDOWS * self._window_ns
        if engine is not None and (start > engine.start_ns or jumped or not engine.lives.admit(worker)):
            self._close(worker.instance, engine)
            engine = None
        if engine is None:
            engine = self._engines[worker.instance] = _Engine(Lives(worker), start)
        elif start < engine.start_ns:
            self.counters["late_rows"] += 1
        return engine

    def _close(self, instance: str, engine: _Engine) -> None:
        del self._engines[instance]
        if not engine.cells:
            return
        shape = (len(engine.cells), len(WINDOW_FEATURES), engine.worker.layers, engine.worker.heads)
        for cell in engine.cells.values():
            cell.flush()
        window = WindowBatch(
            start_ns=engine.start_ns,
            end_ns=engine.start_ns + self._window_ns,
            worker=engine.worker,
            strata=tuple(engine.cells),
            features=WINDOW_FEATURES,
            layers=np.arange(engine.worker.layers, dtype=np.int32),
            scale=SCALE,
            offset=OFFSET,
            rows=np.array([cell.rows for cell in engine.cells.values()], np.uint32),
            **stacked([cell.block for cell in engine.cells.values()], shape),
        )
        self._closed.append(with_carried(window, [cell.carried for cell in engine.cells.values()]))

    def _count(
        self, engine: _Engine, stratum: Stratum, values: RowValues, carried: CarriedValues | None, weight: int,
        layers: NDArray[np.int64], heads: slice,
    ) -> _Cell:
        cell = engine.cells.get(stratum)
        if cell is None:
            if len(engine.cells) >= self._config.max_strata:
                stratum = overflow(stratum)
                cell = engine.cells.get(stratum)
            if cell is None:
                size = len(WINDOW_FEATURES) * engine.worker.layers * engine.worker.heads
                cell = engine.cells[stratum] = _Cell(HistogramBlock(size))
        full = np.full((len(WINDOW_FEATURES), engine.worker.layers, engine.worker.heads), np.nan, np.float32)
        full[:, layers, heads] = values.window
        cell.add(full.reshape(-1), weight)
        if carried is not None:
            if cell.carried is None:
                cell.carried = CarriedCell(engine.worker.layers, engine.worker.heads)
            cell.carried.add(carried, weight, layers, heads)
        return cell

    def _forget(self, now_ns: int) -> None:
        for key, ended_ns in list(self._ended.items()):
            if now_ns - ended_ns <= self._idle_ns and len(self._ended) <= self._config.max_open_requests:
                break  # they are in the order in which they ended
            del self._ended[key]

    def _request(
        self, worker: WorkerIdentity, engine_id: str, number: int, batch: SummaryBatch
    ) -> OpenRequest | None:
        key = (worker.instance, engine_id)
        request = self._requests.get(key)
        if request is None:
            if key in self._ended:
                self.counters["rows_after_end"] += 1
                return None
            if len(self._requests) >= self._config.max_open_requests:
                self.counters["dropped_requests"] += 1
                return None
            request = self._requests[key] = OpenRequest(worker, batch.requests[number], batch.time_ns)
        return request
