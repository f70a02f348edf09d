"""Whether the step that the scheduler has put together can hold sampled rows, told before the engine chooses a CUDA graph.

A FULL graph replays without any Python, so rows of that step could not be seen; and the choice is made before the batch
stands in its order.  The scheduler's output already says which positions of which request run, so it is enough.  The answer
may be yes where the budget later plans nothing, never no where a row is wanted.

Cost: one set operation in a step without sampled requests; with some, about 0.1 microsecond for each request of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.capture.plan.step import SampledRequest, parse_context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch.capture.settings import Settings


def holds_rows(requests: Mapping[str, SampledRequest], scheduled: Any, settings: Settings) -> bool:
    """Return whether *scheduled* (vLLM 0.32 ``SchedulerOutput``) computes a position of *requests* that is wanted."""
    counts = scheduled.num_scheduled_tokens
    found = requests.keys() & counts.keys()
    if not found or not settings.enabled:
        return False
    cached = scheduled.scheduled_cached_reqs
    computed = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
    computed.update((new.req_id, new.num_computed_tokens) for new in scheduled.scheduled_new_reqs)
    drafts = scheduled.scheduled_spec_decode_tokens
    for engine_id in found:
        request = requests[engine_id]
        first, context = computed[engine_id], request.context
        end = first + counts[engine_id]
        sampling = settings.of(context.route, context.adapter, end)
        if any_wanted(
            max(first, request.last_position + 1),
            end - len(drafts.get(engine_id, ())),
            context.prompt_tokens,
            1 if context.full else sampling.step_stride,
            1 if context.full else sampling.prefill_stride,
        ):
            return True
    return False


def any_wanted(first: int, end: int, prompt_tokens: int, step_stride: int, prefill_stride: int) -> bool:
    """Return whether ``wanted_positions`` of the same arguments is not empty, without the list."""
    last = prompt_tokens - 1
    if first <= last:
        if prefill_stride > 0:
            stop = min(end - 1, last)
            if stop - (stop - last) % prefill_stride >= first:
                return True
        elif last < end:
            return True
    generated = max(first, prompt_tokens)
    return generated + -(generated - prompt_tokens) % step_stride < end


class Forecast:
    """Follows the sampled requests of a scheduler, in the engine core's process."""

    def __init__(self) -> None:
        self._requests: dict[str, SampledRequest] = {}

    def of(self, scheduled: Any, settings: Settings) -> bool:
        """Return whether the step *scheduled* can hold sampled rows, and note which requests begin and end."""
        for engine_id in scheduled.finished_req_ids:
            self._requests.pop(engine_id, None)
        for new in scheduled.scheduled_new_reqs:
            parameters = new.sampling_params
            if parameters is None or not parameters.extra_args:
                continue
            adapter = new.lora_request.lora_name if new.lora_request is not None else ""
            request = parse_context(parameters.extra_args, new.req_id, adapter)
            if request is not None:
                self._requests[new.req_id] = request
        return holds_rows(self._requests, scheduled, settings)
