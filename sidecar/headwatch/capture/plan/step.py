"""Which query rows of an engine step are summarised.

Planned once a step, before the first attention layer runs, from the request ids, the query lengths and the sequence
lengths of the batch.  A position is never sampled twice, also when a preempted request computes it again.

The strides say which rows are wanted, the budget which of them are affordable.  Each planned row carries how many rows it
stands for: its stride, over the probability with which the budget kept it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.capture.layers.attention import RowSpans, row_spans
from headwatch.capture.plan.parts import DETAIL_COST, SPAN_MASSES
from headwatch.capture.plan.thinning import seed_of, uniform
from headwatch.capture.request.field import CONTEXT_KEY
from headwatch.model import CANARY_ROWS, RequestContext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headwatch.capture.engine.runners.base import StepBatch
    from headwatch.capture.plan.budget import Budget
    from headwatch.capture.plan.parts import StepPart
    from headwatch.capture.settings import Settings
    from headwatch.model import AttentionKind

_decode_context = msgspec.json.Decoder(RequestContext).decode


@dataclass(slots=True)
class SampledRequest:
    """A sampled request that the engine is working on."""

    context: RequestContext
    spans: RowSpans
    seed: int = 0
    """Draws its rows: see :mod:`headwatch.capture.plan.thinning`."""
    last_position: int = -1
    cross: SampledRequest | None = None
    """The same request over its encoder's input, where it has one."""


@dataclass(frozen=True, slots=True)
class WantedRows:
    """The rows of one request in one step that the strides ask for."""

    request: SampledRequest
    batch_index: int
    shift: int
    """From a position to its row of the step's query tensor."""
    positions: list[int]
    """Ascending."""
    step_stride: int
    prefill_stride: int
    detail: int

    def stands_for(self, position: int) -> int:
        """Return how many rows the one at *position* stands for, by the strides alone.

        The last row of the prompt and the first generated one are always sampled and stand for themselves; every other one
        for its whole stride.
        """
        from_prompt_end = position - self.request.context.prompt_tokens
        if from_prompt_end in {-1, 0}:
            return 1
        return self.step_stride if from_prompt_end > 0 else self.prefill_stride


@dataclass(frozen=True, slots=True)
class RequestRows:
    """The rows planned for one request in one step."""

    request: SampledRequest
    batch_index: int
    """Row of the block table."""
    positions: NDArray[np.int64]  # [R]
    query_index: NDArray[np.int64]  # [R] rows of the step's query tensor
    keys: int
    """Positions to read from the cache: the last planned one and all before it."""
    first_row: int
    """Its first row among all rows of the step."""
    first_span: int
    """Its first entry among the spans of all rows of the step."""
    weights: NDArray[np.float64]  # [R] how many rows each one stands for
    detail: int = 1
    """The detail level that is wanted of them."""


@dataclass(slots=True)
class StepPlan:
    """What one step summarises, and the buffers that the layers fill."""

    rows: list[RequestRows] = field(default_factory=list)
    planned: int = 0
    over_limit: int = 0
    thinned: int = 0
    """Rows that the strides asked for and the budget did not plan."""
    layer_stride: int = 1
    """Every how many layers one is summarised, ..."""
    layer_phase: int = 0
    """... and which."""
    spans: int = 0
    """Spans of all rows, one more than the prompt's for each row."""
    parts: list[StepPart] = field(default_factory=list)
    """The same rows by detail level, each with its place in the buffers of its part."""
    cross: StepPart | None = None
    """Those of them that have an encoder's input, over that."""
    failed: bool = False
    offered: int = 0
    """Rows that were handed to the sender."""
    plain: StepPart | None = None
    """The only part, where layers that have been summarised before may be summarised the short way."""
    checked: bool = False
    """Whether a layer was held against the oracle, which costs more than summarising."""

    @property
    def taken(self) -> int:
        """Return the number of rows that are summarised."""
        return self.planned - self.over_limit

    @property
    def written(self) -> bool:
        """Return whether any layer has a summary to send."""
        return any(part.written for part in self.all_parts)

    @property
    def all_parts(self) -> tuple[StepPart, ...]:
        """Return all parts, that of cross-attention last."""
        return (*self.parts, self.cross) if self.cross is not None else tuple(self.parts)

    def parts_of(self, kind: AttentionKind) -> Sequence[StepPart]:
        """Return the parts that attention layers of *kind* fill."""
        if kind == "self":
            return self.parts
        return () if self.cross is None else (self.cross,)

    def fail(self) -> None:
        """Take note that nobody can tell which of the summaries are right: none is sent."""
        self.failed = True
        for part in self.all_parts:
            for buffer in part.buffers:
                buffer.written.clear()

    @property
    def exportable(self) -> int:
        """Return the number of rows of which there is a summary to send."""
        return sum(part.taken for part in self.parts if part.written)


def parse_context(extra_args: dict[str, object] | None, engine_id: str, adapter: str) -> SampledRequest | None:
    """Return the sampled request that the front end marked, or None where it did not.

    Raises:
        msgspec.ValidationError: The context is not one of ours.
        ValueError: Its spans are no partition of the prompt.
    """
    text = (extra_args or {}).get(CONTEXT_KEY)
    if not isinstance(text, str):
        return None
    context = msgspec.structs.replace(_decode_context(text), engine_id=engine_id)
    if adapter and not context.adapter:
        context = msgspec.structs.replace(context, adapter=adapter)
    seed = seed_of(engine_id)
    cross = SampledRequest(context, row_spans(context.encoder_spans), seed) if context.encoder_spans else None
    return SampledRequest(context, row_spans(context.spans), seed, cross=cross)


def plan_step(
    requests: dict[str, SampledRequest],
    batch: StepBatch,
    drafts: Mapping[str, int],
    settings: Settings,
    max_rows: int,
    budget: Budget,
) -> StepPlan:
    """Return the plan of one step, of at most *max_rows* rows.

    *drafts* counts the draft tokens of a request: the last of its rows.  They may be rejected later, and are left out; the
    rows before them are those of tokens that stand.
    """
    wanted = []
    for batch_index, engine_id in enumerate(batch.ids):
        request = requests.get(engine_id)
        if request is None:
            continue
        start, end = batch.query_starts[batch_index], batch.query_starts[batch_index + 1]
        length = batch.sequence_lengths[batch_index]
        first, context = length - (end - start), request.context
        sampling = settings.of(context.route, context.adapter, length)
        step_stride, prefill_stride = (1, 1) if context.full else (sampling.step_stride, sampling.prefill_stride)
        begin, stop = max(first, request.last_position + 1), length - drafts.get(engine_id, 0)
        if context.canary:  # the last rows of its prompt, and nothing else
            begin, stop = max(begin, context.prompt_tokens - CANARY_ROWS), min(stop, context.prompt_tokens)
        found = wanted_positions(begin, stop, context.prompt_tokens, step_stride, prefill_stride)
        if not found:
            continue
        request.last_position = found[-1]
        detail = max(sampling.detail, context.detail)
        wanted.append(WantedRows(request, batch_index, start - first, found, step_stride, prefill_stride, detail))
    return admitted(wanted, max_rows, budget)


def admitted(wanted: list[WantedRows], max_rows: int, budget: Budget) -> StepPlan:
    """Return the plan of the *wanted* rows that *budget* admits, at most *max_rows*."""
    plan = StepPlan()
    if not wanted:
        return plan
    tokens: list[int] = []
    reads: list[int] = []
    """Tokens as they count for the cost: a close look takes as long as many plain ones."""
    numbers: list[float] = []
    exempt: list[bool] = []
    owed: list[bool] = []
    ends: list[int] = []
    for item in wanted:
        seed = item.request.seed
        tokens += [position + 1 for position in item.positions]
        times = DETAIL_COST if item.detail > SPAN_MASSES else 1
        reads += [(position + 1) * times for position in item.positions]
        numbers += [uniform(seed, position) for position in item.positions]
        exempt += [item.request.context.full] * len(item.positions)
        owed += [bool(item.request.context.canary)] * len(item.positions)
        ends.append(len(tokens))
    admission = budget.admit(reads, numbers, exempt, max_rows, owed)
    plan.planned = len(admission.kept) + admission.over_limit
    plan.over_limit = admission.over_limit
    plan.thinned = len(tokens) - plan.planned
    plan.layer_stride = admission.layer_stride
    first_row = 0
    for item, end in zip(wanted, ends, strict=True):
        last_row = bisect_left(admission.kept, end)
        if last_row == first_row:
            continue
        found = [tokens[row] - 1 for row in admission.kept[first_row:last_row]]
        weights = [
            weight * item.stands_for(position)
            for position, weight in zip(found, admission.weights[first_row:last_row], strict=True)
        ]
        mine = np.array(found, np.int64)
        plan.rows.append(
            RequestRows(
                item.request, item.batch_index, mine, mine + item.shift, found[-1] + 1, first_row, plan.spans,
                np.array(weights), item.detail,
            )
        )  # fmt: skip
        plan.spans += len(mine) * (item.request.spans.spans + 1)
        first_row = last_row
    return plan


def wanted_positions(first: int, end: int, prompt_tokens: int, step_stride: int, prefill_stride: int) -> list[int]:
    """Return the positions in ``[first, end)`` that are sampled, ascending.

    The last row of the prompt always, earlier ones by *prefill_stride* (0: none) counted back from it, and generated ones
    by *step_stride* counted from the first.
    """
    wanted = []
    last = prompt_tokens - 1
    if first <= last:
        if prefill_stride > 0:
            stop = min(end - 1, last)
            stop -= (stop - last) % prefill_stride
            wanted = list(range(stop, first - 1, -prefill_stride))[::-1]
        elif last < end:
            wanted = [last]
    generated = max(first, prompt_tokens)
    generated += -(generated - prompt_tokens) % step_stride
    wanted.extend(range(generated, end, step_stride))
    return wanted
