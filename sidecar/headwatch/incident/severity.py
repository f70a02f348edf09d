"""How loud an incident is: whether it pages at all, and how severe it is.  One place, so that a route never decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from headwatch.findings import Severity
from headwatch.incident.triage import SUPPORTED

if TYPE_CHECKING:
    from headwatch.findings import DriftEvent, Evidence, Verdict

_CRITICAL_CAUSES = frozenset({"injection", "forbidden_documents", "other_tenant", "system_prompt", "documents_absent"})
"""What hurts a user at once, whatever the size."""
_LARGE_EFFECT = 4.0
"""Standard deviations of the baseline's windows: what nobody could miss on a plot."""
_LARGE_DEVIATION = 0.05
"""Of a fixed prompt, in the unit of the features: beyond what another precision does on average."""


def pages(verdict: Verdict) -> bool:
    """Return whether a person is woken for *verdict*: for every class but traffic."""
    return verdict.drift_class != "traffic"


def severity(verdict: Verdict, event: DriftEvent) -> Severity:
    """Return how severe it is.

    ``info``: traffic, and a change of sampling, which somebody ordered.  ``critical``: an injection, documents that must not be
    there or are not there at all, a vanished system prompt; and a model that is rather surely another one, or retrieval that is
    rather surely broken, by a large effect.  ``warning``: the rest.
    """
    if verdict.drift_class == "traffic" or verdict.cause == "sampling_changed":
        return "info"
    if verdict.confidence < SUPPORTED:
        return "warning"
    if verdict.cause in _CRITICAL_CAUSES:
        return "critical"
    if verdict.drift_class in {"model", "retrieval"} and any(map(_large, event.evidence)):
        return "critical"
    return "warning"


def louder(one: Severity, other: Severity) -> Severity:
    """Return the more severe of two."""
    return min(one, other, key=get_args(Severity).index)


def _large(one: Evidence) -> bool:
    """Return whether *one* is large; of a canary the deviation counts, since what is allowed may be next to nothing."""
    if one.kind == "canary":
        return abs(one.after - one.before) >= _LARGE_DEVIATION
    return one.kind in {"heads", "signal"} and abs(one.effect) >= _LARGE_EFFECT
