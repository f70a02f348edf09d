"""A needle at depths: one sentence with a number, hidden in filler, and the number asked for.

The beginning of the answer is written into the prompt, so that the very next token is the number's first: the model need
not be talkative, nor a chat model.  A row counts as long as the tokens before it are those of the number, because after a
wrong one the model is no longer copying.  The first row always counts, so every prompt gives a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwatch.calibrate.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.calibrate.corpus import Document
    from headwatch.calibrate.prompts import PromptWriter
    from headwatch.calibrate.rows import Answer

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the filler that stand before the needle."""
FILLER_DOCUMENTS = 4
DIGITS = 6
NAMES = ("the ferry office", "the clock tower", "the seed store", "the harbour crane", "the old weir", "the night bus")


@dataclass(frozen=True, slots=True)
class Needle:
    """One prompt of the probe and the tokens of the number that it asks for."""

    prompt: Prompt
    number_ids: tuple[int, ...]
    depth: float


def make_needles(
    documents: Sequence[Document], writer: PromptWriter, random: np.random.Generator, names: int = len(NAMES)
) -> tuple[Needle, ...]:
    """Return one needle for each of the first *names* names and each depth, in filler from *documents*."""
    needles = []
    for name in NAMES[:names]:
        for depth in DEPTHS:
            filler = [documents[index].text for index in random.permutation(len(documents))[:FILLER_DOCUMENTS]]
            number = "".join(str(digit) for digit in random.integers(0, 10, DIGITS))
            beginning = f"The secret number of {name} is"
            sentence = f"{beginning} {number}."
            filler.insert(round(depth * FILLER_DOCUMENTS), sentence)
            asked = f"{' '.join(filler)}\n\nWhat is the secret number of {name}?"
            start = writer.chat(asked, answer_so_far=beginning)
            number_ids = writer.chat(asked, answer_so_far=f"{beginning} {number}")[len(start) :]
            needles.append(Needle(
                Prompt(start, len(number_ids), ({"id": "needle", "text": sentence},)), number_ids, depth
            ))  # fmt: skip
    return tuple(needles)


def needle_mass(needle: Needle, answer: Answer) -> NDArray[np.float64]:
    """Return the mean attention mass [L, H] on the needle over the rows that ask for the number's tokens."""
    right = matching_tokens(needle.number_ids, answer.generated_ids)
    # The row at the prompt's last position asks for the first token of the number, the next one for its second, ...
    first = len(needle.prompt.token_ids) - 1
    rows = [row for row in answer.rows if first <= row.position <= first + right]
    mean: NDArray[np.float64] = np.mean([row.document_mass for row in rows], axis=0, dtype=np.float64)
    return mean


def matching_tokens(expected: Sequence[int], generated: Sequence[int]) -> int:
    """Return how many tokens of *generated* agree with *expected* before the first that does not."""
    count = 0
    for one, other in zip(expected, generated, strict=False):
        if one != other:
            break
        count += 1
    return count
