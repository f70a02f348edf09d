"""Token ids to text and back, and documents in the text."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwatch.capture.request.locate import TracedPrompt, find_texts, trace
from headwatch.errors import RequestFieldError

from .chat_tokenizer import chat_tokenizer

texts = st.text(st.sampled_from("the capital of Paris.\n é😀日"), max_size=60)


def words(prompt: TracedPrompt, ids: list[int], start: int, end: int) -> str:
    first, stop = prompt.tokens(start, end)
    return chat_tokenizer().decode(ids[first:stop])


@settings(max_examples=60, deadline=None)
@given(texts, texts, texts)
def test_a_partition_of_the_text_is_a_partition_of_the_tokens(before: str, inside: str, after: str):
    ids = chat_tokenizer().encode(before + inside + after, add_special_tokens=False)
    prompt = trace(ids, chat_tokenizer())
    cuts = [0, len(before), len(before + inside), len(prompt.text)]
    parts = [prompt.tokens(start, end) for start, end in pairwise(cuts)]
    assert parts[0][0] == 0
    assert parts[-1][1] == len(ids)
    assert all(one[1] == other[0] for one, other in pairwise(parts))


def test_a_word_keeps_the_space_that_its_token_carries():
    ids = chat_tokenizer().encode("the capital is Paris and", add_special_tokens=False)
    prompt = trace(ids, chat_tokenizer())
    assert words(prompt, ids, 15, 20) == " Paris"


def test_tokens_that_no_encoder_would_choose_are_still_traced():
    """A client may send token ids, and a model may have written an earlier turn in a way of its own."""
    tokenizer = chat_tokenizer()
    ids = [token for letter in "Paris é😀" for token in tokenizer.encode(letter, add_special_tokens=False)]
    assert ids != tokenizer.encode("Paris é😀", add_special_tokens=False)
    prompt = trace(ids, tokenizer)
    assert prompt.text == "Paris é😀"
    assert words(prompt, ids, 6, 7) == "é"
    assert words(prompt, ids, 7, 8) == "😀"


def test_a_prompt_that_ends_in_half_a_character_is_traced():
    ids = chat_tokenizer().encode("Paris 😀", add_special_tokens=False)[:-1]
    prompt = trace(ids, chat_tokenizer())
    assert words(prompt, ids, 0, 5) == "Paris"


class Lossy:
    """A tokenizer that keeps no offsets and whose text depends on what comes after."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return f"{len(ids)}:" + "".join(map(str, ids))


def test_a_tokenizer_that_cannot_be_traced_exactly_is_refused():
    with pytest.raises(RequestFieldError) as caught:
        trace([1, 2, 3], Lossy())
    assert caught.value.reason == "untraceable_tokens"


def test_documents_are_found_in_any_order_and_absent_ones_are_not():
    text = "Context: beta text. alpha text. Question?"
    assert find_texts(text, ["alpha text.", "gamma text.", "beta text.", "", "  "]) == [(20, 31), None, (9, 19), None, None]


def test_equal_documents_take_one_occurrence_each_in_order():
    assert find_texts("same | other | same", ["same", "same", "same"]) == [(0, 4), (15, 19), None]


def test_a_document_is_not_found_inside_a_longer_one():
    assert find_texts("a long document about x | about x", ["about x", "a long document about x"]) == [(26, 33), (0, 23)]


def test_whitespace_may_differ_between_document_and_prompt():
    text = "[1] First line second\tline\n\nend"
    assert find_texts(text, ["  First line\n\nsecond line \n"]) == [(4, 26)]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=6), max_size=6), st.text(st.sampled_from("ab \n"), max_size=40))
def test_places_are_disjoint_and_hold_the_text(needles: list[str], text: str):
    places = find_texts(text, needles)
    taken = sorted(place for place in places if place)
    assert all(one[1] <= other[0] for one, other in pairwise(taken))
    for needle, place in zip(needles, places, strict=True):
        if place:
            assert "".join(text[slice(*place)].split()) == "".join(needle.split())


def test_thousands_of_documents_in_a_long_prompt_stay_within_bounds():
    passages = [f"Passage {n} says {n * 7919 % 1000} about {n % 13}." for n in range(3000)]
    text = "\n".join(passages)
    assert len(text) > 80_000
    started = time.perf_counter()
    assert None not in find_texts(text, passages)
    with pytest.raises(RequestFieldError, match="in time"):
        find_texts(text, [f"Not there {n}" for n in range(20_000)])
    assert time.perf_counter() - started < 5.0
