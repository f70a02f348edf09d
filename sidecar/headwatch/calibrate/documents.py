"""Equal-length right and wrong documents: the probe for heads that read what they are given.

Every question is asked twice, with the same number of documents.  Once the document that answers it is among them, once
none that shares a content word with the question.  Both prompts have the same number of tokens, and the same number of
tokens is generated (the end of the answer is held back): attention changes with length alone, and a head that reads
length must score one half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.calibrate.corpus import content_words
from headwatch.calibrate.prompts import INSTRUCTION, Prompt, question_text
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.calibrate.corpus import Document
    from headwatch.calibrate.prompts import PromptWriter

DOCUMENTS = 3
"""Documents in a prompt."""
GENERATED_TOKENS = 12
_DRAWN = 32768
"""Combinations of wrong documents that are drawn: of those with the longest documents one in thousands fits."""
_REDRAWS = 8
"""Times that the right documents are drawn anew: nothing is left that is as short as the three shortest."""
_TRIES = 64
"""Of these the closest are tried, until a whole prompt has the length that is wanted."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One question, with right and with wrong documents."""

    question: str
    right: Prompt
    wrong: Prompt


def make_pairs(
    documents: Sequence[Document], asked: Sequence[Document], writer: PromptWriter, random: np.random.Generator
) -> tuple[Pair, ...]:
    """Return a pair for the question of each document in *asked*, which are some of *documents*.

    The answering document stands first, second and third in turn.

    Raises:
        CommandError: Too few documents share no word with a question.
    """
    # As it stands between others: tokens may merge where passages meet.
    tokens = {document.id: len(writer.encode(question_text([document], ""))) for document in documents}
    words = {document.id: content_words(document.passage) for document in documents}
    pairs = []
    for number, answer in enumerate(asked):
        topic = content_words(answer.question)
        foreign = [item for item in documents if item is not answer and not topic & words[item.id]]
        if len(foreign) < 2 * DOCUMENTS - 1:
            raise CommandError(f"only {len(foreign)} documents share no word with {answer.question!r}")
        best: Pair | None = None
        for _ in range(_REDRAWS):
            pair = _draw(answer, number % DOCUMENTS, foreign, tokens, writer, random)
            if best is None or _difference(pair.right, pair.wrong) < _difference(best.right, best.wrong):
                best = pair
            if not _difference(best.right, best.wrong):
                break
        assert best is not None  # something was drawn
        pairs.append(best)
    return tuple(pairs)


def _draw(
    answer: Document,
    place: int,
    foreign: Sequence[Document],
    tokens: dict[str, int],
    writer: PromptWriter,
    random: np.random.Generator,
) -> Pair:
    """Return a pair for the question of *answer*, which stands at *place* among two documents from *foreign*."""
    right = [foreign[index] for index in random.permutation(len(foreign))[: DOCUMENTS - 1]]
    rest = [item for item in foreign if item not in right]
    right.insert(place, answer)
    prompt = _prompt(right, answer.question, writer)
    wrong = _as_long(prompt, sum(tokens[item.id] for item in right), rest, tokens, answer.question, writer, random)
    return Pair(answer.question, prompt, wrong)


def _as_long(
    right: Prompt,
    wanted: int,
    candidates: Sequence[Document],
    tokens: dict[str, int],
    question: str,
    writer: PromptWriter,
    random: np.random.Generator,
) -> Prompt:
    """Return the prompt with documents from *candidates* whose length is that of *right*, or the closest there is."""
    lengths = np.array([tokens[item.id] for item in candidates])
    drawn = random.integers(len(candidates), size=(_DRAWN, DOCUMENTS))
    drawn = drawn[(np.diff(np.sort(drawn, axis=1), axis=1) > 0).all(axis=1)]  # [C, DOCUMENTS] of different documents
    distance = np.abs(lengths[drawn].sum(axis=1) - wanted)  # [C]
    best: Prompt | None = None
    for index in np.argsort(distance, kind="stable")[:_TRIES]:
        prompt = _prompt([candidates[place] for place in drawn[index]], question, writer)
        if best is None or _difference(prompt, right) < _difference(best, right):
            best = prompt
        if not _difference(best, right):
            break
    assert best is not None  # something was drawn
    return best


def _difference(one: Prompt, other: Prompt) -> int:
    return abs(len(one.token_ids) - len(other.token_ids))


def _prompt(documents: Sequence[Document], question: str, writer: PromptWriter) -> Prompt:
    return Prompt(
        token_ids=writer.chat(question_text(documents, question), system=INSTRUCTION),
        generated_tokens=GENERATED_TOKENS,
        documents=tuple({"id": document.id, "text": document.passage} for document in documents),
    )
