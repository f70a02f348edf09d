"""How loud an incident is: whether it pages at all, and how severe it is.  One place, so that a route never decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from headwatch.findings import Severity
from headwatch.incident.triage import SUPPORTED

if TYPE_CHECKING:
    from headwatch.findings import DriftEvent, Verdict

_CRITICAL_CAUSES = frozenset({"injection", "forbidden_documents", "other_tenant", "system_prompt", "documents_absent"})
"""What hurts a user at once, whatever the size."""
_LARGE_EFFECT = 4.0
"""Standard deviations of the baseline's windows: what nobody could miss on a plot."""


def pages(verdict: Verdict) -> bool:
    """Return whether a person is woken for *verdict*: for every class but traffic."""
    return verdict.drift_class != "traffic"


def severity(verdict: Verdict, event: DriftEvent) -> Severity:
    """Return how severe it is.

    ``info``: traffic, and a change of sampling, which somebody ordered.  ``critical``: an injection, documents that must not be
    there or are not there at all, a vanished system prompt; and a model that is surely another one and moved heads of real
    traffic, or retrieval that is surely broken, by a large effect.  ``warning``: the rest.
    """
    if verdict.drift_class == "traffic" or verdict.cause == "sampling_changed":
        return "info"
    if verdict.confidence < SUPPORTED:
        return "warning"
    if verdict.cause in _CRITICAL_CAUSES:
        return "critical"
    if verdict.drift_class in {"model", "retrieval"} and _largest_effect(event) >= _LARGE_EFFECT:
        return "critical"
    return "warning"


def louder(one: Severity, other: Severity) -> Severity:
    """Return the more severe of two."""
    return min(one, other, key=get_args(Severity).index)


def _largest_effect(event: DriftEvent) -> float:
    return max((abs(one.effect) for one in event.evidence if one.kind in {"heads", "signal", "canary"}), default=0.0)
