"""Which rows are summarised."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.capture.engine.runners.base import StepBatch
from headwatch.capture.plan.budget import Budget
from headwatch.capture.plan.step import SampledRequest, StepPlan, parse_context
from headwatch.capture.plan.step import plan_step as plan_batch
from headwatch.capture.request.field import CONTEXT_KEY
from headwatch.capture.settings import Raised, of_file
from headwatch.config import CaptureConfig, RouteConfig
from headwatch.model import Document, RequestContext, Span
from headwatch.wire.control import Target


def request(prompt: int = 10, *, engine_id: str = "r-1", full: bool = False) -> SampledRequest:
    spans = [Span("system", 0, 2), Span("document", 2, prompt, 0)]
    context = RequestContext("r", prompt, spans, [Document("d")], full=full)
    found = parse_context({CONTEXT_KEY: msgspec.json.encode(context).decode()}, engine_id, "lora")
    assert found is not None
    return found


EVERY = CaptureConfig(step_stride=1, prefill_stride=1)


def plan_step(requests, ids, starts, lengths, drafts, config) -> StepPlan:
    unlimited = Budget(share=1.0, layers=2)
    return plan_batch(requests, StepBatch(ids, starts, lengths), drafts, of_file(config), config.max_rows_per_step, unlimited)


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
    assert positions(plan_step({"a": sampled}, ["a"], [0, 10], [10], {}, config)) == [9]
    seen = [
        position
        for length in range(11, 30)
        for position in positions(plan_step({"a": sampled}, ["a"], [0, 1], [length], {}, config))
    ]
    assert seen == [10, 18, 26]


def test_each_route_has_its_own_strides_and_whoever_asks_gets_every_row() -> None:
    config = CaptureConfig(step_stride=4, routes={"hr": RouteConfig(step_stride=2, prefill_stride=3, detail=0)})

    def seen(sampled: SampledRequest, route: str) -> list[int]:
        sampled.context = msgspec.structs.replace(sampled.context, route=route)
        return positions(plan_step({"a": sampled}, ["a"], [0, 16], [16], {}, config))

    assert seen(request(10), "it") == [9, 10, 14]
    assert seen(request(10), "hr") == [0, 3, 6, 9, 10, 12, 14]
    assert seen(request(10, full=True), "it") == list(range(16))


def test_what_live_control_orders_holds_from_the_next_step_on_and_a_raise_where_its_context_is_reached() -> None:
    sampled, config = request(10), CaptureConfig(step_stride=8)
    orders = of_file(config)
    raised = Raised(Target(context_from=14), RouteConfig(step_stride=1), 5.0)
    unlimited = Budget(share=1.0, layers=2)
    seen = []
    for length in range(10, 20):
        settings = orders if length < 12 else replace(orders, raises=(raised,))
        seen += positions(plan_batch({"a": sampled}, StepBatch(["a"], [0, 1], [length]), {}, settings, 64, unlimited))
    assert seen == [9, 10, 13, 14, 15, 16, 17, 18]


def test_rows_of_a_mixed_batch_point_into_the_step_s_queries() -> None:
    """Request b is the third of the batch: 4 tokens of a chunked prefill whose last position is 7."""
    plan = plan_step({"b": request(20)}, ["x", "y", "b"], [0, 1, 6, 10], [3, 30, 8], {}, EVERY)
    assert positions(plan) == [4, 5, 6, 7]
    assert plan.rows[0].query_index.tolist() == [6, 7, 8, 9]
    assert plan.rows[0].batch_index == 2
    assert plan.rows[0].keys == 8


def test_draft_tokens_are_left_out_and_the_token_before_them_is_not() -> None:
    """The last accepted token at position 10, and two drafts that may be rejected; with one accepted, 12 is next."""
    sampled = request()
    assert positions(plan_step({"a": sampled}, ["a"], [0, 3], [13], {"a": 2}, EVERY)) == [10]
    assert positions(plan_step({"a": sampled}, ["a"], [0, 3], [15], {"a": 2}, EVERY)) == [12]


def test_rows_over_the_limit_are_counted_and_those_kept_speak_for_them() -> None:
    """Which are kept is drawn; over many requests the weights add up to the rows that there were."""
    config = CaptureConfig(step_stride=1, prefill_stride=1, max_rows_per_step=3)
    totals = []
    for number in range(400):
        sampled = {name: request(engine_id=f"{name}{number}") for name in "ab"}
        plan = plan_step(sampled, ["a", "b"], [0, 5, 10], [5, 5], {}, config)
        assert (plan.planned, plan.over_limit, plan.taken, len(positions(plan))) == (10, 7, 3, 3)
        totals.append(sum(rows.weights.sum() for rows in plan.rows))
    assert np.mean(totals) == pytest.approx(10, abs=4 * np.std(totals) / 20)


def test_a_row_stands_for_its_stride_and_those_that_are_always_sampled_for_themselves() -> None:
    """A prompt of 10: rows 1, 5, 9 (its last), then 10 (the first generated one), 18, 26."""
    config = CaptureConfig(step_stride=8, prefill_stride=4)
    sampled = {"a": request(10)}
    plan = plan_step(sampled, ["a"], [0, 27], [27], {}, config)
    assert positions(plan) == [1, 5, 9, 10, 18, 26]
    assert plan.rows[0].weights.tolist() == [4, 4, 1, 1, 8, 8]


def test_a_request_that_wants_every_row_gets_it_whatever_the_strides() -> None:
    sampled = {"a": request(10, full=True)}
    plan = plan_step(sampled, ["a"], [0, 14], [14], {}, CaptureConfig())
    assert positions(plan) == list(range(14))
    assert (plan.rows[0].weights == 1).all()


@given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_no_position_is_sampled_twice_not_even_after_preemption(
    chunks: list[int], stride: int, prefill_stride: int, preempt: bool
) -> None:
    config = CaptureConfig(step_stride=stride, prefill_stride=prefill_stride)
    sampled, length, seen = request(12), 0, []
    for chunk in chunks:
        length += chunk
        seen += positions(plan_step({"a": sampled}, ["a"], [0, chunk], [length], {}, config))
    if preempt:  # everything is computed again in one step
        seen += positions(plan_step({"a": sampled}, ["a"], [0, length], [length], {}, config))
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)


@pytest.mark.parametrize("text", ["{", '{"request_id": 1}', "[]"])
def test_a_context_that_is_not_ours_is_an_error_for_the_breaker(text: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        parse_context({CONTEXT_KEY: text}, "r", "")
