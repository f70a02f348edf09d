"""Canary requests in capture: sampled whatever the rate, their last rows whatever the budget, and no trace in the cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from headwatch.capture.engine.runners.base import StepBatch
from headwatch.capture.plan.budget import Budget
from headwatch.capture.plan.step import SampledRequest, StepPlan, parse_context, plan_step
from headwatch.capture.request.canaries import BURST, Allowance
from headwatch.capture.request.field import CONTEXT_KEY
from headwatch.capture.request.front_end import FrontEnd
from headwatch.capture.settings import of_file
from headwatch.client import request_field
from headwatch.config import CaptureConfig
from headwatch.model import CANARY_ROWS, RequestContext, Span

from ..chat_tokenizer import CHATML, chat_tokenizer, prompt_ids

TOKENIZER = chat_tokenizer(CHATML)
IDS = prompt_ids(TOKENIZER, ("user", "Why is the sea salty?"))
CANARY = request_field(canary="short", capture="full", route="headwatch.canary")


@dataclass
class Parameters:
    """The part of vLLM's SamplingParams that the front end touches."""

    extra_args: dict[str, Any] | None
    skip_reading_prefix_cache: bool | None = False


@dataclass
class Request:
    """The part of vLLM's EngineCoreRequest that the front end reads."""

    sampling_params: Parameters
    request_id: str = "chatcmpl-1"
    prompt_token_ids: list[int] = field(default_factory=lambda: list(IDS))
    mm_features: list[Any] | None = None
    lora_request: Any = None
    prompt_embeds: Any = None
    trace_headers: dict[str, str] | None = None
    resumable: bool = False
    external_req_id: str | None = None


def annotated(field: dict[str, str], front_end: FrontEnd | None = None) -> tuple[RequestContext | None, Parameters]:
    parameters = Parameters(dict(field))
    (front_end or FrontEnd(CaptureConfig(sample_rate=0.0))).annotate(Request(parameters), TOKENIZER)
    text = (parameters.extra_args or {}).get(CONTEXT_KEY)
    return None if text is None else msgspec.json.decode(text, type=RequestContext), parameters


def test_a_canary_is_sampled_whatever_the_rate_and_reads_nothing_from_the_prefix_cache() -> None:
    context, parameters = annotated(CANARY)
    assert context is not None
    assert (context.canary, context.route, context.full, context.weight) == ("short", "headwatch.canary", True, 1.0)
    assert parameters.skip_reading_prefix_cache is True
    assert context.prompt_digest
    context, _ = annotated(request_field(canary="short"))
    assert context is not None, "the mark is enough"


def test_other_requests_use_the_prefix_cache_as_before() -> None:
    context, parameters = annotated(request_field(route="support", capture="always"))
    assert context is not None
    assert (context.canary, parameters.skip_reading_prefix_cache) == ("", False)


def test_a_companion_is_marked_and_not_captured_and_uses_up_nothing() -> None:
    front_end = FrontEnd(CaptureConfig(sample_rate=1.0))
    for _ in range(3):
        context, parameters = annotated(request_field(canary="companion", capture=False), front_end)
        assert (context, parameters.skip_reading_prefix_cache) == (None, True)
    assert front_end.canaries.left == BURST


def test_canaries_are_admitted_by_a_token_bucket() -> None:
    now = [0.0]
    allowance = Allowance(clock=lambda: now[0])
    assert [allowance.take() for _ in range(BURST + 1)] == [True] * BURST + [False]
    now[0] = 1.9
    assert not allowance.take()
    now[0] = 4.0
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now[0] = 1e6
    assert sum(allowance.take() for _ in range(BURST + 10)) == BURST, "it holds no more than one burst"


def test_beyond_the_allowance_a_canary_is_served_unsampled_and_counted() -> None:
    front_end = FrontEnd(CaptureConfig(sample_rate=1.0))
    front_end.canaries.left = 1.0
    front_end.canaries.clock = lambda: 0.0
    assert annotated(CANARY, front_end)[0] is not None
    context, parameters = annotated(CANARY, front_end)
    assert (context, parameters.skip_reading_prefix_cache) == (None, True)
    assert front_end.errors["canary_limit"] == 1


def sampled(prompt: int, *, canary: str = "", full: bool = False, engine_id: str = "r") -> SampledRequest:
    context = RequestContext("r", prompt, [Span("user", 0, prompt)], full=full or bool(canary), canary=canary)
    found = parse_context({CONTEXT_KEY: msgspec.json.encode(context).decode()}, engine_id, "")
    assert found is not None
    return found


def planned(
    requests: dict[str, SampledRequest], starts: list[int], lengths: list[int], budget: Budget, rows: int = 64
) -> StepPlan:
    settings = of_file(CaptureConfig(step_stride=1, prefill_stride=1))
    return plan_step(requests, StepBatch(list(requests), starts, lengths), {}, settings, rows, budget)


def positions(plan: StepPlan) -> list[list[int]]:
    return [rows.positions.tolist() for rows in plan.rows]


@pytest.mark.parametrize(("prompt", "rows"), [(100, list(range(92, 100))), (5, list(range(5)))])
def test_the_last_rows_of_a_canarys_prompt_are_planned_and_no_generated_one(prompt: int, rows: list[int]) -> None:
    request = sampled(prompt, canary="short")
    assert positions(planned({"r": request}, [0, prompt], [prompt], Budget(1.0, 2))) == [rows]
    assert planned({"r": request}, [0, 1], [prompt + 1], Budget(1.0, 2)).planned == 0


def test_a_canarys_rows_are_found_when_its_prompt_comes_in_chunks() -> None:
    request = sampled(100, canary="short")
    assert planned({"r": request}, [0, 50], [50], Budget(1.0, 2)).planned == 0
    assert positions(planned({"r": request}, [0, 45], [95], Budget(1.0, 2))) == [[92, 93, 94]]
    assert positions(planned({"r": request}, [0, 5], [100], Budget(1.0, 2))) == [[95, 96, 97, 98, 99]]


def test_a_canarys_rows_are_owed_though_the_purse_is_in_debt_and_others_pay_for_them() -> None:
    budget = Budget(0.01, 30)
    budget.purse_seconds = -0.1
    both = {"canary": sampled(60, canary="short", engine_id="canary"), "other": sampled(60, engine_id="other")}
    plan = planned(both, [0, 60, 120], [60, 60], budget)
    assert positions(plan) == [list(range(52, 60))]
    assert plan.layer_stride == 1
    assert plan.rows[0].weights.tolist() == [1.0] * CANARY_ROWS
    budget.settle(0.05, 0.02)
    assert budget.purse_seconds < 0.0, "they are paid all the same"


def test_only_the_limit_of_a_step_refuses_a_canarys_rows_and_they_come_before_others() -> None:
    both = {"other": sampled(60, full=True, engine_id="other"), "canary": sampled(60, canary="short", engine_id="canary")}
    plan = planned(both, [0, 60, 120], [60, 60], Budget(1.0, 30), rows=10)
    assert [len(rows) for rows in positions(plan)] == [2, CANARY_ROWS]
    assert plan.over_limit == 58
    assert planned({"canary": sampled(60, canary="short")}, [0, 60], [60], Budget(0.01, 30), rows=3).over_limit == 5


def test_a_purse_that_is_too_small_for_one_row_in_every_layer_still_gives_a_canary_all_layers() -> None:
    budget = Budget(0.01, 30)
    budget.cost.row_seconds = 1.0
    assert planned({"canary": sampled(60, canary="short")}, [0, 60], [60], budget).layer_stride == 1
