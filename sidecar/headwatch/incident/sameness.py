"""One cause, one incident: when evidence that comes later belongs to an incident that is there.

Three rules, each enough by itself, all within one model, and apart for what families in shadow found: that must neither quieten
nor wake what pages.

1. *Same cause*: same class, same cause where the class has several at a time (retrieval, traffic), and routes that overlap.
2. *Began together*: the two beginnings lie within a few windows of each other and they share a stratum, or a route.
3. *Again*: a stream of the incident moves again, in the same direction.  A pager starts at zero after a page, so a cause that
   lasts is found a second time, with a later beginning.

A model incident also covers what heads alone show, since a changed model moves the heads of every route.

One rule against: a figure that is *counted* (documents absent, stale, cut off, of another tenant), was no part of the incident
and began to move after it was found, is a cause of its own, whatever heads go on moving beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.incident.facts import TOGETHER_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwatch.findings import DriftEvent, Evidence, Incident, Verdict

_ONE_AT_A_TIME = frozenset({"telemetry", "model", "injection"})
"""Classes of which a model has one incident at a time: a second cause is more of the same until somebody says otherwise."""
_COUNTED = {
    "documents_absent": {"documents_absent"},
    "documents_unresolved": {"documents_unresolved"},
    "truncated_documents": {"tokens_per_document", "document_wholeness"},
    "stale_documents": {"stale_age_days", "stale_mass", "version_lag"},
    "forbidden_documents": {"forbidden_mass"},
    "other_tenant": {"other_tenant_mass"},
    "unreliable_documents": {"unreliable_mass"},
}
"""Causes of retrieval that are counted or labelled, and the signals that show them."""


def belongs_to(incident: Incident, events: Iterable[DriftEvent], event: DriftEvent, verdict: Verdict) -> bool:
    """Return whether *event*, judged as *verdict*, is of the cause of *incident*, which *events* have shown so far."""
    if _apart(incident.event, event):
        return False
    known = tuple(events)
    if _counted_anew(incident, known, event, verdict):
        return False
    return same_cause(incident, event, verdict) or any(
        (_together(one, event) and _share_a_place(one, event)) or _again(one, event) for one in known
    )


def _apart(one: DriftEvent, other: DriftEvent) -> bool:
    return one.model != other.model or bool(one.shadow_families) != bool(other.shadow_families)


def _counted_anew(incident: Incident, known: tuple[DriftEvent, ...], event: DriftEvent, verdict: Verdict) -> bool:
    """Return whether *verdict* rests on a counted figure that was still when *incident* was found, and has moved since."""
    names = _COUNTED.get(verdict.cause, set())
    before = {evidence.name for one in (incident.event, *known) for evidence in one.evidence if evidence.kind == "signal"}
    began = [one.since_ns for one in event.evidence if one.kind == "signal" and one.name in names]
    return bool(began) and not names & before and min(began) >= incident.event.time_ns


def same_cause(incident: Incident, event: DriftEvent, verdict: Verdict) -> bool:
    """Return whether the verdicts agree, and the routes overlap."""
    there = incident.verdict
    if _apart(incident.event, event):
        return False
    if there.drift_class == "model" and all(one.kind == "heads" for one in event.evidence):
        return True
    if there.drift_class != verdict.drift_class:
        return False
    if there.drift_class in _ONE_AT_A_TIME and (there.drift_class != "injection" or _routes_overlap(incident.event, event)):
        return True
    return there.cause == verdict.cause and _routes_overlap(incident.event, event)


def _together(one: DriftEvent, other: DriftEvent) -> bool:
    return abs(one.since_ns - other.since_ns) <= TOGETHER_WINDOWS * max(one.window_seconds, other.window_seconds) * 1e9


def _share_a_place(one: DriftEvent, other: DriftEvent) -> bool:
    strata = {evidence.stratum for evidence in one.evidence if evidence.stratum}
    if strata & {evidence.stratum for evidence in other.evidence if evidence.stratum}:
        return True
    return _routes_overlap(one, other)


def _routes_overlap(one: DriftEvent, other: DriftEvent) -> bool:
    first, second = _routes(one), _routes(other)
    return not first or not second or bool(first & second)


def _routes(event: DriftEvent) -> set[str]:
    """Return the routes that *event* is about; empty: all."""
    named = {evidence.route for evidence in event.evidence}
    return set() if "" in named else named


def _again(one: DriftEvent, other: DriftEvent) -> bool:
    return bool({_stream(evidence) for evidence in one.evidence} & {_stream(evidence) for evidence in other.evidence})


def _stream(evidence: Evidence) -> tuple[str, str, str, str, bool]:
    return (evidence.kind, evidence.name, evidence.route, evidence.stratum, evidence.after >= evidence.before)
