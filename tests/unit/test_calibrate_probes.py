"""The probes: what is asked, and what is read from the rows that come back."""

from __future__ import annotations

import re

import numpy as np
import pytest

from headwatch.calibrate.corpus import content_words, load_split
from headwatch.calibrate.documents import DOCUMENTS, make_pairs
from headwatch.calibrate.measure import ORDINARY_FROM, measure_documents, measure_needles, measure_repeats
from headwatch.calibrate.needle import DEPTHS, NAMES, make_needles
from headwatch.calibrate.prompts import ModelWriter
from headwatch.calibrate.repeats import LENGTH, make_repeats
from headwatch.calibrate.rows import Answer, Row
from headwatch.errors import CommandError
from headwatch.model import FEATURES, RequestContext, Span

SPLITS = ("calibration", "held_out")
LAYERS, HEADS = 2, 3


class WordWriter:
    """A tokenizer with one token for each word, digit and mark."""

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}

    def encode(self, text: str) -> tuple[int, ...]:
        words = re.findall(r"\d|[^\W\d]+|[^\w\s]", text)
        return tuple(self.vocabulary.setdefault(word, len(self.vocabulary)) for word in words)

    def chat(self, user: str, answer_so_far: str = "", system: str = "") -> tuple[int, ...]:
        return self.encode(f"{system} | {user} | {answer_so_far}")

    def text(self, ids: tuple[int, ...]) -> str:
        words = {number: word for word, number in self.vocabulary.items()}
        return " ".join(words[number] for number in ids)


def counted(*_: object) -> None:
    """Nobody watches."""


class CannedEngine:
    """Answers each prompt with what *answer* makes of it."""

    def __init__(self, answer):
        self.answer = answer

    def ask(self, prompts):
        return map(self.answer, prompts)


def row(position: int, spans: list[Span], prompt_tokens: int, mass: dict[int, float], **features: float) -> Row:
    """A row whose heads all have *features*, and *mass* on the spans with these numbers, times 1, 2, … by head."""
    values = np.zeros((LAYERS, HEADS, len(FEATURES)), np.float32)
    for name, value in features.items():
        values[..., FEATURES.index(name)] = value
    masses = np.zeros((len(spans) + 1, LAYERS, HEADS), np.float32)
    for number, value in mass.items():
        masses[number] = value * np.arange(1, LAYERS * HEADS + 1).reshape(LAYERS, HEADS)
    return Row(RequestContext("r", prompt_tokens, spans), position, values, masses)


@pytest.mark.parametrize("split", SPLITS)
def test_every_document_answers_one_question(split):
    """Ids, titles, texts and questions are distinct, and the document shares words with the question that it answers."""
    documents = load_split(split)
    assert len(documents) >= 60
    for column in ("id", "title", "text", "question"):
        assert len({getattr(item, column) for item in documents}) == len(documents)
    assert all(len(content_words(item.question) & content_words(item.text)) >= 2 for item in documents)


def test_splits_share_nothing():
    """What heads are judged on had no part in choosing them."""
    calibration, held_out = (load_split(split) for split in SPLITS)
    for column in ("id", "title", "text", "question"):
        assert not {getattr(item, column) for item in calibration} & {getattr(item, column) for item in held_out}


@pytest.mark.parametrize("split", SPLITS)
def test_right_and_wrong_prompts_differ_in_content_alone(split):
    """The same number of tokens to the token, of documents, and of generated tokens; only one side has the answer."""
    documents, writer = load_split(split), WordWriter()
    pairs = make_pairs(documents, documents, writer, np.random.default_rng(0))
    places = []
    for answer, pair in zip(documents, pairs, strict=True):
        assert pair.question == answer.question
        assert len(pair.right.token_ids) == len(pair.wrong.token_ids)
        assert pair.right.generated_tokens == pair.wrong.generated_tokens
        right, wrong = ([item["id"] for item in side.documents] for side in (pair.right, pair.wrong))
        assert len({*right, *wrong}) == 2 * DOCUMENTS
        places.append(right.index(answer.id))
        for item in (*pair.wrong.documents, *(item for item in pair.right.documents if item["id"] != answer.id)):
            assert not content_words(answer.question) & content_words(item["text"])
        for side in (pair.right, pair.wrong):
            text = writer.text(side.token_ids)
            assert all(writer.text(writer.encode(item["text"])) in text for item in side.documents)
            assert writer.text(writer.encode(answer.question)) in text
    assert [places.count(place) for place in range(DOCUMENTS)] == pytest.approx([len(documents) / DOCUMENTS] * 3, abs=1)


def test_pairs_are_the_same_for_the_same_seed():
    documents, writer = load_split("calibration"), WordWriter()
    one, again, other = (make_pairs(documents, documents[::9], writer, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert one == again
    assert one != other
    assert [pair.question for pair in one] == [item.question for item in documents[::9]]


def test_too_few_foreign_documents_are_an_error():
    """Nothing is made up where the corpus is too small."""
    documents = load_split("calibration")[:4]
    with pytest.raises(CommandError, match="share no word"):
        make_pairs(documents, documents, WordWriter(), np.random.default_rng(0))


def test_document_values_are_means_over_the_rows_that_they_are_defined_by():
    """Lookback from generated rows alone; local and sink mass from rows of the prompt that see enough."""
    documents = load_split("calibration")
    pairs = make_pairs(documents, documents[:1], WordWriter(), np.random.default_rng(0))
    tokens = len(pairs[0].right.token_ids)

    def answer(prompt):
        wrong = 0.0 if prompt is pairs[0].right else 0.3
        spans = [Span("user", 0, tokens)]
        early = row(ORDINARY_FROM - 1, spans, tokens, {}, lookback=np.nan, local_mass=1.0, sink_mass=1.0)
        late = row(ORDINARY_FROM, spans, tokens, {}, lookback=np.nan, local_mass=0.25, sink_mass=0.5)
        generated = [
            row(tokens + place, spans, tokens, {}, lookback=value, local_mass=1.0, sink_mass=1.0)
            for place, value in enumerate((0.8 - wrong, np.nan, 0.6 - wrong))
        ]
        return Answer((1, 2, 3), -0.5 - wrong, (early, late, *generated))

    right, wrong = measure_documents(CannedEngine(answer), pairs, counted, "documents")
    assert right.lookback.shape == (1, LAYERS, HEADS)
    np.testing.assert_allclose(right.lookback, 0.7, rtol=1e-6)
    np.testing.assert_allclose(wrong.lookback, 0.4, rtol=1e-6)
    np.testing.assert_allclose(right.local_mass, 0.25)
    np.testing.assert_allclose(right.sink_mass, 0.5)
    assert (right.log_probability, wrong.log_probability) == (-0.5, -0.8)
    assert right.prompt_tokens == wrong.prompt_tokens == tokens


def test_a_needle_stands_at_each_depth_and_is_asked_for():
    """Each name at each depth; the sentence is in the prompt once, and the prompt ends where the number begins."""
    writer = WordWriter()
    needles = make_needles(load_split("calibration"), writer, np.random.default_rng(0))
    assert [needle.depth for needle in needles] == list(DEPTHS) * len(NAMES)
    for needle in needles:
        text, sentence = writer.text(needle.prompt.token_ids), needle.prompt.documents[0]["text"]
        before, found, after = text.partition(writer.text(writer.encode(sentence)))
        assert found
        length = len(before.split()) + len(after.split())
        assert len(before.split()) / length == pytest.approx(needle.depth, abs=0.2)
        assert sentence.endswith(writer.text(needle.number_ids).replace(" ", "") + ".")
        assert text.endswith(sentence.split(" is ")[0] + " is")
        assert needle.prompt.generated_tokens == len(needle.number_ids)


def test_needle_rows_count_while_the_number_is_being_copied():
    """After the first wrong token the rows are of something else; the first row counts whatever comes."""
    writer = WordWriter()
    needle = make_needles(load_split("calibration"), writer, np.random.default_rng(0), names=1)[0]
    start = len(needle.prompt.token_ids)
    spans = [Span("user", 0, 10), Span("document", 10, 30, 0), Span("user", 30, start)]
    rows = tuple(row(start - 1 + place, spans, start, {1: 0.1 * (place + 1)}) for place in range(6))
    early = row(start - 5, spans, start, {1: 9.0})
    right, wrong = needle.number_ids[0], max(needle.number_ids) + 1
    by_head = np.arange(1, LAYERS * HEADS + 1).reshape(LAYERS, HEADS)
    for generated, expected in (
        ((wrong,) * 6, 0.1),
        ((right, wrong, *needle.number_ids[2:]), 0.15),
        (needle.number_ids, 0.35),
    ):
        answer = Answer(tuple(generated), 0.0, (early, *rows))
        result = measure_needles(CannedEngine(lambda _, answer=answer: answer), [needle], counted)
        np.testing.assert_allclose(result.mass[0], expected * by_head, rtol=1e-6)
        assert result.answered == (generated == needle.number_ids)
        assert result.even_share == pytest.approx(20 / start)


def test_repeats_are_one_random_sequence_twice_and_every_first_token_can_be_read():
    prompts = make_repeats(range(1000, 2000), np.random.default_rng(0), count=3)
    assert len({prompt.token_ids for prompt in prompts}) == 3
    for prompt in prompts:
        assert prompt.token_ids[:LENGTH] == prompt.token_ids[LENGTH:]
        assert len(set(prompt.token_ids)) == LENGTH
        assert set(prompt.token_ids) <= set(range(1000, 2000))
        assert [(item["start"], item["end"]) for item in prompt.documents] == [(place, place + 1) for place in range(LENGTH)]


def test_induction_mass_is_that_on_the_token_after_the_earlier_occurrence():
    """A head that looks one token further, or at the same token, scores nothing."""
    prompt = make_repeats(range(1000), np.random.default_rng(0), count=1)[0]
    spans = [Span("document", place, place + 1, place) for place in range(LENGTH)] + [Span("user", LENGTH, 2 * LENGTH)]
    by_head = np.arange(1, LAYERS * HEADS + 1).reshape(LAYERS, HEADS)
    for shift, expected in ((1, 0.1), (0, 0.0), (2, 0.0)):
        rows = tuple(
            row(position, spans, 2 * LENGTH, {position - LENGTH + shift: 0.1})
            for position in range(LENGTH, 2 * LENGTH - 2, 4)
        )
        first_copy = row(3, spans, 2 * LENGTH, {0: 9.0})
        answer = Answer((1,), 0.0, (first_copy, *rows))
        result = measure_repeats(CannedEngine(lambda _, answer=answer: answer), [prompt], counted)
        np.testing.assert_allclose(result[0], expected * by_head, rtol=1e-6)


class PlainTokenizer:
    """A base model's tokenizer: no template, one token a character, and a beginning of the sequence."""

    chat_template = None
    all_special_ids = (0,)

    def encode(self, text, *, add_special_tokens=True):
        return [0] * add_special_tokens + [ord(character) for character in text]

    def get_vocab(self):
        return {"<s>": 0, "a": 97, "b": 98, "<extra>": 99}

    def get_added_vocab(self):
        return {"<extra>": 99}


def test_a_model_without_a_chat_template_is_asked_in_plain_text():
    """System, user and answer stand below one another, after the tokenizer's own beginning of the sequence."""
    writer = ModelWriter(PlainTokenizer())
    ids = writer.chat("Where?", answer_so_far="It is", system="Be brief.")
    assert ids[0] == 0
    assert "".join(map(chr, ids[1:])) == "Be brief.\n\nWhere?\n\nAnswer: It is"
    assert writer.encode("ab") == (97, 98)
    assert writer.ordinary_ids == [97, 98]
