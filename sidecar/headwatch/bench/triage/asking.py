"""One request of a scenario, as a client sends it, and the healthy stream of them.

Everything is drawn from a seeded generator: the same seed asks the same questions in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from headwatch.bench.triage.knowledge import company, words
from headwatch.client import request_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from headwatch.bench.triage.knowledge import Bundle, Split
    from headwatch.demo.corpus import CorpusDocument

MAX_TOKENS = 6
SUPPORT_SHARE = 0.6
"""Of healthy requests, those that the route ``support`` sends; the others come from ``handbook``."""
_FRESH_MINUTES = 20.0
_TOPIC_SHARE, _REMARK_SHARE = 0.2, 0.3
"""Requests that ask about a document as a whole; those that say something before they ask."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One document as retrieval hands it over, best first in a request."""

    id: str
    source: str
    version: str
    passage: str
    age_minutes: float
    """Since it was retrieved from its source."""

    @classmethod
    def of(cls, document: CorpusDocument, age_minutes: float) -> Shown:
        """Return *document* as it is kept."""
        return cls(document.id, document.source, document.version, document.passage, age_minutes)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    route: str
    question: str
    """The whole of what the person writes."""
    bundle: Bundle
    documents: tuple[Shown, ...]
    """Best first."""
    system: str
    language: str = ""
    max_tokens: int = MAX_TOKENS
    capture: bool = True
    """False: headwatch is told to leave the request alone."""

    def body(self, model: str, now: datetime | None = None) -> dict[str, Any]:
        """Return the body of ``POST /v1/chat/completions``: the best document stands last, next to the question."""
        now = now or datetime.now(UTC)
        passages = [f"Document {number}: {item.passage}" for number, item in enumerate(reversed(self.documents), 1)]
        field = request_field(
            documents=[
                {"id": item.id, "text": item.passage, "source": item.source, "version": item.version,
                 "retrieved_at": (now - timedelta(minutes=item.age_minutes)).isoformat(timespec="seconds")}
                for item in self.documents
            ],
            route=self.route,
            language=self.language,
            capture=None if self.capture else False,
        )  # fmt: skip
        return {
            "model": model,
            "messages": [
                {"role": "system", "content": self.system},
                {"role": "user", "content": "\n\n".join([*passages, f"Question: {self.question}"])},
            ],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "vllm_xargs": field,
        }


def healthy(
    random: np.random.Generator, split: Split, bundles: Sequence[Bundle] = (), support_share: float = SUPPORT_SHARE
) -> Iterator[Asked]:
    """Yield requests without end, about *bundles* (default: the company's), every bundle of a route once before any twice."""
    bundles = bundles or company()
    system = words()["system"]["usual"]
    decks: dict[str, list[Bundle]] = {"support": [], "handbook": []}
    while True:
        route = "support" if random.random() < support_share else "handbook"
        if not decks[route]:
            own = [bundle for bundle in bundles if bundle.route == route]
            decks[route] = [own[place] for place in random.permutation(len(own))]
        bundle = decks[route].pop()
        ages = random.exponential(_FRESH_MINUTES, len(bundle.documents))
        documents = tuple(Shown.of(item, float(age)) for item, age in zip(bundle.documents, ages, strict=True))
        yield Asked(route, _wording(random, bundle, split), bundle, documents, system)


def with_text(shown: Shown, passage: str) -> Shown:
    """Return *shown* with other words."""
    return replace(shown, passage=passage)


def _wording(random: np.random.Generator, bundle: Bundle, split: Split) -> str:
    said = words()
    topic = random.random() < _TOPIC_SHARE
    frames = said["frames"]["topic" if topic else "plain"]
    frame = str(frames[random.integers(len(frames))])
    text = frame.format(question=bundle.questions[split], title=bundle.title)
    if random.random() < _REMARK_SHARE:
        remarks = said["remarks"]["usual"]
        text = f"{remarks[random.integers(len(remarks))]} {text}"
    return text
