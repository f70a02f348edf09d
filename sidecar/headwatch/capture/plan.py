"""Which query rows of an engine step are summarised.

Planned once a step, before the first attention layer runs, from the request ids, the query lengths and the sequence
lengths of the batch.  A position is never sampled twice, also when a preempted request computes it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import torch

from headwatch.capture.field import CONTEXT_KEY
from headwatch.capture.oracle import RowSpans
from headwatch.model import RequestContext

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

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
    positions: Tensor  # int64 [R]
    query_index: Tensor  # int64 [R] rows of the step's query tensor
    keys: int
    """Positions to read from the cache: the last planned one and all before it."""


@dataclass(slots=True)
class StepPlan:
    """What one step summarises, and the results as they come in, layer by layer."""

    rows: list[RequestRows] = field(default_factory=list)
    planned: int = 0
    over_limit: int = 0
    results: dict[int, tuple[NDArray[np.float32], list[NDArray[np.float32]]]] = field(default_factory=dict)
    """Layer number to (features [R, H, 6], span masses of each request [R, spans + 1, H])."""
    failed: bool = False


def parse_context(extra_args: dict[str, object] | None, engine_id: str, adapter: str) -> SampledRequest | None:
    """Return the sampled request that the front end marked, or None where it did not.

    Raises:
        msgspec.ValidationError: The context is not one of ours.
    """
    text = (extra_args or {}).get(CONTEXT_KEY)
    if not isinstance(text, str):
        return None
    context = msgspec.structs.replace(_decode_context(text), engine_id=engine_id)
    if adapter and not context.adapter:
        context = msgspec.structs.replace(context, adapter=adapter)
    index = torch.zeros(context.prompt_tokens, dtype=torch.int64)
    document = torch.zeros(context.prompt_tokens, dtype=torch.bool)
    for number, span in enumerate(context.spans):
        index[span.start : span.end] = number
        document[span.start : span.end] = span.kind == "document"
    return SampledRequest(context, RowSpans(index, len(context.spans), document))


def plan_step(
    requests: dict[str, SampledRequest],
    batch_ids: Iterable[str],
    query_starts: list[int],
    sequence_lengths: list[int],
    skipped: frozenset[str],
    config: CaptureConfig,
) -> StepPlan:
    """Return the plan of one step.

    *batch_ids* are the engine's request ids in row order; request i has its queries in ``[query_starts[i],
    query_starts[i+1])`` and ``sequence_lengths[i]`` positions in the cache after this step.  *skipped* requests carry
    draft tokens, whose rows may be rejected later.
    """
    plan = StepPlan()
    for batch_index, engine_id in enumerate(batch_ids):
        request = requests.get(engine_id)
        if request is None or engine_id in skipped:
            continue
        start, end = query_starts[batch_index], query_starts[batch_index + 1]
        first = sequence_lengths[batch_index] - (end - start)
        wanted = [
            position
            for position in range(max(first, request.last_position + 1), sequence_lengths[batch_index])
            if is_wanted(position, request.context.prompt_tokens, config)
        ]
        if not wanted:
            continue
        request.last_position = wanted[-1]
        plan.planned += len(wanted)
        room = config.max_rows_per_step - (plan.planned - plan.over_limit - len(wanted))
        if len(wanted) > room:
            plan.over_limit += len(wanted) - max(room, 0)
            wanted = wanted[len(wanted) - room :] if room > 0 else []
            if not wanted:
                continue
        positions = torch.tensor(wanted, dtype=torch.int64)
        plan.rows.append(RequestRows(request, batch_index, positions, positions - first + start, wanted[-1] + 1))
    return plan


def is_wanted(position: int, prompt_tokens: int, config: CaptureConfig) -> bool:
    """Return whether the row at *position* is sampled: the last prompt row always, others by their stride."""
    if position >= prompt_tokens:
        return (position - prompt_tokens) % config.step_stride == 0
    from_last = prompt_tokens - 1 - position
    return from_last == 0 or (config.prefill_stride > 0 and from_last % config.prefill_stride == 0)
