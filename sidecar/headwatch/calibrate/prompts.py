"""Prompts as token ids, made with the model's own tokenizer and chat template.

Probes need to know every token, so nothing is left to the engine.  A model without a chat template gets plain text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.calibrate.corpus import Document

INSTRUCTION = "Answer the question from the documents, in one sentence."


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: its tokens, how many more are generated, and the documents that headwatch is told of."""

    token_ids: tuple[int, ...]
    generated_tokens: int
    documents: tuple[dict[str, Any], ...] = ()
    """As in :func:`headwatch.client.request_field`."""


class PromptWriter(Protocol):
    """Turns text into the tokens of a prompt."""

    def chat(self, user: str, answer_so_far: str = "", system: str = "") -> tuple[int, ...]:
        """Return the prompt that asks *user*, with the beginning of the answer already written."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the tokens of *text*, without any special ones."""


class ModelWriter:
    """Writes for one tokenizer of ``transformers``."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._template = bool(getattr(tokenizer, "chat_template", None))

    def chat(self, user: str, answer_so_far: str = "", system: str = "") -> tuple[int, ...]:
        """Return the prompt that asks *user*, with the beginning of the answer already written."""
        if not self._template:
            text = "\n\n".join(filter(None, (system, user, f"Answer: {answer_so_far}".rstrip())))
            return tuple(self._tokenizer.encode(text))
        messages = [{"role": "user", "content": user}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # The template writes its special tokens itself, the beginning of the sequence included.
        return self.encode(text + answer_so_far)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the tokens of *text*, without any special ones."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    @property
    def ordinary_ids(self) -> list[int]:
        """Return the ids of the vocabulary's ordinary tokens, ascending: neither special nor added."""
        added = set(self._tokenizer.get_added_vocab().values()) | set(self._tokenizer.all_special_ids)
        return sorted(set(self._tokenizer.get_vocab().values()) - added)


def question_text(documents: Sequence[Document], question: str) -> str:
    """Return the user's message: numbered documents, then the question."""
    passages = [f"Document {number}: {document.passage}" for number, document in enumerate(documents, 1)]
    return "\n\n".join([*passages, f"Question: {question}"])
