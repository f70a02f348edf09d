"""What the demo's broken phases opened: read back from the sidecar, and put beside the phase that was running.

A phase is known by the times at which its requests ended, as the store has them; so an incident that opened in the healthy
phase would show here as one of the healthy phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.demo.servers import WINDOW_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwatch.demo.api import SidecarApi

_LIMIT = 100
_HEADS = 5


class DemoIncident(msgspec.Struct, frozen=True, rename={"drift_class": "class"}):
    """One incident that pages."""

    id: str
    drift_class: str
    cause: str
    phase: str
    """The phase that was running when it opened."""
    opened_after_windows: int
    """Windows of that phase that had closed by then."""
    sentence: str
    confidence: float
    heads: list[tuple[int, int]]
    """Layer and head, those that moved most first; empty where no head is part of the evidence."""
    documents: list[str]
    requests: list[str]


def read_incidents(api: SidecarApi, phases: Sequence[str]) -> list[DemoIncident]:
    """Return the incidents that page, in the order in which they opened."""
    ended = {phase: _ended(api, phase) for phase in phases}
    found = [one for one in api.get("incidents", limit=_LIMIT) if one["paged"]]
    return [_incident(one, ended) for one in sorted(found, key=lambda one: one["event"]["time_ns"])]


def _ended(api: SidecarApi, phase: str) -> list[int]:
    return sorted(int(request["time_ns"]) for request in api.get("requests", arm=phase, limit=1000))


def _incident(incident: Mapping[str, Any], ended: Mapping[str, Sequence[int]]) -> DemoIncident:
    time_ns = int(incident["event"]["time_ns"])
    phase = _phase_at(time_ns, ended)
    heads = [(int(head["layer"]), int(head["head"])) for one in incident["event"]["evidence"] for head in one["heads"]]
    return DemoIncident(
        id=incident["id"],
        drift_class=incident["verdict"]["drift_class"],
        cause=incident["verdict"]["cause"],
        phase=phase,
        opened_after_windows=-(-sum(one <= time_ns for one in ended.get(phase, ())) // WINDOW_REQUESTS),
        sentence=incident["verdict"]["sentence"],
        confidence=incident["verdict"]["confidence"],
        heads=list(dict.fromkeys(heads))[:_HEADS],
        documents=[document["id"] for document in incident["exhibits"]["documents"]],
        requests=[request["request_id"] for request in incident["exhibits"]["requests"]],
    )


def _phase_at(time_ns: int, ended: Mapping[str, Sequence[int]]) -> str:
    """Return the phase whose requests were ending at *time_ns*: the last one of which one had ended."""
    begun = [(times[0], phase) for phase, times in ended.items() if times and times[0] <= time_ns]
    return max(begun)[1] if begun else ""
