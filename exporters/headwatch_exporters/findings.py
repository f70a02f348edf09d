"""Drift, canaries, incidents and pagers as sums and gauges: some hundred series at most, whatever happens.

Evidence is bounded to the :data:`MAX_EVIDENCE` largest of a window; labels that come from clients are bounded as everywhere.
Classes, severities and reasons are always all there, 0 included, so that a rule can tell "no incident" from "no headwatch".
"""

from __future__ import annotations

from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING, get_args

from headwatch.findings import CLASSES, DriftStatus, Severity
from headwatch.metrics import (
    ATTR_CANARY,
    ATTR_CLASS,
    ATTR_EVIDENCE,
    ATTR_EVIDENCE_KIND,
    ATTR_INCIDENT,
    ATTR_INCIDENT_HEADS,
    ATTR_MODEL,
    ATTR_PAGER,
    ATTR_REASON,
    ATTR_ROLE,
    ATTR_ROUTE,
    ATTR_SEVERITY,
    ATTR_STATE,
    ATTR_STRATUM,
)
from headwatch_exporters.label_limit import LabelLimit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.findings import CanaryExhibit
    from headwatch.health import CanaryRuns, PagerHealth
    from headwatch.records import Delivery

MAX_EVIDENCE = 100
MAX_CANARIES = 50
MAX_PAGING, PAGED_HEADS = 20, 5
"""Incidents that page by Prometheus' rule, and the heads that each names there."""
STATES: tuple[str, ...] = ("off", "warming_up", "watching", "shadow")
SEVERITIES: tuple[str, ...] = get_args(Severity)
_EVIDENCE = (ATTR_MODEL, ATTR_ROUTE, ATTR_STRATUM, ATTR_EVIDENCE, ATTR_EVIDENCE_KIND)

Value = tuple[str, dict[str, str], float]
"""Name of a metric, its attributes, its value."""


class Findings:
    """Remembers the last run of each canary.  Not safe from threads."""

    def __init__(self) -> None:
        self._route = LabelLimit()
        self._stratum = LabelLimit(200)
        self._canaries: dict[str, CanaryExhibit] = {}

    def values(self, delivery: Delivery) -> list[Value]:
        """Return what *delivery* says; nothing where detection, canaries and pagers are off."""
        for run in delivery.canaries:
            self._canaries.pop(run.prompt, None)
            self._canaries[run.prompt] = run
        while len(self._canaries) > MAX_CANARIES:
            self._canaries.pop(next(iter(self._canaries)))
        found = [*self._canary_values(delivery.time_ns), *_pagers(delivery.health.pagers)]
        if delivery.health.canary is not None:
            found += _canary_runs(delivery.health.canary, delivery.time_ns)
        if delivery.drift is not None:
            found += self._drift(delivery.drift, delivery.time_ns)
        if delivery.page_route:  # also before the first window of this life
            found += _incidents(delivery)
        return [value for value in found if isfinite(value[2])]

    def _drift(self, status: DriftStatus, now_ns: int) -> Iterator[Value]:
        yield "drift.clock", {}, max(0.0, status.clock)  # it may show nothing at all, of which there is no logarithm
        yield "drift.threshold", {}, status.threshold
        yield "drift.age", {}, max(0.0, (now_ns - status.time_ns) / 1e9)
        for state in STATES:
            yield "drift.state", {ATTR_STATE: state}, status.state == state
        seen = set[tuple[str, ...]]()
        for item in sorted(status.evidence, key=lambda item: -item.log10_evidence)[:MAX_EVIDENCE]:
            key = (item.model, self._route(item.route), self._stratum(item.stratum), item.name, item.kind)
            if key in seen:  # of those that share the name "other", the largest stands for all
                continue
            seen.add(key)
            attributes = dict(zip(_EVIDENCE, key, strict=True))
            yield "drift.evidence", attributes, item.log10_evidence
            yield "drift.effect_size", attributes, item.effect

    def _canary_values(self, now_ns: int) -> Iterator[Value]:
        for name, run in self._canaries.items():
            attributes = {ATTR_CANARY: name}
            yield "canary.deviation", attributes, run.deviation
            yield "canary.threshold", attributes, run.threshold
            yield "canary.failed", attributes, run.failed
            yield "canary.age", attributes, max(0.0, (now_ns - run.time_ns) / 1e9)


def _canary_runs(canary: CanaryRuns, now_ns: int) -> Iterator[Value]:
    yield "canary.runs", {}, canary.runs
    for reason, count in canary.failures.items():
        yield "canary.failures", {ATTR_REASON: reason}, count
    yield "canary.run_age", {}, canary.age_seconds(now_ns)
    yield "canary.interval", {}, canary.interval_seconds


def _incidents(delivery: Delivery) -> Iterator[Value]:
    counts: Counter[tuple[str, str]] = Counter(
        (incident.verdict.drift_class, incident.severity) for incident in delivery.open_incidents if not incident.silenced
    )
    if delivery.page_route == "prometheus":
        yield from _paging(delivery)
    for drift_class in CLASSES:
        for severity in SEVERITIES:
            yield "incident.open", {ATTR_CLASS: drift_class, ATTR_SEVERITY: severity}, counts[drift_class, severity]
    for name, (true, ruled) in delivery.precision.items():
        if ruled:
            yield "incident.precision", {ATTR_CLASS: name}, true / ruled


def _paging(delivery: Delivery) -> Iterator[Value]:
    """Yield the incidents that a rule of Prometheus is to page for, by the names that its page has."""
    told = [incident for incident in delivery.open_incidents
            if incident.paged and not incident.silenced and incident.verdict.drift_class != "traffic"]  # fmt: skip
    for incident in sorted(told, key=lambda incident: incident.opened_ns)[-MAX_PAGING:]:
        found = (head for evidence in incident.event.evidence for head in evidence.heads)
        heads = dict.fromkeys(f"L{head.layer}.H{head.head}" for head in sorted(found, key=lambda head: -head.log10_evidence))
        yield "incident.paging", {
            ATTR_INCIDENT: incident.id,
            ATTR_CLASS: incident.verdict.drift_class,
            ATTR_SEVERITY: incident.severity,
            ATTR_MODEL: incident.event.model,
            ATTR_ROUTE: incident.event.route,
            ATTR_INCIDENT_HEADS: " ".join(list(heads)[:PAGED_HEADS]),
        }, 1  # fmt: skip


def _pagers(pagers: dict[str, PagerHealth]) -> Iterator[Value]:
    for name, health in pagers.items():
        attributes = {ATTR_PAGER: name, ATTR_ROLE: "page" if health.pages else "mirror"}
        yield "pager.up", attributes, health.up
        yield "pager.sent", attributes, health.sent
        yield "pager.failed", attributes, health.failed
        yield "pager.pending", attributes, health.pending
        if health.pages:
            for drift_class in CLASSES:
                yield "incident.pages", {ATTR_CLASS: drift_class}, health.opened.get(drift_class, 0)
