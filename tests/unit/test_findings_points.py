"""Drift, canaries, incidents and pagers as points: what is there, what is not, and that it stays bounded."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
from opentelemetry.sdk.metrics.export import Gauge, Sum

from headwatch.health import CANARY_REASONS
from headwatch_exporters.findings import MAX_CANARIES, MAX_EVIDENCE, MAX_PAGING, Findings
from headwatch_exporters.otlp_data import metrics_data
from headwatch_exporters.totals import Totals

from ..traffic import EMPTY
from .incidents import SECOND, canary, canary_runs, evidence, found, incident, pager, status, verdict


def values(delivery, findings=None):
    """Return the values of *delivery* by metric and the values of its attributes."""
    made = (findings or Findings()).values(delivery)
    by_series = {(name, *attributes.values()): value for name, attributes, value in made}
    assert len(by_series) == len(made), "a series appears twice"
    return by_series


def test_a_sidecar_without_detection_says_nothing_of_it():
    assert Findings().values(EMPTY) == []


def test_silenced_incidents_are_not_counted_as_open_and_every_class_is_there():
    shown = values(found(EMPTY))
    counts = {series[1:]: value for series, value in shown.items() if series[0] == "incident.open"}
    assert len(counts) == 15
    assert {series for series, value in counts.items() if value} == {("retrieval", "critical")}


def test_where_prometheus_pages_each_incident_that_is_told_of_is_a_series_with_its_names():
    """What is silenced, was told to nobody or is of class traffic is none; the latest stay where there are too many."""
    own = {"page_route": "prometheus"}
    told = incident(1)
    quiet = (incident(2, silenced=True), incident(3, paged=False), incident(4, verdict=verdict(drift_class="traffic")))
    shown = values(found(EMPTY, open_incidents=(told, *quiet), **own))
    paging = {series[1:] for series in shown if series[0] == "incident.paging"}
    assert paging == {("hw-0000000001", "retrieval", "critical", "smol", "support", "L0.H0 L0.H1")}
    assert not any(series[0] == "incident.paging" for series in values(found(EMPTY, open_incidents=(told,))))
    many = tuple(incident(number, opened_ns=number) for number in range(3 * MAX_PAGING))
    shown = values(found(EMPTY, open_incidents=many, **own))
    kept = {series[1] for series in shown if series[0] == "incident.paging"}
    assert kept == {incident(number).id for number in range(2 * MAX_PAGING, 3 * MAX_PAGING)}


def test_precision_is_absent_until_somebody_ruled():
    """No ruling is not a precision of zero."""
    shown = values(found(EMPTY))
    assert shown["incident.precision", "retrieval"] == 0.75
    assert ("incident.precision", "model") not in shown


def test_pages_are_those_of_the_route_and_not_of_its_mirrors():
    shown = values(found(EMPTY))
    assert (shown["incident.pages", "retrieval"], shown["incident.pages", "model"]) == (2, 0)
    assert (shown["pager.up", "webhook", "page"], shown["pager.up", "grafana", "mirror"]) == (1, 0)


def test_evidence_is_bounded_to_the_largest():
    many = tuple(evidence(f"e-{n}", log10_evidence=float(n), stratum=f"s-{n}") for n in range(3 * MAX_EVIDENCE))
    shown = values(found(EMPTY, drift=status(evidence=many)))
    sizes = [value for series, value in shown.items() if series[0] == "drift.evidence"]
    assert len(sizes) == MAX_EVIDENCE
    assert min(sizes) == 2 * MAX_EVIDENCE


def test_strata_that_have_no_room_of_their_own_share_one_name_and_the_largest_stands_for_them():
    findings = Findings()
    for number in range(5):
        found_now = tuple(evidence(stratum=f"s-{number}-{n}", log10_evidence=float(n)) for n in range(80))
        shown = values(found(EMPTY, drift=status(evidence=found_now)), findings)
    others = {series: value for series, value in shown.items() if series[0] == "drift.evidence" and series[3] == "other"}
    assert list(others.values()) == [79.0]


def test_what_is_no_number_is_left_out():
    """Where the clock shows nothing at all its logarithm is minus infinity; a share of nothing is NaN."""
    odd = status(clock=-math.inf, evidence=(evidence(log10_evidence=-math.inf, effect=math.nan),))
    shown = values(found(EMPTY, drift=odd, canaries=(canary(deviation=math.nan),)))
    assert all(math.isfinite(value) for value in shown.values())
    assert shown["drift.clock",] == 0.0
    assert not any(series[0] in {"drift.evidence", "drift.effect_size", "canary.deviation"} for series in shown)


def test_the_last_run_of_a_canary_is_shown_with_its_age_until_the_next():
    findings = Findings()
    values(found(EMPTY, canaries=(canary(time_ns=EMPTY.time_ns, failed=True, deviation=0.5),)), findings)
    later = replace(EMPTY, time_ns=EMPTY.time_ns + 600 * SECOND)
    shown = values(later, findings)
    assert (shown["canary.failed", "plain"], shown["canary.age", "plain"]) == (1, 600.0)
    shown = values(replace(later, canaries=(canary(time_ns=later.time_ns),)), findings)
    assert (shown["canary.failed", "plain"], shown["canary.age", "plain"]) == (0, 0.0)


def test_canaries_are_bounded():
    findings = Findings()
    runs = tuple(canary(f"p-{n}") for n in range(MAX_CANARIES + 20))
    shown = values(replace(EMPTY, canaries=runs), findings)
    names = {series[1] for series in shown if series[0] == "canary.failed"}
    assert names == {f"p-{n}" for n in range(20, MAX_CANARIES + 20)}


def test_runs_of_canaries_are_counted_and_every_reason_is_there():
    """A rule on the growth of a reason needs its zero."""
    shown = values(found(EMPTY))
    assert (shown["canary.runs",], shown["canary.interval",], shown["canary.run_age",]) == (7, 300.0, 60.0)
    failures = {series[1]: value for series, value in shown.items() if series[0] == "canary.failures"}
    assert failures == {**dict.fromkeys(CANARY_REASONS, 0), "refused": 2, "timed_out": 1}


def test_before_the_first_completed_run_its_age_is_that_of_the_runner():
    """A server that refuses from the start must show, too."""
    health = replace(EMPTY.health, canary=canary_runs(EMPTY.time_ns, runs=0, completed_ns=0))
    shown = values(replace(EMPTY, health=health))
    assert (shown["canary.runs",], shown["canary.run_age",]) == (0, 3600.0)
    later = replace(EMPTY, time_ns=EMPTY.time_ns + 10 * SECOND, health=health)
    assert values(later)["canary.run_age",] == 3610.0, "it grows while nothing runs"


def test_runs_of_canaries_go_out_by_otlp_as_sums_and_gauges():
    data = metrics_data(Totals().points(found(EMPTY)), "vllm")
    (scope,) = data.resource_metrics[0].scope_metrics
    sent = {item.name: item for item in scope.metrics}
    failures = sent["headwatch.canary.failures"]
    assert isinstance(failures.data, Sum)
    assert failures.data.is_monotonic
    counts = {point.attributes["headwatch.reason"]: point.value for point in failures.data.data_points}
    assert counts == {**dict.fromkeys(CANARY_REASONS, 0), "refused": 2, "timed_out": 1}
    assert [point.value for point in sent["headwatch.canary.runs"].data.data_points] == [7]
    age = sent["headwatch.canary.run_age"]
    assert (isinstance(age.data, Gauge), age.unit, [point.value for point in age.data.data_points]) == (True, "s", [60.0])


def test_points_have_the_attributes_that_the_table_names():
    for point in Totals().points(found(EMPTY)):
        assert set(point.attributes) <= set(point.metric.attributes), point.metric.name
    names = {point.metric.name for point in Totals().points(found(EMPTY))}
    assert {"headwatch.drift.clock", "headwatch.incident.open", "headwatch.pager.pending", "headwatch.canary.age"} <= names
    assert {"headwatch.canary.runs", "headwatch.canary.failures", "headwatch.canary.run_age"} <= names


def test_a_verdict_that_changes_moves_the_count():
    moved = incident(verdict=verdict(drift_class="model", cause="weights"), severity="warning")
    shown = values(found(EMPTY, open_incidents=(moved,)))
    assert (shown["incident.open", "model", "warning"], shown["incident.open", "retrieval", "critical"]) == (1, 0)


def test_pagers_are_shown_also_while_detection_is_off():
    health = replace(EMPTY.health, pagers={"webhook": pager(up=False)})
    assert values(replace(EMPTY, health=health))["pager.up", "webhook", "page"] == 0


def test_a_page_without_evidence_is_no_error():
    shown = values(found(EMPTY, drift=msgspec.structs.replace(status(), evidence=()), open_incidents=()))
    assert shown["drift.threshold",] == 4.6
