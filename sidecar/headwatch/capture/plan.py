"""Which query rows of an engine step are summarised.

Planned once a step, before the first attention layer runs, from the request ids, the query lengths and the sequence
lengths of the batch.  A position is never sampled twice, also when a preempted request computes it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from headwatch.capture.attention import RowSpans, row_spans
from headwatch.capture.field import CONTEXT_KEY
from headwatch.model import RequestContext

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwatch.capture.buffer import SummaryBuffer
    from headwatch.capture.runners.base import StepBatch
    from headwatch.config import CaptureConfig

_decode_context = msgspec.json.Decoder(RequestContext).decode


@dataclass(slots=True)
class SampledRequest:
    """A sampled request that the engine is working on."""

    context: RequestContext
    spans: RowSpans
    last_position: int = -1


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


@dataclass(slots=True)
class StepPlan:
    """What one step summarises, and the buffers that the layers fill."""

    rows: list[RequestRows] = field(default_factory=list)
    planned: int = 0
    over_limit: int = 0
    spans: int = 0
    """Spans of all rows, one more than the prompt's for each row."""
    buffers: list[SummaryBuffer] = field(default_factory=list)
    memo: dict[Any, Any] = field(default_factory=dict)
    """What kernels prepare once for all layers of the step."""
    failed: bool = False

    @property
    def taken(self) -> int:
        """Return the number of rows that are summarised."""
        return self.planned - self.over_limit

    @property
    def written(self) -> bool:
        """Return whether any layer has a summary to send."""
        return any(buffer.written for buffer in self.buffers)


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
    return SampledRequest(context, row_spans(context.spans))


def plan_step(
    requests: dict[str, SampledRequest], batch: StepBatch, skipped: frozenset[str], config: CaptureConfig
) -> StepPlan:
    """Return the plan of one step.

    *skipped* requests carry draft tokens, whose rows may be rejected later.
    """
    plan = StepPlan()
    for batch_index, engine_id in enumerate(batch.ids):
        request = requests.get(engine_id)
        if request is None or engine_id in skipped:
            continue
        start, end = batch.query_starts[batch_index], batch.query_starts[batch_index + 1]
        length = batch.sequence_lengths[batch_index]
        first = length - (end - start)
        wanted = wanted_positions(
            max(first, request.last_position + 1), length, request.context.prompt_tokens, config
        )
        if not wanted:
            continue
        request.last_position = wanted[-1]
        room = config.max_rows_per_step - plan.taken
        plan.planned += len(wanted)
        if len(wanted) > room:
            plan.over_limit += len(wanted) - room
            wanted = wanted[len(wanted) - room :]
            if not wanted:
                continue
        positions = np.array(wanted, np.int64)
        first_row, first_span = plan.taken - len(wanted), plan.spans
        plan.spans += len(wanted) * (request.spans.spans + 1)
        plan.rows.append(
            RequestRows(
                request, batch_index, positions, positions + (start - first), wanted[-1] + 1, first_row, first_span
            )
        )
    return plan


def wanted_positions(first: int, end: int, prompt_tokens: int, config: CaptureConfig) -> list[int]:
    """Return the positions in ``[first, end)`` that are sampled, ascending.

    The last row of the prompt always, earlier ones by ``prefill_stride`` counted back from it, and generated ones by
    ``step_stride`` counted from the first.
    """
    wanted = []
    last = prompt_tokens - 1
    if first <= last:
        if config.prefill_stride > 0:
            stop = min(end - 1, last)
            stop -= (stop - last) % config.prefill_stride
            wanted = list(range(stop, first - 1, -config.prefill_stride))[::-1]
        elif last < end:
            wanted = [last]
    stride = config.step_stride
    generated = max(first, prompt_tokens)
    generated += -(generated - prompt_tokens) % stride
    wanted.extend(range(generated, end, stride))
    return wanted
