"""What scenarios do to traffic: from a healthy request to the one that is sent while something is broken, or merely different.

Each is a function of a healthy request and a seeded generator.  Retrieval faults change what retrieval returns and nothing of
what is asked; innocent changes change what is asked and leave retrieval as right as it was.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headwatch.bench.triage.asking import Shown, with_text
from headwatch.bench.triage.knowledge import SOURCES, company, words
from headwatch.demo.retrieval import content_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.bench.triage.asking import Asked
    from headwatch.bench.triage.knowledge import Split

    Alteration = Callable[[Asked, np.random.Generator, Split], Asked]

KEPT_SHARE = 0.35
"""Of the words of a document, what a broken chunker leaves."""
STALE_MINUTES = 150 * 24 * 60.0
BROKEN_SOURCE = SOURCES[0]


def wrong_documents(asked: Asked, random: np.random.Generator, _: Split) -> Asked:
    """The index returns what belongs to other questions: no document shares a word with what is asked."""
    about = content_words(f"{asked.bundle.title} {asked.bundle.documents[0].passage}")
    foreign = [
        bundle for bundle in company()
        if asked.bundle.documents[0] not in bundle.documents and len(about & content_words(bundle.title)) == 0
    ]  # fmt: skip
    bundle = foreign[random.integers(len(foreign))]
    shown = tuple(
        Shown.of(item, old.age_minutes) for item, old in zip(bundle.documents, asked.documents, strict=True)
    )  # fmt: skip
    return replace(asked, documents=shown)


def absent_documents(asked: Asked, _: np.random.Generator, __: Split) -> Asked:
    """Retrieval returns nothing."""
    return replace(asked, documents=())


def stale_documents(asked: Asked, random: np.random.Generator, _: Split) -> Asked:
    """The index has not been filled for months: documents as they were then, in an older version, with other figures."""
    return replace(asked, documents=tuple(
        replace(with_text(item, _with_other_figures(item)), version=_older(item.version),
                age_minutes=STALE_MINUTES * (0.8 + 0.4 * float(random.random())))
        for item in asked.documents
    ))  # fmt: skip


def shuffled_documents(asked: Asked, _: np.random.Generator, __: Split) -> Asked:
    """The text of every document comes back with its words in disorder."""
    return _each(asked, _shuffled)


def truncated_documents(asked: Asked, _: np.random.Generator, __: Split) -> Asked:
    """A broken chunker leaves the beginning of every document."""
    return _each(asked, lambda item: " ".join(item.passage.split()[: int(KEPT_SHARE * len(item.passage.split()))]))


def source_broken(asked: Asked, _: np.random.Generator, __: Split) -> Asked:
    """One of three sources answers with an error page, as long as what it should have returned."""
    pages = words()["broken"]["pages"]

    def passage(item: Shown) -> str:
        page = str(pages[_steady(item.id).integers(len(pages))])
        return _as_long_as(page, item.passage) if item.source == BROKEN_SOURCE else item.passage

    return _each(asked, passage)


def rank_reversed(asked: Asked, _: np.random.Generator, __: Split) -> Asked:
    """The ranking is upside down: the worst document is handed over as the best."""
    return replace(asked, documents=asked.documents[::-1])


def injected(asked: Asked, _: np.random.Generator, split: Split) -> Asked:
    """One of the right documents has instructions in it."""
    texts = words()["injections"]["report" if split == "report" else "development"]
    random = _steady(asked.documents[0].id)
    place = int(random.integers(len(asked.documents)))
    text = str(texts[random.integers(len(texts))])
    return replace(asked, documents=tuple(
        with_text(item, f"{item.passage} {text}") if number == place else item for number, item in enumerate(asked.documents)
    ))  # fmt: skip


def other_system_prompt(number: int) -> Alteration:
    """Return the change to system prompt *number* of those that a release may bring."""

    def change(asked: Asked, _: np.random.Generator, __: Split) -> Asked:
        choices = words()["system"]["changed"]
        return replace(asked, system=str(choices[number % len(choices)]))

    return change


def longer_questions(asked: Asked, random: np.random.Generator, split: Split) -> Asked:
    """People paste a long mail above what they ask."""
    texts = words()["pasted"]["report" if split == "report" else "development"]
    text = " ".join(str(texts[random.integers(len(texts))]).split())
    return replace(asked, question=f"{text} {asked.question}")


def in_german(asked: Asked, _: np.random.Generator, __: Split) -> Asked:
    """The client says that the conversation is in German."""
    return replace(asked, language="de")


def _each(asked: Asked, passage: Callable[[Shown], str]) -> Asked:
    return replace(asked, documents=tuple(with_text(item, passage(item)) for item in asked.documents))


def _steady(name: str) -> np.random.Generator:
    """Return a generator for the document *name*: what broke it breaks it in the same way whoever asks."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def _shuffled(item: Shown) -> str:
    parts = item.passage.split()
    return " ".join(parts[place] for place in _steady(item.id).permutation(len(parts)))


def _as_long_as(page: str, passage: str) -> str:
    wanted, parts = len(passage.split()), page.split()
    return " ".join((parts * (1 + wanted // len(parts)))[:wanted])


_FIGURES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "fifteen", "twenty")


def _with_other_figures(item: Shown) -> str:
    random = _steady(item.id)
    return re.sub(rf"\b({'|'.join(_FIGURES)})\b", lambda _: _FIGURES[random.integers(len(_FIGURES))], item.passage)


def _older(version: str) -> str:
    major = version.partition(".")[0]
    return f"{max(int(major) - 1, 0)}.0"
