"""When an incident is recorded and nobody is woken: a silence that a person set, or a release that was announced.

A silence says which class, model and route; what it leaves empty it matches all of.  It does not hide anything: the incident is
opened, listed and shown, and only the page is not sent.

A release that was marked with a planned duration opens a maintenance window.  What begins inside is what was planned: it is
recorded as a known change, closed at once, and the baselines are learned anew from there.  Of a canary nobody knows when it
began, only that it lies between two runs: it began inside where the maintenance window holds any of the time between them.
Some causes no release plans, and those page all the same: injections, and documents that are forbidden, of another tenant, or
gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headwatch.incident.facts import TOGETHER_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwatch.findings import DeployEvent, DriftEvent, Verdict

MAX_PLANNED_SECONDS = 7 * 86_400.0
"""The longest maintenance window: releases are looked for so far back from an event."""
NEVER_PLANNED = frozenset({"injection", "forbidden_documents", "other_tenant", "documents_absent"})


class Silence(msgspec.Struct, frozen=True):
    """No page for what matches, for a time."""

    number: int
    drift_class: str
    """Empty: any."""
    model: str
    route: str
    from_ns: int
    until_ns: int
    who: str
    why: str

    def matches(self, event: DriftEvent, verdict: Verdict, now_ns: int) -> bool:
        """Return whether a page of *event* that would be sent now is not: every route that it is about must be silenced."""
        routes = {one.route for one in event.evidence} or {event.route}
        return (
            self.from_ns <= now_ns < self.until_ns
            and self.drift_class in {"", verdict.drift_class}
            and self.model in {"", event.model}
            and (not self.route or routes == {self.route})
        )


def planned_by(event: DriftEvent, verdict: Verdict, deploys: Iterable[DeployEvent]) -> DeployEvent | None:
    """Return the release whose maintenance window *event* began in, where a release may explain it."""
    if verdict.cause in NEVER_PLANNED:
        return None
    slack_ns = int(TOGETHER_WINDOWS * event.window_seconds * 1e9)
    latest_ns = min((one.seen_ns for one in event.evidence if one.seen_ns), default=event.since_ns)
    for one in deploys:
        end_ns = one.time_ns + int(one.planned_seconds * 1e9)
        if one.planned_seconds > 0 and event.since_ns <= end_ns and one.time_ns - slack_ns <= latest_ns:
            return one
    return None
