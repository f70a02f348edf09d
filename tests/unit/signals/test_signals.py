"""Each signal of retrieval on requests with known contents; what is undefined is left out, never 0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headwatch.drift.signals import SIGNALS, DocumentBook, definition_of, signals_of, wholeness
from headwatch.drift.signals.read import ReadRequest
from headwatch.drift.signals.scopes import MAX_SCOPES, values_of
from headwatch.drift.signals.sources import MAX_SOURCES, SourceBook
from headwatch.model import Document
from headwatch.observed import Scope

from .requests import reading, record

THREE = [Document("a", source="wiki"), Document("b", source="archive"), Document("c", source="wiki")]


def values(made: object, book: DocumentBook | None = None) -> dict[str, float]:
    request = ReadRequest(made)  # type: ignore[arg-type]
    book = book or DocumentBook(sources=SourceBook(needed=1))
    book.learn(request)
    return values_of(request, book)


def test_a_request_without_documents_says_that_and_nothing_about_them() -> None:
    made = values(record())
    assert made == {"documents_absent": 1.0, "document_count": 0.0}


def test_a_rejected_field_is_unresolved_and_not_absent() -> None:
    made = values(record(state="unresolved", errors=["malformed_json"], ratio=None))
    assert made == {"documents_absent": 0.0, "documents_unresolved": 1.0}, "how many were named nobody knows"


def test_documents_that_are_not_in_the_prompt_are_unresolved_in_their_part() -> None:
    documents = [Document("a"), Document("b", found=False)]
    made = values(record(documents, (30, 0), (1.0, 0.0)))
    assert (made["documents_unresolved"], made["document_count"], made["document_tokens"]) == (0.5, 2.0, 30.0)
    assert "top_document_share" not in made, "one document is no choice"


def test_a_request_of_which_no_generated_row_was_sampled_is_not_unresolved() -> None:
    """The state of the record says so, because it has no ratio; its documents are where they should be."""
    made = values(record(THREE, (10, 10, 10), None, state="unresolved", ratio=None))
    assert made["documents_unresolved"] == 0.0
    assert not {"grounding_ratio", "top_document_share", "source_share.wiki", "instruction_focus"} & made.keys()


def test_shares_by_rank_are_held_against_the_tokens_of_each_document() -> None:
    made = values(record(THREE, (10, 30, 60), (0.2, 0.2, 0.6)))
    assert made["rank_first_share"] == pytest.approx(2.0)
    assert made["rank_middle_share"] == pytest.approx(2 / 3)
    assert made["rank_last_share"] == pytest.approx(1.0)
    assert made["capture_by_document"] == pytest.approx(1.0), "log2 of twice the median"
    assert made["top_document_share"] == pytest.approx(0.6)


def test_a_document_that_is_cut_is_held_against_itself_and_another_short_one_is_not() -> None:
    book = DocumentBook(sources=SourceBook(needed=1))
    first = [Document("a", source="wiki", version="1"), Document("b", source="wiki", version="1")]
    assert values(record(first, (100, 60)), book)["document_wholeness"] == 1.0
    assert values(record(first, (35, 60)), book)["document_wholeness"] == pytest.approx((0.35 + 1.0) / 2)
    assert values(record([Document("c", version="1")], (10,)), book)["document_wholeness"] == 1.0, "another document"
    newer = [Document("a", source="wiki", version="2")]
    assert values(record(newer, (20,)), book)["document_wholeness"] == 1.0, "another version may be shorter"
    assert "document_wholeness" not in values(record(), book)


def test_a_long_page_of_an_error_does_not_become_the_length_of_a_document() -> None:
    book = DocumentBook(sources=SourceBook(needed=1))
    document = [Document("a", source="wiki", version="1")]
    for tokens in (100, 100, 100, 240, 241):
        assert values(record(document, (tokens,)), book)["document_wholeness"] == 1.0
    assert values(record(document, (100,)), book)["document_wholeness"] == 1.0, "healthy again"
    for tokens in range(20, 30):
        assert values(record(document, (tokens,)), book)["document_wholeness"] == tokens / 100


def test_documents_that_are_cut_from_now_on_stay_cut_until_long_after_somebody_heard_of_it() -> None:
    book = wholeness.LengthBook()
    document = Document("a", source="wiki", version="1")
    for _ in range(5):
        book.learn(document, 100)
    for _ in range(8 * 5 - 1):
        book.learn(document, 30)
        assert book.whole(document, 30) == 0.3
    book.learn(document, 30)
    assert book.whole(document, 30) == 1.0, "a document that was shortened under its old version becomes usual in the end"


def test_the_usual_length_does_not_make_room_for_a_rarer_one() -> None:
    book = wholeness.LengthBook()
    document = Document("a")
    for tokens in (100, 100, 100, *[30] * 9, *[31] * 9, *[32] * 9, 33, 34):
        book.learn(document, tokens)
    assert book.whole(document, 50) == 0.5
    assert len(next(iter(book.seen.values()))) == wholeness.MAX_LENGTHS


def test_lengths_are_kept_of_so_many_documents_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wholeness, "MAX_DOCUMENTS", 2)
    book = wholeness.LengthBook()
    for name in ("a", "b", "a", "c"):
        book.learn(Document(name), 10)
    assert len(book.seen) == 2
    assert book.whole(Document("b"), 1) == 1.0, "the least recently seen is forgotten"
    assert book.whole(Document("a"), 5) == 0.5


def test_context_that_draws_less_than_a_quarter_of_its_share_is_not_read() -> None:
    made = values(record(THREE, (40, 40, 20), (0.9, 0.08, 0.02)))
    assert made["unread_share"] == pytest.approx(0.6)
    assert made["tokens_per_document"] == pytest.approx(100 / 3)


def test_a_memory_and_a_tool_are_no_documents() -> None:
    documents = [Document("a"), Document("m", kind="memory"), Document("b")]
    made = values(record(documents, (10, 0, 10), (0.5, 0.0, 0.5)))
    assert (made["document_count"], made["documents_unresolved"]) == (2.0, 0.0)


def test_calibrated_heads_are_preferred_where_there_are_any() -> None:
    made = record(THREE, (10, 10, 10), (0.4, 0.3, 0.3), calibrated=0.8, focus=0.4)
    made = replace(made, reading_retrieval_heads=reading((0.8, 0.1, 0.1), focus=0.2))
    found = values(made)
    assert found["top_document_share"] == pytest.approx(0.8)
    assert found["instruction_focus"] == pytest.approx(0.2)
    assert (found["grounding_ratio"], found["grounding_ratio_retrieval"]) == (0.5, 0.8)


def test_the_mass_on_documents_of_the_calibrated_heads_is_there_where_they_define_it() -> None:
    made = record(THREE, (10, 10, 10), (0.4, 0.3, 0.3), kinds={"document": 0.3})
    assert "document_mass_retrieval" not in values(made)
    calibrated = replace(made, reading_retrieval_heads=reading((0.8, 0.1, 0.1), kinds={"document": 0.7}))
    assert values(calibrated)["document_mass_retrieval"] == pytest.approx(0.7)
    undefined = replace(made, reading_retrieval_heads=reading((0.8, 0.1, 0.1)))
    assert "document_mass_retrieval" not in values(undefined)


def test_history_is_held_against_documents_where_there_are_both() -> None:
    both = record(THREE, (10, 10, 10), (0.4, 0.3, 0.3), kinds={"history": 0.1, "document": 0.3})
    assert values(both)["history_mass"] == pytest.approx(0.25)
    assert "history_mass" not in values(record(THREE, (10, 10, 10), (0.4, 0.3, 0.3), kinds={"document": 0.3}))


def test_a_source_is_held_against_its_fair_share_and_missed_when_it_is_gone() -> None:
    book = DocumentBook(sources=SourceBook(needed=1))
    made = values(record(THREE, (10, 20, 10), (0.3, 0.6, 0.1)), book)
    assert made["source_share.archive"] == pytest.approx(1.2)
    assert made["source_share.wiki"] == pytest.approx(0.8)
    gone = values(record([THREE[0], THREE[2]], (10, 10), (0.5, 0.5)), book)
    assert (gone["source_presence.archive"], gone["source_presence.wiki"]) == (0.0, 1.0)
    assert "source_share.wiki" not in gone, "a source alone has nothing to be compared with"


def test_the_sources_that_are_watched_are_few_and_stay() -> None:
    book = SourceBook(needed=2)
    rare = record([Document("a", source="rare")], (10,), (1.0,))
    book.learn(ReadRequest(rare))
    for number in range(2 * MAX_SOURCES):
        named = record([Document("a", source=f"s{number // 2 % MAX_SOURCES}")], (10,), (1.0,))
        book.learn(ReadRequest(named))
    book.learn(ReadRequest(rare))
    assert book.watched == {"model||support|": [f"s{number}" for number in range(MAX_SOURCES)]}


@pytest.mark.parametrize(
    ("newer", "older"), [("v10", "v9"), ("2.10", "2.9"), ("2026-01-31", "2025-12-01"), ("3", "2")]
)
def test_a_document_is_behind_when_a_newer_version_has_been_seen(newer: str, older: str) -> None:
    book = DocumentBook(sources=SourceBook(needed=1))
    fresh = values(record([Document("a", version=newer), Document("b", version="1")], (10, 10), (0.5, 0.5)), book)
    assert (fresh["stale_mass"], fresh["version_lag"]) == (0.0, 0.0)
    stale = values(record([Document("a", version=older), Document("b", version="1")], (10, 10), (0.8, 0.2)), book)
    assert stale["stale_mass"] == pytest.approx(0.8)
    assert stale["version_lag"] == pytest.approx(0.8)


def test_versions_that_are_no_numbers_go_by_the_time_of_their_retrieval() -> None:
    book = DocumentBook(sources=SourceBook(needed=1))
    values(record([Document("a", version="f3a9", retrieved_at="2025-12-02T00:00:00Z")], (10,), (1.0,)), book)
    older = record([Document("a", version="77b1", retrieved_at="2025-11-02T00:00:00Z")], (10,), (1.0,))
    assert values(older, book)["version_lag"] == 1.0
    unknown = record([Document("a", version="0c0c")], (10,), (1.0,))
    assert "version_lag" not in values(unknown, book), "nothing is said of what cannot be compared"


def test_age_is_weighted_by_what_is_read() -> None:
    documents = [
        Document("a", retrieved_at="2025-12-31T00:00:00+00:00"), Document("b", retrieved_at="2025-12-22T00:00:00"),
        Document("c", retrieved_at="yesterday"),
    ]  # fmt: skip
    made = values(record(documents, (10, 10, 10), (0.6, 0.2, 0.2)))
    assert made["stale_age_days"] == pytest.approx(0.2 * 9 / 0.8), "nine days behind the newest of the source"


def test_labels_say_what_should_rather_not_be_read() -> None:
    documents = [
        Document("a", labels={"reliability": "0.9", "classification": "public", "tenant": "x"}),
        Document("b", labels={"reliability": "Low", "classification": "Restricted", "tenant": "x"}),
        Document("c", labels={"reliability": "0.2", "tenant": "y"}),
    ]
    made = values(record(documents, (10, 10, 10), (0.5, 0.3, 0.2)))
    assert made["unreliable_mass"] == pytest.approx(0.5)
    assert made["forbidden_mass"] == pytest.approx(0.3 / 0.8), "among the documents that have the label"
    assert made["other_tenant_mass"] == pytest.approx(0.2)


def test_without_a_majority_nobody_is_another_tenant() -> None:
    documents = [Document("a", labels={"tenant": "x"}), Document("b", labels={"tenant": "y"})]
    assert "other_tenant_mass" not in values(record(documents, (10, 10), (0.5, 0.5)))


def test_a_window_s_signal_is_the_weighted_mean_of_the_requests_that_define_it() -> None:
    records = [
        record(THREE, (10, 10, 10), (0.4, 0.3, 0.3), ratio=0.2, weight=3.0),
        record(THREE, (10, 10, 10), (0.4, 0.3, 0.3), ratio=0.6, weight=1.0, name="r-2"),
        record(name="r-3"),
        record(name="r-4", route="handbook"),
    ]
    made = signals_of(records)
    scope, banded = Scope("model", "", "support"), Scope("model", "", "support", band="<64")
    assert made[banded]["grounding_ratio"].mean == pytest.approx(0.3)
    assert made[banded]["grounding_ratio"].requests == pytest.approx(16 / 10), "(3 + 1)² / (3² + 1²)"
    assert made[scope]["documents_absent"].mean == pytest.approx(1 / 5)
    assert made[Scope("model", "", "handbook")]["documents_absent"].mean == 1.0


def test_requests_are_compared_by_the_length_of_what_is_no_document() -> None:
    short = record(THREE, (500, 10, 10), (0.4, 0.3, 0.3))
    pasted = record(THREE, (10, 10, 10), (0.4, 0.3, 0.3), prompt_tokens=230, name="r-2")
    made = signals_of([short, pasted])
    bands = {scope.band: by_name for scope, by_name in made.items()}
    assert bands.keys() == {"", "<64", "128-256"}
    assert {"documents_absent", "document_count", "source_presence.wiki"} <= bands[""].keys(), "these do not move with it"
    assert bands["<64"].keys() == bands["128-256"].keys() == {name for name in made_names(short) if definition_of(name).banded}
    assert Scope("m", "", "r", band="<64").label == "m||r||<64"


def made_names(made: object) -> set[str]:
    return set(values(made))


def test_a_source_is_there_when_any_request_of_the_window_has_it() -> None:
    """How many requests need it is a matter of what is asked."""
    book = DocumentBook(sources=SourceBook(needed=1))
    first = signals_of([record(THREE, (10, 10, 10), (0.4, 0.3, 0.3))], book)[Scope("model", "", "support")]
    assert first["source_presence.archive"].mean == 1.0
    some = [record([THREE[0]], (10,), (1.0,), name=f"r-{number}") for number in range(9)]
    rare = signals_of([*some, record(THREE, (10, 10, 10), (0.4, 0.3, 0.3))], book)[Scope("model", "", "support")]
    assert (rare["source_presence.archive"].mean, rare["source_presence.archive"].requests) == (1.0, 10.0)
    gone = signals_of(some, book)[Scope("model", "", "support")]
    assert gone["source_presence.archive"].mean == 0.0


def test_scopes_of_a_window_are_bounded() -> None:
    records = [record(name=f"r-{number}", route=f"route-{number}") for number in range(MAX_SCOPES + 5)]
    made = signals_of(records)
    assert len(made) == MAX_SCOPES + 1
    assert made[Scope("model", "", "other")]["documents_absent"].requests == pytest.approx(5.0)


def test_every_signal_is_defined_and_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "signals.md").read_text(encoding="utf-8")
    made = values(record(THREE, (10, 20, 10), (0.3, 0.6, 0.1), kinds={"history": 0.1, "document": 0.3}))
    assert {definition_of(name).name.removesuffix(".") for name in made} <= SIGNALS.keys()
    for name, definition in SIGNALS.items():
        assert f"`{definition.name}" in text, f"docs/signals.md says nothing of {name}"
        assert definition.floor > 0
