"""What the scenarios are asked about: the documents of the demo and of calibration, each with two more to stand beside it.

A *bundle* is what retrieval returns for one document: itself and the next best by BM25.  Bundles do not change between runs, as
an index does not change between questions, so that the engine's prefix cache holds them and a recording of thousands of
requests takes minutes.  Questions differ: those of the baseline, of development and of reported runs are three lists that
share none.
"""

from __future__ import annotations

import tomllib
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from headwatch.calibrate.corpus import load_split
from headwatch.demo.corpus import CorpusDocument, load_corpus
from headwatch.demo.retrieval import Retriever

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.calibrate.corpus import Document

Split = Literal["baseline", "development", "report"]
"""Which questions and words a run may use: nothing is tuned on those of ``report``."""

BUNDLE = 3
"""Documents in a prompt."""
SOURCES = ("wiki", "archive", "tickets")
"""The systems from which documents come, a third of them each: one can break."""
_COMPANY_DOCUMENTS = 22
"""So many documents of the calibration split are about the same company; the others are small news."""
_SUPPORT_DOCUMENTS = 11
"""And so many of these are about its products."""
_ASKED_EVERY = 2
"""Of so many documents one is asked about; the others only stand beside it.  An engine reads fewer bundles sooner."""
_PAGE_WORDS = 88
"""Words of a page about another topic: as long, in tokens, as a document of the knowledge base."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A document, what is retrieved with it (best first), and what is asked about it."""

    route: str
    title: str
    documents: tuple[CorpusDocument, ...]
    questions: dict[Split, str]


def words() -> dict[str, Any]:
    """Return ``wording.toml``: frames, remarks, pasted text, injections, error pages, system prompts."""
    return _load("wording")


@cache
def company() -> tuple[Bundle, ...]:
    """Return the bundles of the knowledge base that healthy traffic asks."""
    asked = {item.document_id: item.text for item in load_corpus().questions}
    documents = list(load_corpus().documents)
    for number, item in enumerate(load_split("calibration")[:_COMPANY_DOCUMENTS]):
        route = "support" if number < _SUPPORT_DOCUMENTS else "handbook"
        documents.append(CorpusDocument(item.id, route, "", "3.1", item.title, item.text))
        asked[item.id] = item.question
    further: dict[str, list[str]] = _load("questions")["questions"]
    return tuple(
        Bundle(answer.route, answer.title, found,
               {"baseline": asked[answer.id], "development": further[answer.id][0], "report": further[answer.id][1]})
        for answer, found in _bundled([_with_source(item) for item in documents], asked)[::_ASKED_EVERY]
    )  # fmt: skip


@cache
def elsewhere() -> tuple[Bundle, ...]:
    """Return bundles about other topics: small news, as long as what the company writes."""
    small = [*load_split("calibration")[_COMPANY_DOCUMENTS:], *load_split("held_out")[:40]]
    return _invented(_pages(small, _PAGE_WORDS), _ASKED_EVERY)


@cache
def short_notes() -> tuple[Bundle, ...]:
    """Return bundles of short documents: what people ask about is told in fewer words."""
    return _invented(_pages(load_split("held_out")[40:], 0))


@cache
def german() -> tuple[Bundle, ...]:
    """Return bundles in German."""
    entries = _load("german")["document"]
    documents = [_with_source(CorpusDocument(item["id"], "", "", "3.1", item["title"], item["text"])) for item in entries]
    asked = {item["id"]: item["questions"] for item in entries}
    return tuple(
        Bundle("support" if number % 2 else "handbook", answer.title, found,
               dict(zip(("baseline", "development", "report"), asked[answer.id], strict=True)))
        for number, (answer, found) in enumerate(_bundled(documents, {name: " ".join(all_) for name, all_ in asked.items()}))
    )  # fmt: skip


def _invented(pages: list[tuple[CorpusDocument, str]], every: int = 1) -> tuple[Bundle, ...]:
    documents = [page for page, _ in pages]
    asked = {page.id: question for page, question in pages}
    return tuple(
        Bundle("support" if number % 2 else "handbook", answer.title, found,
               dict.fromkeys(("baseline", "development", "report"), asked[answer.id]))
        for number, (answer, found) in enumerate(_bundled(documents, asked)[::every])
    )  # fmt: skip


def _pages(documents: Sequence[Document], words_wanted: int) -> list[tuple[CorpusDocument, str]]:
    """Return each document as a page, filled with sentences of the next one until it has so many words, and its question."""
    pages = []
    for place, item in enumerate(documents):
        text = item.text
        for sentence in documents[(place + 1) % len(documents)].text.split(". "):
            if len(text.split()) >= words_wanted:
                break
            text += f" {sentence.removesuffix('.')}."
        pages.append((_with_source(CorpusDocument(item.id, "", "", "3.1", item.title, text)), item.question))
    return pages


def _bundled(
    documents: list[CorpusDocument], asked: dict[str, str]
) -> list[tuple[CorpusDocument, tuple[CorpusDocument, ...]]]:
    retriever = Retriever(documents)
    found = []
    for document in documents:
        hits = retriever.top(f"{document.title} {asked[document.id]}", k=BUNDLE + 1)
        others = [hit for hit in hits if hit.id != document.id][: BUNDLE - 1]
        found.append((document, (document, *others)))
    return found


def _with_source(item: CorpusDocument) -> CorpusDocument:
    source = SOURCES[zlib.crc32(item.id.encode()) % len(SOURCES)]
    return CorpusDocument(item.id, item.route, source, item.version, item.title, item.text)


@cache
def _load(name: str) -> dict[str, Any]:
    text = resources.files("headwatch.bench.triage").joinpath("data", f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
