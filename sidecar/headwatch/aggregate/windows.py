"""The aggregator: frames in, closed windows and ended requests out.

Windows are aligned to the clock of the worker's frames, one set of strata for each engine.  A window closes a grace
period after its end by the sidecar's clock; rows that come later are counted in the window then open, and as late.  Where
windows close by count, those of all engines close together with the frame that ends the last request of the count, and each
is numbered by the one before; a window then stays open as long as no request ends, and no row is late.  The
ranks of an engine fill the same window and the same requests, each its own heads and layers; a row counts once.
Rows of canaries are handed on and count nowhere.
Means and histograms are weighted by what each row stands for, so that they stay unbiased where rows and requests were
sampled unequally (docs/adr/0007-weights.md).
Everything is bounded: strata, open requests, rows waiting in a stratum.

Not safe from threads: the pipeline holds one lock around it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from headwatch.aggregate.canaries import CanaryRows
from headwatch.aggregate.cells import OpenEngine
from headwatch.aggregate.places import places_of
from headwatch.aggregate.ranks import Lives
from headwatch.aggregate.reading import FrameRow, GroupSums, HeadGroups
from headwatch.aggregate.requests import OpenRequest, RequestIdentity
from headwatch.aggregate.strata import overflow, stratum_of
from headwatch.aggregate.values import SpanTable, values_of
from headwatch.aggregate.weights import whole_weight
from headwatch.bands import context_band
from headwatch.errors import WireError
from headwatch.model import WINDOW_FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from headwatch.aggregate.canaries import CanarySink
    from headwatch.aggregate.cells import Cell
    from headwatch.aggregate.evidence import EvidenceQueue
    from headwatch.aggregate.places import Places
    from headwatch.config import WindowConfig
    from headwatch.model import RequestContext, SummaryBatch, WorkerIdentity
    from headwatch.records import RequestRecord, WindowBatch
    from headwatch.wire.columns import Columns

GRACE_NS = 2_000_000_000
_JUMP_WINDOWS = 10
"""Frames that are so much older than the open window are not late: the worker's clock was set back."""
_MODELS = 64
"""Models whose groups of heads are kept at hand."""
_VALUES_AT_ONCE = 1 << 20
"""Values that are computed together, of several rows of a frame: enough to gain by it, and memory is bounded."""
MAX_LAYERS = 1024
MAX_HEADS = 1024


class Aggregator:
    """Holds the open windows and the open requests."""

    def __init__(
        self,
        config: WindowConfig,
        head_maps: dict[str, NDArray[np.bool_]] | None = None,
        evidence: EvidenceQueue | None = None,
        canaries: CanarySink | None = None,
        first_number: int = 0,
        veil: Callable[[RequestContext], RequestContext] | None = None,
    ) -> None:
        """Prepare; single rows go to *evidence* and rows of canaries to *canaries*, and nowhere where there is none.

        *first_number* is that of the first window, where windows close by count.  What is kept of a request is kept of what
        *veil* makes of it.
        """
        self._window_ns = int(config.seconds * 1e9)
        self._idle_ns = int(config.request_idle_seconds * 1e9)
        self._config = config
        self._head_maps = head_maps or {}
        self._groups: dict[tuple[str, int, int], HeadGroups] = {}
        self._evidence = evidence
        self._engines: dict[str, OpenEngine] = {}
        self._canaries = CanaryRows(canaries, self._idle_ns)
        self._number = first_number
        """Of the open window, where windows close by count, ..."""
        self._veil = veil
        self._ended_in_window = 0
        self._opened_ns: int | None = None
        """... when it opened; None until something has come."""
        self._records: list[RequestRecord] = []
        self._requests: dict[tuple[str, str], OpenRequest] = {}
        self._ended: dict[tuple[str, str], tuple[int, RequestIdentity]] = {}
        """Requests that ended before all ranks said so, and when: what still comes of them makes no second record."""
        self._closed: list[WindowBatch] = []
        self.counters: Counter[str] = Counter()

    def add(self, batch: SummaryBatch, columns: Columns) -> None:
        """Take one frame, whose columns were checked by :func:`headwatch.wire.columns.view`.

        Raises:
            WireError: The frame's layers or heads do not fit the model that its worker claims.
        """
        worker = batch.worker
        layers = batch.layers
        heads = slice(batch.head_offset, batch.head_offset + batch.heads)
        if not (0 <= worker.layers <= MAX_LAYERS and 0 <= worker.heads <= MAX_HEADS):
            raise WireError("model_size", f"a model of {worker.layers} layers and {worker.heads} heads is not plausible")
        if layers and (min(layers) < 0 or max(layers) >= worker.layers or heads.stop > worker.heads):
            raise WireError("shape", "the frame has layers or heads that its model does not have")
        places = places_of(tuple(layers), batch.head_offset, batch.heads, (worker.layers, worker.heads))
        traffic = []
        for row, number in enumerate(columns.request.tolist()):
            context = batch.requests[number]
            if not context.canary:
                traffic.append(row)
            elif batch.attention == "self":
                position = int(columns.position[row])
                self._canaries.add(worker, context, position, columns.features[row], np.array(layers), heads, batch.time_ns)
        if traffic:
            self._rows(batch, columns, traffic, places)
            self.counters["rows"] += len(traffic)
            self.counters["head_summaries"] += len(traffic) * len(layers) * batch.heads
        self._finished(batch)

    def _finished(self, batch: SummaryBatch) -> None:
        """Note which requests the worker of *batch* has ended."""
        for engine_id in batch.finished:
            self._canaries.say(batch.worker, engine_id)
            key = (batch.worker.instance, engine_id)
            request = self._requests.get(key)
            if request is not None:
                request.ending.say(batch.worker)
                if self._config.requests and request.ending.complete:
                    self._end(key, batch.time_ns)

    def _rows(self, batch: SummaryBatch, columns: Columns, rows: list[int], places: Places) -> None:
        """Count the *rows* of a frame."""
        worker, cross = batch.worker, batch.attention == "cross"
        tables: dict[int, SpanTable] = {}
        requests: dict[int, OpenRequest | None] = {}
        numbers, positions = columns.request.tolist(), columns.position.tolist()
        for number, count in Counter(map(numbers.__getitem__, rows)).items():
            context = batch.requests[number]
            request = requests[number] = self._request(worker, context, batch.time_ns, count)
            tables[number] = request.table_of(batch.attention) if request is not None else SpanTable(context, cross=cross)
        engine = self._engine(worker, batch.time_ns)  # after the requests, which may close windows
        members = self._groups_of(worker).at(places)
        heads = len(batch.layers) * batch.heads
        weights = columns.weight.tolist()
        for some in _together(rows, [tables[numbers[row]].documents for row in rows], heads):
            values = values_of(
                columns.features if len(some) == len(numbers) else columns.features[some],
                [columns.span_mass[row] for row in some] if columns.span_mass else (),
                [positions[row] for row in some],
                [tables[numbers[row]] for row in some],
            )
            read = not cross and any(positions[row] >= batch.requests[numbers[row]].prompt_tokens - 1 for row in some)
            sums = GroupSums.of(values.parts, members) if values.parts is not None and read else None
            for place, row in enumerate(some):
                number = numbers[row]
                taken = FrameRow(values, sums, place, values.window[place], positions[row], weights[row], places)
                self._row(engine, batch, columns, row, batch.requests[number], tables[number], requests[number], taken)

    def _row(
        self, engine: OpenEngine, batch: SummaryBatch, columns: Columns, row: int, context: RequestContext, table: SpanTable,
        request: OpenRequest | None, values: FrameRow,
    ) -> None:
        """Count one row of a frame."""
        worker, position = batch.worker, values.position
        carried = (
            table.carried(columns.value_mass[row], columns.output_norm[row], position)
            if columns.value_mass and columns.output_norm is not None else None
        )
        first = worker.rank == engine.worker.rank
        if request is not None:
            centroid = None if columns.centroid is None else columns.centroid[row]
            first = request.add(values, carried, batch.time_ns, centroid)
        whole = whole_weight(context.weight * values.weight, context.engine_id, position)
        cell = self._cell(engine, worker, context, position)
        engine.fill(cell, values.window, carried, whole, values.places)
        if first:  # the other ranks send the rest of the same row
            cell.count_row(position, whole)
        if columns.detail is not None and self._evidence is not None:
            self._evidence.add(batch, columns, row, request)

    @property
    def canary_counters(self) -> Counter[str]:
        """Return ``canary_rows canary_rows_dropped``, which count apart from traffic."""
        return self._canaries.counters

    def collect(self, now_ns: int, *, everything: bool = False) -> tuple[list[WindowBatch], list[RequestRecord]]:
        """Return the windows that have closed and the requests that have ended by *now_ns*, or all of them."""
        self._canaries.collect(now_ns, everything=everything)
        ended = [
            key
            for key, request in self._requests.items()
            if everything or request.ending.reached(now_ns) or now_ns - request.last_ns > self._idle_ns
        ]
        self._forget(now_ns)
        for key in ended:
            self._end(key, now_ns)
        for instance, engine in list(self._engines.items()):
            due = not self._config.requests and now_ns >= engine.start_ns + self._window_ns + GRACE_NS
            if everything or due:
                self._close(instance, engine, now_ns)
        closed, self._closed = self._closed, []
        records, self._records = self._records, []
        return closed, records

    def _engine(self, worker: WorkerIdentity, time_ns: int) -> OpenEngine:
        engine = self._engines.get(worker.instance)
        if self._config.requests:
            if self._opened_ns is None:
                self._opened_ns = time_ns
            start, over = self._opened_ns, False
        else:
            start = time_ns - time_ns % self._window_ns
            jumped = engine is not None and start < engine.start_ns - _JUMP_WINDOWS * self._window_ns
            over = engine is not None and (start > engine.start_ns or jumped)
        if engine is not None and (over or not engine.lives.admit(worker)):
            self._close(worker.instance, engine, time_ns)
            engine = None
        if engine is None:
            engine = self._engines[worker.instance] = OpenEngine(Lives(worker), start)
        elif start < engine.start_ns:
            self.counters["late_rows"] += 1
        return engine

    def _close(self, instance: str, engine: OpenEngine, now_ns: int) -> None:
        del self._engines[instance]
        if not engine.cells:
            return
        if self._config.requests:
            self._closed.append(engine.window(max(now_ns, engine.start_ns + 1), self._number))
        else:
            self._closed.append(engine.window(engine.start_ns + self._window_ns, engine.start_ns // self._window_ns))

    def _end(self, key: tuple[str, str], now_ns: int, *, again: bool = False) -> None:
        """Make the record of a request that has ended; where it is the last of its count, close the windows.

        *again*: its name is that of another request from now on.
        """
        request = self._requests.pop(key)
        by_count = self._config.requests
        if not again and (by_count or (request.worker.ranks > 1 and not request.ending.complete)):
            self._ended[key] = now_ns, request.identity
        self.counters.update(f"field.{reason}" for reason in request.context.errors)
        self._records.append(request.record(self._number if by_count else request.last_ns // self._window_ns))
        if not by_count:
            return
        self._ended_in_window += 1
        if self._ended_in_window >= by_count:
            for instance, engine in list(self._engines.items()):
                self._close(instance, engine, now_ns)
            self._number += 1
            self._ended_in_window = 0
            self._opened_ns = now_ns

    def _cell(self, engine: OpenEngine, worker: WorkerIdentity, context: RequestContext, position: int) -> Cell:
        """Return the cell of a row's stratum; rows that follow each other in a request are mostly of one."""
        phase = position < context.prompt_tokens
        key = (context_band(position + 1), phase, context.route, context.adapter, context.language, context.template)
        before = engine.recent.get(context.engine_id)
        if before is not None and before[0] == key:
            return before[1]
        stratum = stratum_of(worker, context, position)
        if stratum not in engine.cells and len(engine.cells) >= self._config.max_strata:
            stratum = overflow(stratum)
        if len(engine.recent) >= self._config.max_open_requests:
            engine.recent.clear()
        _, cell = engine.recent[context.engine_id] = key, engine.cell(stratum)
        return cell

    def _forget(self, now_ns: int) -> None:
        for key, (ended_ns, _) in list(self._ended.items()):
            if now_ns - ended_ns <= self._idle_ns and len(self._ended) <= self._config.max_open_requests:
                break  # they are in the order in which they ended
            del self._ended[key]

    def _groups_of(self, worker: WorkerIdentity) -> HeadGroups:
        key = (worker.model, worker.layers, worker.heads)
        groups = self._groups.get(key)
        if groups is None:
            if len(self._groups) >= _MODELS:
                self._groups.clear()
            mask = self._head_maps.get(worker.model, self._head_maps.get(""))
            groups = self._groups[key] = HeadGroups.of((worker.layers, worker.heads), mask)
        return groups

    def _request(self, worker: WorkerIdentity, context: RequestContext, time_ns: int, rows: int) -> OpenRequest | None:
        """Return what is open of a request of which *rows* rows have come, or None where they must do without."""
        key = (worker.instance, context.engine_id)
        request = self._requests.get(key)
        _, ended = self._ended.get(key, (0, None))
        known = ended if request is None else request.identity
        if known is not None and (known.is_later_than(worker) or (request is None and known.fits(worker, context))):
            self.counters["rows_after_end"] += rows
            return None
        if known is not None and not known.fits(worker, context):
            self._ended.pop(key, None)
            if request is not None:
                self._end(key, time_ns, again=True)
                request = None
        if request is None:
            if len(self._requests) >= self._config.max_open_requests:
                self.counters["dropped_requests"] += rows
                return None
            seen = context if self._veil is None else self._veil(context)
            identity = RequestIdentity(worker, context)
            request = self._requests[key] = OpenRequest(worker, seen, time_ns, self._groups_of(worker), identity)
        return request


def _together(rows: list[int], documents: list[int], heads: int) -> Iterator[list[int]]:
    """Yield the *rows* in stretches that are computed together, where each costs as much as that with the most documents.

    *documents* has an entry for each of them.
    """
    if len(rows) * (len(WINDOW_FEATURES) + max(documents)) * heads <= _VALUES_AT_ONCE:
        yield rows
        return
    start, most = 0, 0
    for place, here in enumerate(documents):
        wider = max(most, here)
        if place > start and (place + 1 - start) * (len(WINDOW_FEATURES) + wider) * heads > _VALUES_AT_ONCE:
            yield rows[start:place]
            start, wider = place, here
        most = wider
    yield rows[start:]
