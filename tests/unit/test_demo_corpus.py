"""The laws of the demo's corpus, of its retrieval, and of the prompts made from both."""

from __future__ import annotations

import json
import re

import pytest

from headwatch.calibrate.corpus import load_split
from headwatch.demo.corpus import Corpus, load_corpus
from headwatch.demo.prompts import PHASES, plan_requests
from headwatch.demo.retrieval import TOP_K, Retriever, content_words, wrong_documents


def count_words(text: str) -> int:
    """Stand for a tokenizer: words and marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def test_corpus_is_as_large_as_promised(corpus: Corpus):
    """40 questions and more for the phases."""
    assert len(corpus.documents) == len(corpus.questions) >= 40


def test_heads_are_chosen_on_documents_that_the_phases_never_show(corpus: Corpus):
    """The demo's documents and questions are none of those that calibration uses."""
    calibration = load_split("calibration")
    assert not {item.id for item in corpus.documents} & {item.id for item in calibration}
    assert not {item.text for item in corpus.questions} & {item.question for item in calibration}


def test_documents_are_distinct_and_of_even_length(corpus: Corpus):
    """Ids, titles and texts differ, and each text has 90 to 140 words."""
    for column in ("id", "title", "text"):
        assert len({getattr(item, column) for item in corpus.documents}) == len(corpus.documents)
    assert all(90 <= len(item.text.split()) <= 140 for item in corpus.documents)
    assert all(item.source and item.version and "\n" not in item.text for item in corpus.documents)


def test_both_routes_have_questions(corpus: Corpus):
    """Both applications are asked for."""
    assert {item.route for item in corpus.questions} == {"support", "handbook"}


def test_bm25_finds_the_answer(corpus: Corpus):
    """The document that answers a question is among the first three for nine questions of ten."""
    retriever = Retriever(corpus.documents)
    found = [item.document_id in {hit.id for hit in retriever.top(item.text)} for item in corpus.questions]
    assert sum(found) >= 0.9 * len(found)


def test_wrong_documents_are_as_long_and_say_nothing_of_the_question(corpus: Corpus):
    """They differ from the right ones in content alone: not in number, not in length."""
    retriever = Retriever(corpus.documents)
    for question in corpus.questions:
        right = retriever.top(question.text)
        wrong = wrong_documents(question, right, corpus.documents, count_words)
        lengths = [sum(count_words(item.passage) for item in side) for side in (right, wrong)]
        assert len({item.id for item in wrong} - {item.id for item in right}) == TOP_K
        assert lengths[1] == pytest.approx(lengths[0], rel=0.05)
        assert not any(content_words(question.text) & content_words(item.passage) for item in wrong)


def test_wrong_documents_are_as_long_on_average(corpus: Corpus):
    """What differences remain cancel out: no phase has longer prompts."""
    plan = plan_requests(corpus, {"right": "right", "wrong": "wrong"}, count_words)
    documents = [[item for request in requests for item in request.documents] for requests in plan.values()]
    totals = [sum(count_words(item.passage) for item in items) for items in documents]
    assert totals[1] == pytest.approx(totals[0], rel=0.01)


def test_wrong_documents_are_the_same_at_every_call():
    """A second run of the demo sends the same prompts."""
    corpus = load_corpus()
    assert plan_requests(corpus, PHASES, count_words) == plan_requests(corpus, PHASES, count_words)


def test_too_few_foreign_documents_are_an_error():
    """Nothing is made up where the corpus is too small."""
    corpus = load_corpus()
    question = corpus.questions[0]
    right = Retriever(corpus.documents).top(question.text)
    with pytest.raises(ValueError, match="share no word"):
        wrong_documents(question, right, right, count_words)


def test_every_phase_asks_every_question_once():
    """Phases differ in documents alone."""
    corpus = load_corpus()
    plan = plan_requests(corpus, PHASES, count_words)
    assert list(plan) == ["healthy", "wrong_documents", "retrieval_down"]
    for requests in plan.values():
        assert [item.question for item in requests] == list(corpus.questions)
    assert all(not item.documents for item in plan["retrieval_down"])


def test_body_names_its_documents_as_they_stand_in_the_prompt():
    """The text of each document that the field names is in the prompt, letter by letter."""
    request = plan_requests(load_corpus(), PHASES, count_words)["healthy"][0]
    body = request.body("some-model")
    field = json.loads(body["vllm_xargs"]["headwatch"])
    prompt = "\n".join(item["content"] for item in body["messages"])
    assert field["arm"] == "healthy"
    assert field["route"] == request.question.route
    assert len(field["documents"]) == TOP_K
    for document in field["documents"]:
        assert prompt.count(document["text"]) == 1
        assert document["source"]
        assert document["version"]
        assert document["retrieved_at"]
    assert request.question.text in prompt
    assert body["temperature"] == 0


def test_retrieval_down_names_no_document():
    """The field still says route and arm."""
    request = plan_requests(load_corpus(), PHASES, count_words)["retrieval_down"][0]
    field = json.loads(request.body("some-model")["vllm_xargs"]["headwatch"])
    assert not field.get("documents")
    assert field["arm"] == "retrieval_down"
