"""The digest of a prompt's system text and template: the same for what an author wrote once, another where it changed."""

from __future__ import annotations

from headwatch.capture.request.digest import prompt_digest
from headwatch.capture.request.field import CONTEXT_KEY, Field
from headwatch.capture.request.front_end import FrontEnd
from headwatch.capture.request.spans import resolve
from headwatch.capture.request.template import derive
from headwatch.config import CaptureConfig
from headwatch.model import Span

from .chat_tokenizer import CHATML, chat_tokenizer, prompt_ids
from .test_front_end import ALL, IDS, NONE, TOKENIZER, Parameters, Request, context_of


def digest_of(*turns: tuple[str, str], template: str = CHATML) -> str:
    tokenizer = chat_tokenizer(template)
    ids = prompt_ids(tokenizer, *turns)
    return prompt_digest(ids, resolve(ids, tokenizer, Field(), roles=derive(tokenizer), config=CaptureConfig()).spans)


def test_what_users_write_does_not_change_it() -> None:
    system = ("system", "Answer briefly.")
    one = digest_of(system, ("user", "Paris?"))
    assert len(one) == 8
    assert int(one, 16) >= 0
    assert digest_of(system, ("user", "Something else, and longer.")) == one


def test_a_longer_conversation_does_not_change_it() -> None:
    system = ("system", "Answer briefly.")
    turns = [("user", "One?"), ("assistant", "Yes."), ("user", "Two?"), ("assistant", "No."), ("user", "Three?")]
    assert digest_of(system, *turns) == digest_of(system, *turns[:3]) == digest_of(system, turns[0])


def test_another_system_prompt_changes_it() -> None:
    user = ("user", "Paris?")
    assert digest_of(("system", "Answer briefly."), user) != digest_of(("system", "Answer at length."), user)


def test_one_newline_in_the_template_changes_it() -> None:
    turns = ("system", "Answer briefly."), ("user", "Paris?")
    changed = CHATML.replace("<|im_end|>", "<|im_end|>\n", 1)
    assert changed != CHATML
    assert digest_of(*turns, template=changed) != digest_of(*turns)


def test_a_prompt_without_system_or_template_has_none() -> None:
    assert prompt_digest([1, 2, 3], [Span("user", 0, 3)]) == ""


def test_it_travels_with_sampled_requests_alone() -> None:
    request = Request()
    FrontEnd(ALL).annotate(request, TOKENIZER)
    context = context_of(request)
    assert context is not None
    assert context.prompt_digest == prompt_digest(IDS, context.spans) != ""
    request = Request(sampling_params=Parameters())
    FrontEnd(NONE).annotate(request, TOKENIZER)
    assert CONTEXT_KEY not in (request.sampling_params.extra_args or {})  # type: ignore[union-attr]
