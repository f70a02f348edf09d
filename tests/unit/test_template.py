"""Roles are learnt from the template: no template is known in advance."""

import pytest

from headwatch.capture.request.template import Turn, derive, split

from . import chat_tokenizer as kit

SYSTEM, ASK, ANSWER, AGAIN = ("system", "Be brief."), ("user", "Hello there"), ("assistant", "Hi"), ("user", "Next?")
LEARNT = {
    "chatml": kit.CHATML,
    "chatml_default_system": kit.CHATML_DEFAULT_SYSTEM,
    "qwen": kit.QWEN_TOOLS,
    "llama3": kit.LLAMA3,
    "llama2": kit.LLAMA2,
    "mistral": kit.MISTRAL,
    "gemma": kit.GEMMA,
    "vicuna": kit.VICUNA,
}


def turns(template: str, *messages: tuple[str, str], generation: bool = True, max_turns: int = 100):
    tokenizer = kit.chat_tokenizer(template)
    text = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages], tokenize=False, add_generation_prompt=generation
    )
    found = split(text, derive(tokenizer), max_turns=max_turns)
    assert "".join(text[turn.start : turn.end] for turn in found) == text
    return [(turn.kind, text[turn.start : turn.end].strip(), turn.age) for turn in found if turn.kind != "template"]


@pytest.mark.parametrize("name", LEARNT)
def test_each_turn_of_a_conversation_is_told_apart(name: str):
    assert turns(LEARNT[name], ASK, ANSWER, AGAIN)[-3:] == [
        ("history", "Hello there", 2), ("history", "Hi", 1), ("user", "Next?", 0)
    ]


@pytest.mark.parametrize("name", ["chatml", "chatml_default_system", "qwen", "llama2", "vicuna"])
def test_the_system_prompt_is_its_own(name: str):
    assert turns(LEARNT[name], SYSTEM, ASK) == [("system", "Be brief.", 0), ("user", "Hello there", 0)]


def test_a_system_prompt_that_the_template_adds_is_system():
    assert turns(kit.CHATML_DEFAULT_SYSTEM, ASK) == [("system", "You are helpful.", 0), ("user", "Hello there", 0)]


def test_words_that_a_template_adds_to_the_system_turn_belong_to_it():
    """Llama 3 puts the date there, which another day's prompt does not share."""
    assert turns(kit.LLAMA3, SYSTEM, ASK)[0] == ("system", "Today: 26 Jul\n\nBe brief.", 0)
    markers = derive(kit.chat_tokenizer(kit.LLAMA3))
    tomorrow = "<s><|start_header_id|>system<|end_header_id|>\n\nToday: 27 Jul\n\nBe brief.<|eot_id|>"
    assert [turn.kind for turn in split(tomorrow, markers, max_turns=9)] == ["template", "system", "template"]


def test_a_system_prompt_folded_into_the_first_user_turn_stays_there():
    assert turns(kit.GEMMA, SYSTEM, ASK) == [("user", "Be brief.\n\nHello there", 0)]


@pytest.mark.parametrize("name", ["chatml", "qwen", "gemma"])
def test_tool_results_are_tool_and_of_the_turn_that_asked_for_them(name: str):
    under_way = [("user", "Weather?"), ("assistant", "call"), ("tool", "sunny"), ("tool", "warm")]
    assert turns(LEARNT[name], ASK, ANSWER, *under_way)[2:] == [
        ("user", "Weather?", 0), ("history", "call", 0), ("tool", "sunny", 0), ("tool", "warm", 0)
    ]
    assert turns(LEARNT[name], ASK, ("assistant", "call"), ("tool", "sunny"), AGAIN)[2] == ("tool", "sunny", 1)


def test_an_answer_begun_by_the_client_is_not_the_users():
    assert turns(kit.CHATML, ASK, ("assistant", "Well,"), generation=False)[-1] == ("history", "Well,", 0)


def test_the_generation_prompt_is_template():
    tokenizer = kit.chat_tokenizer(kit.CHATML)
    found = split("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", derive(tokenizer), max_turns=9)
    assert found == [Turn("template", 0, 17), Turn("user", 17, 19), Turn("template", 19, 52)]


def test_beyond_the_limit_the_oldest_turns_are_one():
    messages = [ASK, ANSWER] * 50 + [AGAIN]
    found = turns(kit.CHATML, SYSTEM, *messages, max_turns=5)
    assert [(kind, age) for kind, _, age in found] == [
        ("system", 0), ("history", 3), ("history", 2), ("history", 1), ("user", 0)
    ]


def test_a_tokenizer_without_a_template_has_no_roles():
    assert derive(kit.chat_tokenizer(None)) is None
    assert split("all mine", None, max_turns=9) == [Turn("user", 0, 8)]


def test_a_prompt_of_another_template_is_one_user_turn():
    """As with a template given by --chat-template, and with plain completions."""
    assert split("Once upon a time", derive(kit.chat_tokenizer(kit.CHATML)), max_turns=9) == [Turn("user", 0, 16)]


def test_a_template_that_names_no_turns_has_no_roles():
    assert derive(kit.chat_tokenizer("{% for m in messages %}{{ m.content }}{% endfor %}")) is None
    assert derive(kit.chat_tokenizer("{{ raise_exception('never') }}")) is None
    assert derive(kit.chat_tokenizer("{{ 'the same whatever is said' }}")) is None
