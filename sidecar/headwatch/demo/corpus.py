"""The demo's documents and questions, written for this project: an invented maker of river and weather instruments.

Every document holds the answer to one question, and facts do not repeat between documents.  The retrieval heads that the
demo shows were chosen on others (:mod:`headwatch.calibrate.corpus`), so their ratio is measured on what they have not seen.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """One document of a knowledge base."""

    id: str
    route: str
    """Which application asks for it: ``support`` or ``handbook``."""
    source: str
    version: str
    title: str
    text: str

    @property
    def passage(self) -> str:
        """Return the document as it stands in a prompt."""
        return f"{self.title}\n{self.text}"


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the id of the document that answers it."""

    text: str
    route: str
    document_id: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """All of them."""

    documents: tuple[CorpusDocument, ...]
    questions: tuple[Question, ...]


def load_corpus() -> Corpus:
    """Return the demo's documents and questions."""
    data = resources.files("headwatch.demo").joinpath("data", "demo.toml").read_text(encoding="utf-8")
    documents, questions = [], []
    for entry in tomllib.loads(data)["document"]:
        question = entry.pop("question")
        document = CorpusDocument(**{**entry, "text": " ".join(entry["text"].split())})
        documents.append(document)
        questions.append(Question(question, document.route, document.id))
    return Corpus(tuple(documents), tuple(questions))
