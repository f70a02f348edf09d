"""The demo's documents and questions, written for this project: an invented maker of river and weather instruments.

Two splits that share no document and no question: ``demo`` is what the phases ask, ``calibration`` is what retrieval
heads are chosen on.  So a head map says something about documents that it has not seen.  Every document holds the answer
to one question, and facts do not repeat between documents.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Literal

Split = Literal["demo", "calibration"]


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
    """One split."""

    documents: tuple[CorpusDocument, ...]
    questions: tuple[Question, ...]


def load_corpus(split: Split) -> Corpus:
    """Return the documents and questions of *split*."""
    data = resources.files("headwatch.demo").joinpath("data", f"{split}.toml").read_text(encoding="utf-8")
    documents, questions = [], []
    for entry in tomllib.loads(data)["document"]:
        question = entry.pop("question")
        document = CorpusDocument(**{**entry, "text": " ".join(entry["text"].split())})
        documents.append(document)
        questions.append(Question(question, document.route, document.id))
    return Corpus(tuple(documents), tuple(questions))
