"""What each position of the prompt is: always a partition, from four sources in order."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwatch.capture.request.field import Field, FieldDocument, FieldSpan
from headwatch.capture.request.spans import Resolution, resolve
from headwatch.capture.request.template import derive
from headwatch.config import CaptureConfig, Marker
from headwatch.model import Span

from .chat_tokenizer import CHATML, chat_tokenizer, prompt_ids

TOKENIZER = chat_tokenizer(CHATML)
ROLES = derive(TOKENIZER)
CONFIG = CaptureConfig(markers=(Marker("document", "<ctx>", "</ctx>"), Marker("memory", "<mem>", "</mem>")))


def resolved(ids: list[int], field: Field | None = None, config: CaptureConfig = CONFIG, **options: Any) -> Resolution:
    resolution = resolve(ids, TOKENIZER, field or Field(), roles=ROLES, config=config, **options)
    assert_partition(resolution.spans, len(ids))
    return resolution


def assert_partition(spans: list[Span], tokens: int) -> None:
    edges = [0, *(span.end for span in spans)]
    assert [span.start for span in spans] == edges[:-1]
    assert edges[-1] == tokens
    assert all(span.start < span.end for span in spans)


def shown(ids: list[int], resolution: Resolution) -> list[tuple[str, str, int]]:
    """Return (kind, words, document) of all spans but the template's."""
    return [
        (span.kind, TOKENIZER.decode(ids[span.start : span.end]).strip(), span.document)
        for span in resolution.spans
        if span.kind != "template"
    ]


def test_a_client_that_changes_nothing_gets_its_roles():
    ids = prompt_ids(TOKENIZER, ("system", "Be brief."), ("user", "One"), ("assistant", "Two"), ("user", "Three"))
    resolution = resolved(ids)
    assert [(span.kind, span.age) for span in resolution.spans if span.kind != "template"] == [
        ("system", 0), ("history", 2), ("history", 1), ("user", 0)
    ]
    assert resolution.documents == []
    assert resolution.errors == []


def test_named_documents_are_cut_out_of_the_turn_that_holds_them():
    ids = prompt_ids(TOKENIZER, ("user", "[1] Paris is the capital.\n[2] The river is long.\n\nQuestion?"))
    field = Field(documents=[
        FieldDocument("river", "The river  is long.", source="wiki", labels={"tenant": "x"}),
        FieldDocument("paris", "Paris is the capital.", kind="memory"),
    ])
    resolution = resolved(ids, field)
    assert shown(ids, resolution) == [
        ("user", "[1]", -1), ("memory", "Paris is the capital.", 1), ("user", "[2]", -1),
        ("document", "The river is long.", 0), ("user", "Question?", -1),
    ]
    assert [(item.id, item.source, item.labels, item.found) for item in resolution.documents] == [
        ("river", "wiki", {"tenant": "x"}, True), ("paris", "", {}, True)
    ]


def test_a_document_of_an_earlier_turn_has_its_age():
    ids = prompt_ids(TOKENIZER, ("user", "Paris is the capital. So?"), ("assistant", "Yes"), ("user", "And?"))
    resolution = resolved(ids, Field(documents=[FieldDocument("a", "Paris is the capital.")]))
    assert [span.age for span in resolution.spans if span.kind == "document"] == [2]


def test_a_document_that_is_not_in_the_prompt_is_reported_and_the_rest_stands():
    ids = prompt_ids(TOKENIZER, ("user", "Paris is the capital. Question?"))
    field = Field(documents=[FieldDocument("gone", "Berlin"), FieldDocument("a", "Paris is the capital."), FieldDocument("b")])
    resolution = resolved(ids, field)
    assert [item.found for item in resolution.documents] == [False, True, False]
    assert resolution.errors == ["document_not_in_prompt", "document_without_text"]
    assert [span.document for span in resolution.spans if span.kind == "document"] == [1]


def test_explicit_offsets_win_over_text_and_template():
    ids = prompt_ids(TOKENIZER, ("user", "Paris is the capital. Question?"))
    field = Field(documents=[FieldDocument("a", "Question?", start=0, end=3)], spans=[FieldSpan("history", 3, 5, 7)])
    resolution = resolved(ids, field)
    assert resolution.spans[:2] == [Span("document", 0, 3, 0), Span("history", 3, 5, -1, 7)]
    assert [span.document for span in resolution.spans].count(0) == 1


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (Field(spans=[FieldSpan("user", 0, 4), FieldSpan("tool", 3, 5)]), "spans_overlap"),
        (Field(spans=[FieldSpan("user", 0, 4)], documents=[FieldDocument("a", start=2, end=3)]), "spans_overlap"),
        (Field(documents=[FieldDocument("a", start=2, end=100_000)]), "span_out_of_range"),
    ],
)
def test_explicit_spans_that_cannot_be_are_left_out_and_the_template_applies(field: Field, reason: str):
    ids = prompt_ids(TOKENIZER, ("user", "One"))
    resolution = resolved(ids, field)
    assert reason in resolution.errors
    assert shown(ids, resolution) == [("user", "One", -1)]
    assert not any(item.found for item in resolution.documents)


def test_the_operators_markers_make_documents_of_what_they_enclose():
    ids = prompt_ids(TOKENIZER, ("user", "<ctx>\nParis is the capital.\n</ctx><mem>likes rivers</mem> <ctx> </ctx> Question?"))
    resolution = resolved(ids)
    assert [item for item in shown(ids, resolution) if item[2] >= 0] == [
        ("document", "Paris is the capital.", 0), ("memory", "likes rivers", 1)
    ]
    assert [(item.id, item.kind, item.source) for item in resolution.documents] == [
        ("marker-1", "document", "marker"), ("marker-2", "memory", "marker")
    ]


def test_a_named_document_stands_for_the_markers_around_it():
    ids = prompt_ids(TOKENIZER, ("user", "<ctx>[1] Paris is the capital. [2] other</ctx> Question?"))
    resolution = resolved(ids, Field(documents=[FieldDocument("a", "Paris is the capital.")]))
    assert [item.id for item in resolution.documents] == ["a"]
    assert [item[1] for item in shown(ids, resolution) if item[0] == "document"] == ["Paris is the capital."]


def test_markers_are_bounded_like_documents():
    ids = prompt_ids(TOKENIZER, ("user", "<ctx>a</ctx> " * 20))
    resolution = resolved(ids, config=CaptureConfig(max_documents=4, markers=CONFIG.markers))
    assert len(resolution.documents) == 4
    assert resolution.errors == ["too_many_spans"]


def test_the_engines_media_are_never_claimed_by_anything_else():
    ids = prompt_ids(TOKENIZER, ("user", "Paris is the capital."))
    resolution = resolved(ids, Field(documents=[FieldDocument("a", start=0, end=len(ids))]), media=[Span("image", 2, 6)])
    assert [(span.kind, span.document) for span in resolution.spans] == [("document", 0), ("image", -1), ("document", 0)]


class Untraceable:
    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return "?" * len(ids) + str(len(ids))


def test_tokens_that_cannot_be_traced_leave_the_explicit_spans():
    field = Field(documents=[FieldDocument("a", "text"), FieldDocument("b", start=1, end=3)])
    resolution = resolve([5, 6, 7, 8], Untraceable(), field, roles=ROLES, config=CONFIG)
    assert resolution.spans == [Span("user", 0, 1), Span("document", 1, 3, 1), Span("user", 3, 4)]
    assert resolution.errors == ["untraceable_tokens", "document_not_in_prompt"]


words = st.sampled_from(
    ["Paris ", "the capital", "<ctx>", "</ctx>", "<mem>", "</mem>", "\n", "é😀", "<|im_end|>", "<|im_start|>", "user\n", "a"]
)
content = st.lists(words, max_size=8).map("".join)
messages = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), content), min_size=1, max_size=5)
offsets = st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair)))
documents = st.lists(
    st.builds(lambda text, kind, at: FieldDocument("d", text, kind, start=at and at[0], end=at and at[1]),
              content, st.sampled_from(["document", "memory", "tool"]), st.none() | offsets),
    max_size=5,
)
explicit = st.lists(st.builds(lambda kind, at: FieldSpan(kind, *at), st.sampled_from(["user", "history", "image"]), offsets),
                    max_size=3)


@settings(max_examples=200, deadline=None)
@given(messages, documents, explicit, st.integers(1, 6), st.booleans())
def test_whatever_is_sent_every_position_is_in_exactly_one_span(
    chat: list[tuple[str, str]], named: list[FieldDocument], spans: list[FieldSpan], limit: int, generation: bool
):
    ids = prompt_ids(TOKENIZER, *chat, generation=generation)
    config = CaptureConfig(max_documents=limit, markers=CONFIG.markers)
    resolution = resolved(ids, Field(documents=named, spans=spans), config)
    held = {span.document for span in resolution.spans}
    for number, document in enumerate(resolution.documents):
        assert document.found == (number in held)
    for span in resolution.spans:
        if span.kind in {"document", "memory"}:
            assert resolution.documents[span.document].kind == span.kind
    assert len(resolution.documents) <= max(limit, len(named))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 600), min_size=1, max_size=40), documents)
def test_any_token_ids_at_all_are_a_partition(ids: list[int], named: list[FieldDocument]):
    resolved([token % len(TOKENIZER) for token in ids], Field(documents=named))
