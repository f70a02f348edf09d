"""Whether a step can hold sampled rows is told beforehand, and never wrongly denied."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwatch.capture.engine.graphs import Follower, mark_schedules, mark_schedules_of, marks
from headwatch.capture.plan.foresight import Forecast, any_wanted, holds_rows
from headwatch.capture.plan.step import parse_context, wanted_positions
from headwatch.capture.request.field import CONTEXT_KEY
from headwatch.capture.settings import of_file
from headwatch.config import CaptureConfig
from headwatch.model import RequestContext, Span

PROMPT = 20
SETTINGS = of_file(CaptureConfig(step_stride=8, prefill_stride=0))


def arguments(*, full: bool = False) -> dict[str, object]:
    context = RequestContext("r", PROMPT, [Span("user", 0, PROMPT)], full=full)
    return {CONTEXT_KEY: msgspec.json.encode(context).decode()}


def step(
    *, new: dict[str, int] | None = None, cached: dict[str, int] | None = None, counts: dict[str, int],
    drafts: dict[str, list[int]] | None = None, finished: tuple[str, ...] = (), extra: dict[str, object] | None = None,
) -> Any:
    """Return a scheduler's output: *new* and *cached* say how many positions each request has computed so far."""
    cached = cached or {}
    return SimpleNamespace(
        scheduled_new_reqs=[
            SimpleNamespace(
                req_id=engine_id, num_computed_tokens=computed, lora_request=None,
                sampling_params=SimpleNamespace(extra_args=arguments() if extra is None else extra),
            )
            for engine_id, computed in (new or {}).items()
        ],
        scheduled_cached_reqs=SimpleNamespace(req_ids=list(cached), num_computed_tokens=list(cached.values())),
        num_scheduled_tokens=counts,
        scheduled_spec_decode_tokens=drafts or {},
        finished_req_ids=set(finished),
    )


@given(
    st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 9), st.integers(0, 9)
)
def test_the_short_answer_is_that_of_the_list(
    first: int, count: int, prompt: int, step_stride: int, prefill_stride: int
) -> None:
    expected = bool(wanted_positions(first, first + count, prompt, step_stride, prefill_stride))
    assert any_wanted(first, first + count, prompt, step_stride, prefill_stride) is expected


def test_only_steps_with_a_row_that_the_strides_ask_for_hold_rows() -> None:
    """The last prompt row is position 19, the generated ones are 20, 28, 36 …"""
    forecast = Forecast()
    assert not forecast.of(step(new={"a": 0}, counts={"a": 16}), SETTINGS), "a chunk that does not reach the prompt's end"
    assert forecast.of(step(cached={"a": 16}, counts={"a": 4}), SETTINGS)
    held = [position for position in range(20, 45) if forecast.of(step(cached={"a": position}, counts={"a": 1}), SETTINGS)]
    assert held == [20, 28, 36, 44]


def test_requests_that_are_not_sampled_or_not_scheduled_or_ended_hold_nothing() -> None:
    forecast = Forecast()
    assert not forecast.of(step(new={"x": 0}, counts={"x": 20}, extra={}), SETTINGS)
    assert forecast.of(step(new={"a": 0}, counts={"a": 20}), SETTINGS)
    assert not forecast.of(step(cached={"x": 20}, counts={"x": 1}), SETTINGS), "a is not in this step"
    assert not forecast.of(step(finished=("a",), cached={"x": 21}, counts={"x": 1}), SETTINGS)


def test_a_request_that_wants_every_row_holds_one_in_every_step() -> None:
    requests = {"a": parse_context(arguments(full=True), "a", "")}
    assert all(
        holds_rows(requests, step(cached={"a": position}, counts={"a": 1}), SETTINGS)  # type: ignore[arg-type]
        for position in range(40)
    )


def test_draft_tokens_are_no_rows() -> None:
    """Positions 25 to 28, of which the last three are drafts: 28 is wanted, but may be rejected."""
    requests = {"a": parse_context(arguments(), "a", "")}
    drafted = step(cached={"a": 25}, counts={"a": 4}, drafts={"a": [1, 2, 3]})
    assert not holds_rows(requests, drafted, SETTINGS)  # type: ignore[arg-type]
    assert holds_rows(requests, step(cached={"a": 25}, counts={"a": 4}), SETTINGS)  # type: ignore[arg-type]


class Scheduler:
    """vLLM's scheduler, as far as it is wrapped."""

    def __init__(self, ranks: int, outputs: list[Any]) -> None:
        self.vllm_config = SimpleNamespace(parallel_config=SimpleNamespace(world_size=ranks))
        self._outputs = iter(outputs)

    def schedule(self, throttle_prefills: bool = False) -> Any:
        return next(self._outputs)


@pytest.mark.parametrize(("ranks", "expected"), [(2, [True, False, True]), (1, [False, False, False])])
def test_the_engine_core_marks_the_steps_of_engines_with_several_ranks(ranks: int, expected: list[bool]) -> None:
    """A worker that is alone decides by itself, so nothing is marked for it."""
    marked_scheduler = type("Marked", (Scheduler,), {"schedule": Scheduler.schedule})
    mark_schedules(marked_scheduler, lambda: SETTINGS)
    mark_schedules(marked_scheduler, lambda: SETTINGS)  # twice is once
    outputs = [
        step(new={"a": 0}, counts={"a": 20}),
        step(cached={"a": 21}, counts={"a": 1}),
        step(cached={"a": 28}, counts={"a": 1}),
    ]
    scheduler = marked_scheduler(ranks, outputs)
    assert [marks(scheduler.schedule()) for _ in outputs] == expected


def test_a_fault_while_marking_never_reaches_the_scheduler(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and that scheduler marks nothing more: who has missed a request cannot tell what a step holds."""
    broken = type("Broken", (Scheduler,), {"schedule": Scheduler.schedule})
    faults = [0]
    mark_schedules(broken, lambda: SETTINGS if not faults else faults.pop() / 0)  # type: ignore[arg-type, return-value]
    outputs = [step(counts={}), step(new={"a": 0}, counts={"a": 20})]
    scheduler = broken(2, list(outputs))
    assert [scheduler.schedule() for _ in outputs] == outputs
    assert not any(marks(output) for output in outputs)
    assert caplog.text.count("cannot see steps") == 1


def test_whatever_class_the_engine_schedules_with_is_wrapped_when_it_is_asked_for() -> None:
    own = type("Own", (Scheduler,), {"schedule": Scheduler.schedule})
    config_class = type("SchedulerConfig", (), {"get_scheduler_cls": lambda _: own})
    for _ in range(2):
        mark_schedules_of(config_class, lambda: SETTINGS)
    assert config_class().get_scheduler_cls() is own
    assert marks(own(2, [step(new={"a": 0}, counts={"a": 20})]).schedule())


def test_a_scheduler_that_cannot_be_wrapped_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    config_class = type("SchedulerConfig", (), {"get_scheduler_cls": lambda _: int})
    mark_schedules_of(config_class, lambda: SETTINGS)
    assert config_class().get_scheduler_cls() is int
    assert "cannot see steps" in caplog.text


def test_a_rank_without_capture_obeys_the_mark() -> None:
    follower, output = Follower(), step(counts={})
    follower.begin_step(output)
    assert not follower.full_graphs_excluded
    output.headwatch_sampled = True
    follower.begin_step(output)
    assert follower.full_graphs_excluded
    follower.end_step()
    assert not follower.full_graphs_excluded
