"""Retrieval as a RAG product has it, and as it fails.

Right documents are the first of a BM25 ranking.  Wrong ones are what a broken index returns: documents of other
questions.  They are chosen so that nothing but their content differs.  Together they are as long, in tokens, as the right
ones, because attention changes with length alone; and they share no content word with the question.
"""

from __future__ import annotations

import itertools
import re
import zlib
from typing import TYPE_CHECKING

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN_PLUS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.demo.corpus import CorpusDocument, Question

TOP_K = 3


class Retriever:
    """BM25 over titles and texts."""

    def __init__(self, documents: Sequence[CorpusDocument]) -> None:
        self._documents = tuple(documents)
        self._index = bm25s.BM25()
        passages = [document.passage for document in self._documents]
        self._index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)

    def top(self, query: str, k: int = TOP_K) -> tuple[CorpusDocument, ...]:
        """Return the *k* best documents, best first."""
        tokens = bm25s.tokenize(query, stopwords="en", show_progress=False)
        indices, _scores = self._index.retrieve(tokens, k=k, show_progress=False)
        return tuple(self._documents[int(index)] for index in indices[0])


def wrong_documents(
    question: Question,
    right: Sequence[CorpusDocument],
    documents: Sequence[CorpusDocument],
    count_tokens: Callable[[str], int],
) -> tuple[CorpusDocument, ...]:
    """Return as many documents as *right* has, of the same length together, none of which speaks of *question*.

    Of all combinations the one whose token count is closest to that of *right* is taken; among equally close ones the
    question decides, so that the same call returns the same documents.

    Raises:
        ValueError: Fewer documents than needed share no content word with the question.
    """
    asked = content_words(question.text)
    taken = {document.id for document in right}
    candidates = [
        document for document in documents if document.id not in taken and not asked & content_words(document.passage)
    ]
    if len(candidates) < len(right):
        raise ValueError(f"only {len(candidates)} documents share no word with {question.text!r}")
    wanted = sum(count_tokens(document.passage) for document in right)
    lengths = np.array([count_tokens(document.passage) for document in candidates])
    combinations = np.array(list(itertools.combinations(range(len(candidates)), len(right))))  # [C, k]
    distance = np.abs(lengths[combinations].sum(axis=1) - wanted)  # [C]
    closest = np.flatnonzero(distance == distance.min())
    chosen = combinations[closest[zlib.crc32(question.text.encode()) % len(closest)]]
    return tuple(candidates[index] for index in chosen)


def content_words(text: str) -> set[str]:
    """Return the words of *text* that carry meaning, in lower case and without a plural's *s*."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {word.removesuffix("s") for word in words if word not in STOPWORDS_EN_PLUS}
