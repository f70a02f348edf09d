"""What a reader of a page can check, frozen when the incident opens: documents, example requests, the canary, releases.

From the windows of history alone, a few before the change and those since: no query to the store stands between an alarm and
its page.  Windows carry a bounded number of example requests each, those that stand out first, so shares of documents are
shares among examples: they say which documents the evidence is about; how much, the store says (headwatch/incident/trail.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from headwatch.findings import (
    CanaryExhibit,
    DeployEvent,
    DocumentExhibit,
    DriftEvent,
    Exhibits,
    PromptExhibit,
    RequestExhibit,
)
from headwatch.identifiers import TENANT_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwatch.observed import ObservedDocument, ObservedRequest, ObservedWindow

MAX_DOCUMENTS = 8
MAX_REQUESTS = 8
MAX_PROMPTS = 8
_OF_READING = ("grounding_ratio", "document_mass")
_OF_LABELS = frozenset({"unreliable_mass", "forbidden_mass", "other_tenant_mass"})
NEAR_SECONDS = 3600.0
"""A release within so long before the start is shown."""


def exhibits_of(
    event: DriftEvent,
    windows: Sequence[ObservedWindow],
    *,
    canary: CanaryExhibit | None = None,
    deploys: Iterable[DeployEvent] = (),
) -> Exhibits:
    """Return the exhibits of *event* from *windows*, some of which should lie before its beginning.

    *canary* and *deploys* are what is known besides; what the windows carry is found in them.
    """
    routes = {event.route} if event.route else {one.route for one in event.evidence}
    about = [
        request for window in windows for request in window.requests
        if request.model in {"", event.model} and (not routes or "" in routes or request.route in routes)
    ]  # fmt: skip
    before = [request for request in about if request.time_ns < event.since_ns]
    after = [request for request in about if request.time_ns >= event.since_ns]
    signals = {one.name for one in event.evidence if one.kind == "signal"}
    read_less = any(name.startswith(_OF_READING) for name in signals)
    ranked = _ranked(after, signals, read_less=read_less)
    standing_out = [request for request in after if signals.intersection(request.flags)]
    return Exhibits(
        documents=_documents(before, ranked[:MAX_REQUESTS] if read_less else standing_out or after),
        requests=tuple(_request(one) for one in ranked[:MAX_REQUESTS]),
        canary=_canary(event, windows, canary),
        deploys=_deploys(event, windows, deploys),
        prompts=_prompts(after, signals & _OF_LABELS),
    )


def _documents(before: Sequence[ObservedRequest], after: Sequence[ObservedRequest]) -> tuple[DocumentExhibit, ...]:
    """Return the documents whose share of what is read changed most."""
    shares = [_shares(before), _shares(after)]
    known: dict[str, ObservedDocument] = {}
    requests: dict[str, int] = defaultdict(int)
    for request in (*before, *after):
        for document in request.documents:
            known[document.id] = document
    for request in after:
        for identity in {document.id for document in request.documents}:
            requests[identity] += 1
    found = [
        DocumentExhibit(
            id=identity, source=document.source, version=document.version, retrieved_at=document.retrieved_at,
            requests=requests[identity], share_before=_share(shares[0], identity), share_after=_share(shares[1], identity),
            tenant=document.labels.get(TENANT_LABEL, ""),
        )
        for identity, document in known.items()
    ]  # fmt: skip
    return tuple(sorted(found, key=_by_change)[:MAX_DOCUMENTS])


def _by_change(one: DocumentExhibit) -> tuple[float, bool, int, str]:
    """Return what orders documents: those that moved most first; of equals, the one that came before the one that went."""
    change = round((one.share_after or 0.0) - (one.share_before or 0.0), 6)
    return (-abs(change), change < 0, -one.requests, one.id)


def _shares(requests: Sequence[ObservedRequest]) -> dict[str, float] | None:
    """Return the part of all attention on documents that each one drew; None where no request says."""
    drawn: dict[str, float] = defaultdict(float)
    for request in requests:
        for document in request.documents:
            if document.share is not None:
                drawn[document.id] += document.share
    together = sum(drawn.values())
    return {identity: share / together for identity, share in drawn.items()} if together > 0 else None


def _share(shares: dict[str, float] | None, identity: str) -> float | None:
    return None if shares is None else shares.get(identity, 0.0)


def _ranked(after: Sequence[ObservedRequest], signals: set[str], *, read_less: bool) -> list[ObservedRequest]:
    """Return first the requests that stand out in most of *signals*, then in most others, then the latest; each route in turn.

    Where documents are *read less*, those that read them least come before the latest.
    """

    def rank(request: ObservedRequest) -> tuple[int, int, float, int]:
        read = request.grounding_ratio if read_less and request.grounding_ratio is not None else 1.0
        return (-len(signals.intersection(request.flags)), -len(request.flags), read, -request.time_ns)

    routes: dict[str, list[ObservedRequest]] = defaultdict(list)
    for request in sorted(after, key=rank):
        routes[request.route].append(request)
    in_turn = sorted(
        ((place, *rank(request), request) for held in routes.values() for place, request in enumerate(held)),
        key=lambda one: one[:-1],
    )
    return [one for *_, one in in_turn]


def _request(one: ObservedRequest) -> RequestExhibit:
    return RequestExhibit(
        request_id=one.request_id, engine_id=one.engine_id, trace_id=one.trace_id, time_ns=one.time_ns, route=one.route,
        state=one.state, grounding_ratio=one.grounding_ratio, kind=one.kind, user=one.user, tenant=one.tenant,
    )  # fmt: skip


def _prompts(after: Sequence[ObservedRequest], signals: set[str]) -> tuple[PromptExhibit, ...]:
    """Return the kinds of prompts, by route, of the requests that stand out in any of *signals*, the most frequent first."""
    drawn = Counter((request.kind, request.route) for request in after if request.kind and signals.intersection(request.flags))
    ranked = sorted(drawn.items(), key=lambda item: (-item[1], item[0]))
    return tuple(PromptExhibit(kind, route, requests) for (kind, route), requests in ranked[:MAX_PROMPTS])


def _canary(event: DriftEvent, windows: Sequence[ObservedWindow], given: CanaryExhibit | None) -> CanaryExhibit | None:
    """Return the run that was given, else the first one that failed since the change began, else the latest."""
    if given is not None:
        return given
    runs = sorted((run for window in windows for run in window.canaries), key=lambda run: run.time_ns)
    failed = [run for run in runs if run.failed and run.time_ns >= event.since_ns]
    return failed[0] if failed else (runs[-1] if runs else None)


def _deploys(
    event: DriftEvent, windows: Sequence[ObservedWindow], given: Iterable[DeployEvent]
) -> tuple[DeployEvent, ...]:
    near_ns = event.since_ns - int(NEAR_SECONDS * 1e9)
    found = {(one.time_ns, one.title): one for window in windows for one in window.deploys}
    found |= {(one.time_ns, one.title): one for one in given}
    return tuple(one for _, one in sorted(found.items()) if near_ns <= one.time_ns <= event.time_ns)
