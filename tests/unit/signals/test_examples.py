"""Which requests a page may show."""

from __future__ import annotations

from dataclasses import replace

from headwatch.drift.signals import examples_of, prompt_kind
from headwatch.drift.signals.examples import MAX_DOCUMENTS
from headwatch.model import Document, RequestContext, Span

from .requests import reading, record

TWO = [Document("a", source="wiki", labels={"tenant": "x"}), Document("b", source="wiki")]


def ordinary(number: int, **more: object) -> object:
    return record(TWO, (10, 10), (0.6, 0.4), name=f"r-{number}", **more)  # type: ignore[arg-type]


def test_a_request_that_stands_out_comes_first_and_says_in_what() -> None:
    odd = record(TWO, (10, 10), (0.6, 0.4), name="odd", focus=0.05)
    found = examples_of([*(ordinary(number) for number in range(8)), odd], limit=3)  # type: ignore[list-item]
    assert len(found) == 3
    assert (found[0].engine_id, found[0].flags) == ("odd", ("instruction_focus",))
    assert found[1].flags == ()


def test_what_is_bad_by_itself_is_flagged_though_all_are_alike() -> None:
    found = examples_of([record(name=f"r-{number}") for number in range(6)])
    assert {example.flags for example in found} == {("documents_absent",)}


def test_routes_take_turns() -> None:
    records = [ordinary(number, route="a" if number < 6 else "b") for number in range(8)]
    assert [example.route for example in examples_of(records, limit=4)] == ["a", "b", "a", "b"]  # type: ignore[arg-type]


def test_an_example_shows_what_was_read_most_and_only_so_much() -> None:
    count = MAX_DOCUMENTS + 3
    documents = [Document(f"d{rank}", version="3", retrieved_at="2026-01-01") for rank in range(count)]
    shares = [rank / sum(range(count)) for rank in range(count)]
    made = replace(record(documents, (10,) * count, shares), reading_retrieval_heads=reading(shares))
    (example,) = examples_of([replace(made, grounding_ratio_retrieval_heads=0.7)])
    assert [document.id for document in example.documents] == [f"d{rank}" for rank in range(count - 1, 2, -1)]
    assert (example.documents[0].version, example.documents[0].retrieved_at) == ("3", "2026-01-01")
    assert (example.grounding_ratio, example.kind) == (0.7, "<256 docs:9-16 turns:0")


def test_labels_come_along() -> None:
    (example,) = examples_of([ordinary(0)])  # type: ignore[list-item]
    assert example.documents[0].labels == {"tenant": "x"}


def test_a_kind_of_prompt_is_its_shape() -> None:
    spans = [Span("history", 0, 10, -1, 2), Span("history", 10, 20, -1, 1), Span("tool", 20, 30), Span("user", 30, 5000)]
    assert prompt_kind(RequestContext("r", 5000, spans, [Document("a")])) == "4k-16k docs:1 turns:2 tools"
    assert prompt_kind(RequestContext("r", 255, [Span("user", 0, 255)])) == "<256 docs:0 turns:0"
