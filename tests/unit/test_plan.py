"""Which rows are summarised."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.capture.field import CONTEXT_KEY
from headwatch.capture.plan import SampledRequest, StepPlan, parse_context
from headwatch.capture.plan import plan_step as plan_batch
from headwatch.capture.runners.base import StepBatch
from headwatch.config import CaptureConfig
from headwatch.model import Document, RequestContext, Span


def request(prompt: int = 10) -> SampledRequest:
    context = RequestContext("r", prompt, [Span("system", 0, 2), Span("document", 2, prompt, 0)], [Document("d")])
    found = parse_context({CONTEXT_KEY: msgspec.json.encode(context).decode()}, "r-1", "lora")
    assert found is not None
    return found


EVERY = CaptureConfig(step_stride=1, prefill_stride=1)


def plan_step(requests, ids, starts, lengths, skipped, config) -> StepPlan:
    return plan_batch(requests, StepBatch(ids, starts, lengths), skipped, config)


def positions(plan: object) -> list[int]:
    return [int(p) for rows in plan.rows for p in rows.positions]  # type: ignore[attr-defined]


def test_an_unmarked_request_is_not_sampled() -> None:
    assert parse_context(None, "r", "") is None
    assert parse_context({"headwatch": "{}"}, "r", "") is None


def test_the_worker_adds_its_own_id_and_the_adapter() -> None:
    assert request().context.engine_id == "r-1"
    assert request().context.adapter == "lora"
    assert request().spans.document.tolist() == [0, 1]
    assert request().spans.ends.tolist() == [2, 10]


def test_by_default_the_last_prompt_row_and_every_eighth_decode_row_are_sampled() -> None:
    sampled, config = request(10), CaptureConfig()
    assert positions(plan_step({"a": sampled}, ["a"], [0, 10], [10], frozenset(), config)) == [9]
    seen = [
        position
        for length in range(11, 30)
        for position in positions(plan_step({"a": sampled}, ["a"], [0, 1], [length], frozenset(), config))
    ]
    assert seen == [10, 18, 26]


def test_rows_of_a_mixed_batch_point_into_the_step_s_queries() -> None:
    """Request b is the third of the batch: 4 tokens of a chunked prefill whose last position is 7."""
    plan = plan_step({"b": request(20)}, ["x", "y", "b"], [0, 1, 6, 10], [3, 30, 8], frozenset(), EVERY)
    assert positions(plan) == [4, 5, 6, 7]
    assert plan.rows[0].query_index.tolist() == [6, 7, 8, 9]
    assert plan.rows[0].batch_index == 2
    assert plan.rows[0].keys == 8


def test_a_request_with_draft_tokens_is_left_out() -> None:
    assert plan_step({"a": request()}, ["a"], [0, 3], [13], frozenset({"a"}), EVERY).planned == 0


def test_rows_over_the_limit_are_counted_and_the_latest_are_kept() -> None:
    config = CaptureConfig(step_stride=1, prefill_stride=1, max_rows_per_step=3)
    plan = plan_step({"a": request(), "b": request()}, ["a", "b"], [0, 5, 10], [5, 5], frozenset(), config)
    assert positions(plan) == [2, 3, 4]
    assert (plan.planned, plan.over_limit) == (10, 7)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_no_position_is_sampled_twice_not_even_after_preemption(
    chunks: list[int], stride: int, prefill_stride: int, preempt: bool
) -> None:
    config = CaptureConfig(step_stride=stride, prefill_stride=prefill_stride)
    sampled, length, seen = request(12), 0, []
    for chunk in chunks:
        length += chunk
        seen += positions(plan_step({"a": sampled}, ["a"], [0, chunk], [length], frozenset(), config))
    if preempt:  # everything is computed again in one step
        seen += positions(plan_step({"a": sampled}, ["a"], [0, length], [length], frozenset(), config))
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)


@pytest.mark.parametrize("text", ["{", '{"request_id": 1}', "[]"])
def test_a_context_that_is_not_ours_is_an_error_for_the_breaker(text: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        parse_context({CONTEXT_KEY: text}, "r", "")
