"""What the demo's baseline asks."""

from __future__ import annotations

from collections import Counter

from headwatch.bench.demo_baseline import ARM, PASSES, asked_again
from headwatch.demo.corpus import load_corpus
from headwatch.demo.prompts import plan_requests


def test_every_question_is_asked_in_every_pass_in_another_order():
    plan = plan_requests(load_corpus(), {ARM: "right"}, lambda text: len(text.split()))[ARM]
    requests = asked_again(plan)
    assert requests == asked_again(plan), "the same requests in every recording"
    documents = [request.question.document_id for request in requests]
    assert set(Counter(documents).values()) == {PASSES}
    passes = [documents[start : start + len(plan)] for start in range(0, len(documents), len(plan))]
    assert len({tuple(order) for order in passes}) == PASSES
    known = {request.question.document_id: request for request in plan}
    for request in requests:
        assert request.documents == known[request.question.document_id].documents
        assert known[request.question.document_id].question.text in request.question.text
