"""Documents and questions for probing a model, written for this project: everything in them is invented.

Two splits that share no document and no question.  ``calibration`` is what heads are chosen on; ``held_out`` is what the
choice is judged on, and nothing else ever looks at it.  A model cannot know the answers from its training, so it has to
read them.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Literal

Split = Literal["calibration", "held_out"]

_MIN_LETTERS = 4
_EMPTY_WORDS = frozenset((
    "about", "after", "also", "before", "does", "each", "every", "from", "have", "here", "into", "long", "many", "more",
    "much", "must", "only", "other", "over", "since", "that", "their", "them", "then", "there", "these", "they", "this",
    "under", "until", "used", "uses", "what", "when", "where", "which", "while", "whom", "whose", "with", "year",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Document:
    """A document and the question that it answers."""

    id: str
    title: str
    text: str
    question: str

    @property
    def passage(self) -> str:
        """Return the document as it stands in a prompt."""
        return f"{self.title}\n{self.text}"


def load_split(split: Split) -> tuple[Document, ...]:
    """Return the documents of *split*, in the order of the file."""
    data = resources.files("headwatch.calibrate").joinpath("data", f"{split}.toml").read_text(encoding="utf-8")
    return tuple(
        Document(**{**entry, "text": " ".join(entry["text"].split())}) for entry in tomllib.loads(data)["document"]
    )


def content_words(text: str) -> frozenset[str]:
    """Return the words of *text* that say what it is about: four letters and more, lower case, without a plural's *s*."""
    words = (word.removesuffix("s") for word in re.findall(r"[a-z]+", text.lower()))
    return frozenset(word for word in words if len(word) >= _MIN_LETTERS and word not in _EMPTY_WORDS)
