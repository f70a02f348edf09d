"""What the demo sends: a chat with documents before its question, and the field that names them to headwatch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from headwatch.client import request_field
from headwatch.demo.retrieval import Retriever, wrong_documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.demo.corpus import Corpus, CorpusDocument, Question

Retrieval = Literal["right", "wrong", "none"]

PHASES: dict[str, Retrieval] = {"healthy": "right", "wrong_documents": "wrong", "retrieval_down": "none"}
"""The demo's phases, in order, and what retrieval returns in each."""

MAX_TOKENS = 24
_INSTRUCTION = (
    "You answer questions about Larkfield Instruments, its products and its rules. "
    "Answer in one full sentence, with the words of the documents."
)


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """One question of one phase, with what retrieval returned for it."""

    phase: str
    question: Question
    documents: tuple[CorpusDocument, ...]

    def body(self, model: str, now: datetime | None = None) -> dict[str, Any]:
        """Return the body of ``POST /v1/chat/completions``."""
        retrieved_at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
        field = request_field(
            documents=[
                {"id": document.id, "text": document.passage, "source": document.source, "version": document.version,
                 "retrieved_at": retrieved_at}
                for document in self.documents
            ],
            route=self.question.route,
            arm=self.phase,
        )
        return {
            "model": model,
            "messages": messages(self.question.text, self.documents),
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            "vllm_xargs": field,
        }


def messages(question: str, documents: tuple[CorpusDocument, ...]) -> list[dict[str, str]]:
    """Return the chat: the instruction, then documents and question as the user's message, the best document last.

    Small models read best what stands next to the question.
    """
    passages = [f"Document {number}: {document.passage}" for number, document in enumerate(reversed(documents), 1)]
    return [
        {"role": "system", "content": _INSTRUCTION},
        {"role": "user", "content": "\n\n".join([*passages, f"Question: {question}"])},
    ]


def plan_requests(
    corpus: Corpus, phases: dict[str, Retrieval], count_tokens: Callable[[str], int]
) -> dict[str, tuple[DemoRequest, ...]]:
    """Return for each phase one request for every question of *corpus*."""
    retriever = Retriever(corpus.documents)
    plan: dict[str, list[DemoRequest]] = {phase: [] for phase in phases}
    for question in corpus.questions:
        right = retriever.top(question.text)
        for phase, retrieval in phases.items():
            if retrieval == "right":
                documents = right
            elif retrieval == "wrong":
                documents = wrong_documents(question, right, corpus.documents, count_tokens)
            else:
                documents = ()
            plan[phase].append(DemoRequest(phase, question, documents))
    return {phase: tuple(requests) for phase, requests in plan.items()}
