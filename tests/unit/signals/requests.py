"""Request records with known contents: documents in a row of tokens, and what was read of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.model import HISTORY_AGES, SPAN_KINDS, Document, RequestContext, Span, WorkerIdentity
from headwatch.records import Reading, RequestRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND = 1_000_000_000
ENDED_NS = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z."""
WORKER = WorkerIdentity("engine-1", 0, 1, "model", "rev", "float32", 2, 3, "0.32.0")
SYSTEM, QUESTION = 10, 20


def reading(
    shares: Sequence[float] = (), *, focus: float | None = 0.4, kinds: dict[str, float] | None = None
) -> Reading:
    """Return a reading with document *shares* and masses of *kinds*."""
    masses = np.full(len(SPAN_KINDS), np.nan, np.float32)
    for kind, mass in (kinds or {}).items():
        masses[SPAN_KINDS.index(kind)] = mass  # type: ignore[arg-type]
    drawn = np.array(shares, np.float32)
    return Reading(masses, masses, np.full(HISTORY_AGES, np.nan, np.float32), drawn, focus, drawn)


def record(
    documents: Sequence[Document] = (),
    tokens: Sequence[int] = (),
    shares: Sequence[float] | None = None,
    *,
    name: str = "r-1",
    route: str = "support",
    language: str = "",
    weight: float = 1.0,
    state: str | None = None,
    errors: Sequence[str] = (),
    ratio: float | None = 0.5,
    calibrated: float | None = None,
    focus: float | None = 0.4,
    kinds: dict[str, float] | None = None,
    prompt_tokens: int | None = None,
    digest: str = "",
    model: str = WORKER.model,
    adapter: str = "",
    template: str = "",
) -> RequestRecord:
    """Return a request with *documents* of so many *tokens*, 0 for one that was not found, that drew *shares*."""
    spans, at = [Span("system", 0, SYSTEM)], SYSTEM
    for number, size in enumerate(tokens):
        if size:
            spans.append(Span("document", at, at + size, number))
            at += size
    spans.append(Span("user", at, at + QUESTION))
    context = RequestContext(
        f"chatcmpl-{name}", prompt_tokens or at + QUESTION, spans, list(documents), name, route, errors=list(errors),
        weight=weight, language=language, prompt_digest=digest, adapter=adapter, template=template,
    )  # fmt: skip
    read = None if shares is None else reading(shares, focus=focus, kinds=kinds)
    return RequestRecord(
        context=context, worker=msgspec.structs.replace(WORKER, model=model), started_ns=ENDED_NS - SECOND,
        ended_ns=ENDED_NS, rows_prefill=1, rows_decode=4,
        state=state or ("measured" if documents else "absent"),  # type: ignore[arg-type]
        grounding_ratio=ratio if documents else None, grounding_ratio_retrieval_heads=calibrated,
        document_mass=0.3 if documents else None, document_share=tuple(shares or [None] * len(documents)), undefined=0,
        head_means=np.zeros((7, 2, 3), np.float32), reading=read,
    )  # fmt: skip
