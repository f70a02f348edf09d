"""The prompts of the benchmarks: chat requests with retrieved documents, 635 tokens long, no two alike.

Every prompt begins with a number of its own, so that no two share a block of the engine's prefix cache; the rest depends
on *text* alone, so that each arm of a cycle is given the same documents and the same question.  The documents are named in
headwatch's request field, as a client would do: their spans are found in the prompt, and each is a span of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwatch.client import request_field
from headwatch.demo.corpus import load_corpus

if TYPE_CHECKING:
    from headwatch.demo.corpus import CorpusDocument

PROMPT_TOKENS = 635
_INSTRUCTION = "You answer from the documents that you are given, in full sentences."


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request, ready for the engine."""

    token_ids: tuple[int, ...]
    field: dict[str, str]
    """headwatch's request field; the engine without headwatch is sent it too."""


class PromptMaker:
    """Writes prompts with a tokenizer that has a chat template."""

    def __init__(self, tokenizer: Any, tokens: int = PROMPT_TOKENS) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        corpus = load_corpus()
        self._documents = corpus.documents
        self._questions = [question.text for question in corpus.questions]
        self._number = 0

    def batch(self, size: int, text: int, *, always: bool = False) -> list[Prompt]:
        """Return *size* prompts on the documents and questions number *text* and following.

        *always*: they ask to be sampled whatever the rate.
        """
        return [self._prompt(text * size + place, always=always) for place in range(size)]

    def _prompt(self, text: int, *, always: bool) -> Prompt:
        self._number += 1
        first = 7 * text % len(self._documents)
        documents = [*self._documents[first:], *self._documents[:first]]
        question = self._questions[text % len(self._questions)]
        count = 1
        while len(self._ids(question, documents[:count])) < self._tokens and count < len(documents):
            count += 1
        words = documents[count - 1].text.split()
        kept, cut = 0, len(words)  # as many words of the last document as fit
        while kept < cut:
            middle = (kept + cut + 1) // 2
            fits = len(self._ids(question, documents[: count - 1], _shortened(documents[count - 1], middle)))
            kept, cut = (middle, cut) if fits <= self._tokens else (kept, middle - 1)
        last = _shortened(documents[count - 1], kept)
        passages = [document.passage for document in documents[: count - 1]] + [last]
        return Prompt(
            tuple(self._ids(question, documents[: count - 1], last)),
            request_field(
                documents=[{"id": f"d{place}", "text": passage} for place, passage in enumerate(passages)],
                route="bench",
                capture="always" if always else None,
            ),
        )

    def _ids(self, question: str, documents: list[CorpusDocument], last: str = "") -> list[int]:
        passages = [document.passage for document in documents] + ([last] if last else [])
        body = "\n\n".join([*passages, f"Question: {question}"])
        text = self._tokenizer.apply_chat_template(
            [
                {"role": "system", "content": f"Case {self._number:06d}. {_INSTRUCTION}"},
                {"role": "user", "content": body},
            ],
            tokenize=False,
            add_generation_prompt=True,
        )
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def _shortened(document: CorpusDocument, words: int) -> str:
    return f"{document.title}\n{' '.join(document.text.split()[:words])}".strip()
