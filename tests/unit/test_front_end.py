"""The hook in vLLM's front end: sampled requests carry their context, nothing else changes, nothing ever raises."""

import copy
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from headwatch.capture.request.field import CONTEXT_KEY
from headwatch.capture.request.front_end import FrontEnd
from headwatch.client import request_field
from headwatch.config import CaptureConfig, RouteConfig
from headwatch.model import RequestContext, Span

from .chat_tokenizer import CHATML, chat_tokenizer, prompt_ids

TOKENIZER = chat_tokenizer(CHATML)
IDS = prompt_ids(TOKENIZER, ("user", "Paris is the capital. Question?"))
ALL = CaptureConfig(sample_rate=1.0)
NONE = CaptureConfig(sample_rate=0.0)
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Parameters:
    """The part of vLLM's SamplingParams that the front end touches."""

    extra_args: dict[str, Any] | None = None


@dataclass
class Request:
    """The part of vLLM's EngineCoreRequest that the front end reads."""

    request_id: str = "chatcmpl-1"
    prompt_token_ids: list[int] | None = field(default_factory=lambda: list(IDS))
    sampling_params: Parameters | None = field(default_factory=Parameters)
    mm_features: list[Any] | None = None
    lora_request: Any = None
    prompt_embeds: Any = None
    trace_headers: dict[str, str] | None = None
    resumable: bool = False
    external_req_id: str | None = None


def context_of(request: Request) -> RequestContext | None:
    assert request.sampling_params is not None
    text = (request.sampling_params.extra_args or {}).get(CONTEXT_KEY)
    return None if text is None else msgspec.json.decode(text, type=RequestContext)


def annotated(config: CaptureConfig = ALL, tokenizer: Any = TOKENIZER, **parts: Any) -> tuple[RequestContext | None, FrontEnd]:
    front_end = FrontEnd(config)
    request = Request(**parts)
    front_end.annotate(request, tokenizer)
    return context_of(request), front_end


def test_a_sampled_request_carries_what_its_prompt_consists_of():
    named = request_field(
        documents=[{"id": "a", "text": "Paris is the capital."}], route="support", arm="B", traceparent=TRACEPARENT
    )
    context, front_end = annotated(sampling_params=Parameters(named), lora_request=SimpleNamespace(lora_name="french"))
    assert context is not None
    assert (context.request_id, context.prompt_tokens, context.route, context.arm) == ("chatcmpl-1", len(IDS), "support", "B")
    assert (context.trace_id, context.parent_span_id, context.adapter) == (TRACE, "b7ad6b7169203331", "french")
    assert [span.kind for span in context.spans] == ["template", "document", "user", "template"]
    assert [(document.id, document.found) for document in context.documents] == [("a", True)]
    assert (context.errors, front_end.errors, front_end.sampled) == ([], {}, 1)


def test_the_callers_own_parameters_are_left_alone():
    """vLLM may clone parameters shallowly, so the dict may be the one that the caller uses again."""
    shared = {"other": 1, **request_field(route="a")}
    before = copy.deepcopy(shared)
    request = Request(sampling_params=Parameters(shared))
    FrontEnd(ALL).annotate(request, TOKENIZER)
    assert shared == before
    assert request.sampling_params is not None
    assert request.sampling_params.extra_args is not None
    assert set(request.sampling_params.extra_args) == {"other", CONTEXT_KEY}, "the field, with its texts, stays behind"


def test_an_unsampled_request_loses_its_field_and_needs_no_tokenizer():
    parameters = Parameters(request_field(route="a"))
    context, _ = annotated(NONE, tokenizer=object(), sampling_params=parameters)
    assert context is None
    assert not parameters.extra_args


def test_a_client_may_opt_out_and_may_insist():
    assert annotated(ALL, sampling_params=Parameters(request_field(capture=False)))[0] is None
    assert annotated(NONE, sampling_params=Parameters(request_field(capture="always")))[0] is not None


def test_full_asks_for_every_row_and_always_for_the_ordinary_ones():
    for capture, full in (("full", True), ("always", False)):
        context, _ = annotated(NONE, sampling_params=Parameters(request_field(capture=capture)))  # type: ignore[arg-type]
        assert context is not None
        assert (context.full, context.weight) == (full, 1.0)


def test_a_request_that_was_drawn_stands_for_those_that_were_not():
    """Sum of weights over the sampled ones is the number of requests, as near as chance allows."""
    config = CaptureConfig(sample_rate=0.25)
    contexts = [annotated(config, request_id=f"chatcmpl-{number}")[0] for number in range(400)]
    weights = [context.weight for context in contexts if context is not None]
    assert set(weights) == {4.0}
    assert 300 < sum(weights) < 500


def test_routes_have_rates_of_their_own():
    config = CaptureConfig(sample_rate=0.0, routes={"hr": RouteConfig(sample_rate=1.0), "it": RouteConfig(step_stride=1)})

    def sampled(**field: Any) -> bool:
        return annotated(config, sampling_params=Parameters(request_field(**field)))[0] is not None

    assert sampled(route="hr")
    assert not sampled(route="it")
    assert not sampled(route="other")
    assert not sampled(route="hr", capture=False), "who opts out is left out whatever the rate"
    assert sampled(route="it", capture="full")
    assert annotated(config)[0] is None


@pytest.mark.parametrize("where", ["header", "field"])
def test_requests_of_one_trace_are_sampled_together(where: str):
    def sampled(request_id: str, traceparent: str) -> bool:
        parts: dict[str, Any] = {"trace_headers": {"traceparent": traceparent}}
        if where == "field":
            parts = {"sampling_params": Parameters(request_field(traceparent=traceparent))}
        return annotated(CaptureConfig(sample_rate=0.5), request_id=request_id, **parts)[0] is not None

    decisions = [{sampled(f"r{n}", f"00-{trace:032x}-b7ad6b7169203331-01") for n in range(4)} for trace in range(8)]
    assert all(len(decision) == 1 for decision in decisions)
    assert {True, False} == set.union(*decisions)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "malformed_json"), ('{"rout": "a"}', "unknown_key"), (5, "not_a_string"), (["a"], "not_a_string")],
)
def test_a_field_that_cannot_be_used_costs_its_documents_and_says_why(text: object, reason: str):
    context, front_end = annotated(sampling_params=Parameters({"headwatch": text}))
    assert context is not None
    assert context.errors == [reason]
    assert front_end.errors == {reason: 1}
    assert [span.kind for span in context.spans] == ["template", "user", "template"]


def test_a_client_cannot_plant_a_context():
    """The worker trusts the context: one from outside could make it allocate without bound."""
    planted = {CONTEXT_KEY: '{"prompt_tokens": 1000000000000}', "other": 1}
    parameters = Parameters(planted)
    context, front_end = annotated(NONE, sampling_params=parameters)
    assert context is None
    assert parameters.extra_args == {"other": 1}
    assert planted[CONTEXT_KEY]
    assert front_end.errors == {"forged_context": 1}


def test_images_and_sounds_are_spans_of_their_own():
    feature = SimpleNamespace(modality="image", mm_position=SimpleNamespace(offset=2, length=3))
    context, _ = annotated(mm_features=[feature])
    assert context is not None
    assert Span("image", 2, 5) in context.spans


@pytest.mark.parametrize(
    ("parts", "reasons"),
    [
        ({"sampling_params": None}, {}),
        ({"prompt_embeds": object()}, {"prompt_embeds": 1}),
        ({"prompt_token_ids": None}, {"prompt_embeds": 1}),
        ({"resumable": True}, {"resumable": 1}),
    ],
)
def test_requests_whose_positions_are_not_known_are_not_sampled(parts: dict[str, Any], reasons: dict[str, int]):
    front_end = FrontEnd(ALL)
    request = Request(**parts)
    front_end.annotate(request, TOKENIZER)
    assert request.sampling_params is None or context_of(request) is None
    assert front_end.errors == reasons


def test_an_engine_without_a_tokenizer_still_gets_a_context():
    context, _ = annotated(tokenizer=None)
    assert context is not None
    assert (context.spans, context.errors) == ([Span("user", 0, len(IDS))], ["no_tokenizer"])


class Breaking:
    """A tokenizer that fails at everything but being copied."""

    def decode(self, *_: Any, **__: Any) -> str:
        raise ZeroDivisionError


def test_a_fault_of_ours_leaves_the_request_and_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture):
    front_end = FrontEnd(ALL)
    for _ in range(3):
        request = Request()
        front_end.annotate(request, Breaking())
        assert context_of(request) is None
    assert front_end.errors == {"ZeroDivisionError": 3}
    assert len(caplog.records) == 1


def processor() -> Any:
    """Return a class with the method that is hooked, as vLLM's InputProcessor has it."""

    class Processor:
        tokenizer = TOKENIZER

        def process_inputs(self, request_id: str, *, fail: bool = False) -> Request:
            """Original."""
            if fail:
                raise KeyError(request_id)
            return Request(request_id)

    return Processor


def test_the_hook_passes_arguments_results_and_errors_through():
    hooked = processor()
    FrontEnd(ALL).install(hooked)
    request = hooked().process_inputs("chatcmpl-9")
    context = context_of(request)
    assert context is not None
    assert context.request_id == "chatcmpl-9"
    assert hooked.process_inputs.__doc__ == "Original."
    with pytest.raises(KeyError, match="chatcmpl-9"):
        hooked().process_inputs("chatcmpl-9", fail=True)


def test_installing_twice_hooks_once():
    hooked = processor()
    first, second = FrontEnd(ALL), FrontEnd(ALL)
    first.install(hooked)
    second.install(hooked)
    hooked().process_inputs("chatcmpl-9")
    assert (first.sampled, second.sampled) == (1, 0)


def test_a_processor_that_lost_its_tokenizer_still_serves():
    hooked = processor()
    del hooked.tokenizer
    front_end = FrontEnd(ALL)
    front_end.install(hooked)
    assert context_of(hooked().process_inputs("chatcmpl-9")) is None
    assert front_end.errors == {"AttributeError": 1}
