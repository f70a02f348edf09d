"""Which requests of a window a page may show: those that stand out, then ordinary ones to hold them against.

A request stands out in a signal where it is on the bad side of the median of its scope's requests in the window by more
than four times their median absolute deviation and the signal's floor, or where the signal is bad by itself: a document that
is absent, unresolved, behind, forbidden or of another tenant.  When all requests are bad alike, that is all that shows.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING

from headwatch.drift.signals.kinds import prompt_kind
from headwatch.drift.signals.read import ReadRequest
from headwatch.drift.signals.scopes import DocumentBook, definition_of, values_of
from headwatch.drift.signals.sources import SourceBook
from headwatch.observed import ObservedDocument, ObservedRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwatch.observed import Scope
    from headwatch.records import RequestRecord

BAD_BY_ITSELF = {
    "documents_absent": 0.5, "documents_unresolved": 0.0, "stale_mass": 0.1, "unreliable_mass": 0.1, "forbidden_mass": 0.0,
    "other_tenant_mass": 0.0,
}  # fmt: skip
"""Above which a request stands out whatever the others do."""
_DEVIATIONS = 4.0
_TO_SIGMA = 1.4826
_FEW = 5
"""Fewer requests have no usual."""
MAX_DOCUMENTS = 8
"""Of an example; the ones read most."""


def examples_of(
    records: Sequence[RequestRecord], limit: int = 16, book: DocumentBook | None = None
) -> tuple[ObservedRequest, ...]:
    """Return at most *limit* examples from *records*, the ones that stand out in most signals first, each route in turn.

    *book* is the one that :func:`signals_of` has brought up to date with these records.
    """
    book = book or DocumentBook(sources=SourceBook(needed=1))
    requests = [ReadRequest(record) for record in records]
    values = [values_of(request, book) for request in requests]
    flags = _flags(requests, values)
    order = sorted(range(len(requests)), key=lambda number: -len(flags[number]))
    routes: dict[str, list[int]] = defaultdict(list)
    for number in order:
        routes[requests[number].context.route].append(number)
    queues = list(routes.values())
    turn = sorted(((place, queue, number) for queue, held in enumerate(queues) for place, number in enumerate(held)))
    return tuple(_example(requests[number], flags[number]) for _, _, number in turn[:limit])


def _flags(requests: Sequence[ReadRequest], values: Sequence[Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Return for each request the signals in which it stands out."""
    spread: dict[tuple[Scope, str], list[float]] = defaultdict(list)
    for request, held in zip(requests, values, strict=True):
        for name, value in held.items():
            spread[request.scope, name].append(value)
    usual = {}
    for (scope, name), seen in spread.items():
        if len(seen) >= _FEW and definition_of(name).direction:
            centre = median(seen)
            deviation = _TO_SIGMA * median(abs(value - centre) for value in seen)
            usual[scope, name] = centre, max(deviation, definition_of(name).floor)
    flags = []
    for request, held in zip(requests, values, strict=True):
        names = [name for name, bound in BAD_BY_ITSELF.items() if held.get(name, bound) > bound]
        for name, value in held.items():
            centre, deviation = usual.get((request.scope, name), (value, 1.0))
            if definition_of(name).direction * (value - centre) > _DEVIATIONS * deviation and name not in names:
                names.append(name)
        flags.append(tuple(names))
    return flags


def _example(request: ReadRequest, flags: tuple[str, ...]) -> ObservedRequest:
    context, record = request.context, request.record
    shares = {item.rank: item.share for item in request.read}
    ranked = sorted(range(len(context.documents)), key=lambda rank: -shares.get(rank, -1.0))
    documents = tuple(
        ObservedDocument(item.id, item.source, item.version, item.retrieved_at, shares.get(rank), item.labels)
        for rank, item in ((rank, context.documents[rank]) for rank in ranked[:MAX_DOCUMENTS])
    )
    ratio = record.grounding_ratio_retrieval_heads
    return ObservedRequest(
        request_id=context.request_id,
        engine_id=context.engine_id,
        trace_id=context.trace_id,
        time_ns=record.ended_ns,
        model=record.worker.model,
        route=context.route,
        state=record.state,
        grounding_ratio=record.grounding_ratio if ratio is None else ratio,
        documents=documents,
        flags=flags,
        kind=prompt_kind(context),
        user=context.user,
        tenant=context.tenant,
    )
