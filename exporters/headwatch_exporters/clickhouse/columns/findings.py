"""What was found (incidents, evidence, canaries, releases, references) as columns of its tables, with tokens of its content.

A sidecar that was killed steps the same windows again and hands out the same findings; one that starts tells of recent releases
again; and what a dropped delivery found comes with another.  So a token is made of what is written, and not of when or of what
comes along with it: the store takes each canary run and each release once.  Of incidents it keeps the latest state.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwatch.findings import (
        BaselineInForce,
        CanaryExhibit,
        DeployEvent,
        DriftStatus,
        FingerprintInForce,
        HeadFinding,
        Incident,
    )
    from headwatch.records import Delivery
    from headwatch_exporters.clickhouse.columns import Columns

MAX_HEADS = 50
_U16 = 2**16 - 1


def finding_batches(delivery: Delivery, drift: DriftStatus | None) -> Iterator[tuple[str, Columns, str]]:
    """Yield table, columns and token of what *delivery* found; *drift* is its status where that is of a new window."""
    service = delivery.service
    if delivery.incidents:
        token = ",".join(f"{incident.id}@{incident.updated_ns}" for incident in delivery.incidents)
        yield "headwatch_incidents", incident_columns(delivery.incidents, service, delivery.page_route), f"{service}:{token}"
    if drift is not None and drift.evidence:
        token = f"{service}:{drift.window}:{drift.time_ns}"
        yield "headwatch_drift_evidence", evidence_columns(drift, service), token
    for _, prompts in groupby(delivery.canaries, lambda run: run.time_ns):
        run = tuple(prompts)
        token = ",".join(f"{one.prompt}@{one.time_ns}" for one in run)
        yield "headwatch_canaries", canary_columns(run, service), f"{service}:{token}"
    for deploy in delivery.deploys:
        yield "headwatch_deploys", deploy_columns((deploy,), service), f"{service}:{deploy.title}@{deploy.time_ns}"
    for baseline in delivery.baselines:
        yield "headwatch_baselines", baseline_columns((baseline,), service), f"{service}:{baseline.version}@{baseline.time_ns}"
    for fingerprint in delivery.fingerprints:
        token = f"{service}:{fingerprint.created_ns}@{fingerprint.time_ns}"
        yield "headwatch_fingerprints", fingerprint_columns((fingerprint,), service), token


def incident_columns(incidents: Sequence[Incident], service: str, page_route: str) -> Columns:
    """Return *incidents* as they are now."""
    heads = [_heads_of(incident) for incident in incidents]
    documents = [incident.exhibits.documents for incident in incidents]
    requests = [incident.exhibits.requests for incident in incidents]
    return {
        "id": [incident.id for incident in incidents],
        "updated": [incident.updated_ns for incident in incidents],
        "service": [service] * len(incidents),
        "opened": [incident.opened_ns for incident in incidents],
        "since": [incident.event.since_ns for incident in incidents],
        "resolved": [incident.resolved_ns if incident.state == "resolved" else None for incident in incidents],
        "state": [incident.state for incident in incidents],
        "severity": [incident.severity for incident in incidents],
        "class": [incident.verdict.drift_class for incident in incidents],
        "cause": [incident.verdict.cause for incident in incidents],
        "sentence": [incident.verdict.sentence for incident in incidents],
        "confidence": [incident.verdict.confidence for incident in incidents],
        "runner_up": [incident.verdict.runner_up or "" for incident in incidents],
        "model": [incident.event.model for incident in incidents],
        "route": [incident.event.route for incident in incidents],
        "log10_evidence": [incident.event.log10_evidence for incident in incidents],
        "acknowledged_by": [incident.acknowledged_by for incident in incidents],
        "resolved_by": [incident.resolved_by for incident in incidents],
        "ruling": [incident.ruling or "" for incident in incidents],
        "note": [incident.note for incident in incidents],
        "reopened": [min(incident.reopened, _U16) for incident in incidents],
        "silenced": [incident.silenced for incident in incidents],
        "silenced_why": [incident.silenced_why for incident in incidents],
        "paged": [incident.paged for incident in incidents],
        "page_route": [page_route] * len(incidents),
        **_head_columns(heads),
        "heads.effect": [[head.effect for head in found] for found in heads],
        "documents.id": [[document.id for document in found] for found in documents],
        "documents.source": [[document.source for document in found] for found in documents],
        "requests.request_id": [[request.request_id for request in found] for found in requests],
        "requests.engine_id": [[request.engine_id for request in found] for found in requests],
        "document": [msgspec.json.encode(incident).decode() for incident in incidents],
    }


def evidence_columns(status: DriftStatus, service: str) -> Columns:
    """Return the evidence of *status*, one row each."""
    rows = len(status.evidence)
    return {
        "time": [status.time_ns] * rows,
        "service": [service] * rows,
        "window": [status.window] * rows,
        "state": [status.state] * rows,
        "clock": [status.clock] * rows,
        "threshold": [status.threshold] * rows,
        "kind": [item.kind for item in status.evidence],
        "name": [item.name for item in status.evidence],
        "model": [item.model for item in status.evidence],
        "route": [item.route for item in status.evidence],
        "stratum": [item.stratum for item in status.evidence],
        "log10_evidence": [item.log10_evidence for item in status.evidence],
        "before": [item.before for item in status.evidence],
        "after": [item.after for item in status.evidence],
        "effect": [item.effect for item in status.evidence],
        "since": [item.since_ns for item in status.evidence],
    }


def canary_columns(runs: Sequence[CanaryExhibit], service: str) -> Columns:
    """Return *runs* of the fixed prompts."""
    return {
        "time": [run.time_ns for run in runs],
        "service": [service] * len(runs),
        "prompt": [run.prompt for run in runs],
        "deviation": [run.deviation for run in runs],
        "threshold": [run.threshold for run in runs],
        "failed": [run.failed for run in runs],
        "earliest_layer": [run.earliest_layer for run in runs],
        "hint": [run.hint for run in runs],
        "note": [run.note for run in runs],
        **_head_columns([run.heads[:MAX_HEADS] for run in runs]),
    }


def deploy_columns(deploys: Sequence[DeployEvent], service: str) -> Columns:
    """Return releases."""
    return {
        "time": [deploy.time_ns for deploy in deploys],
        "service": [service] * len(deploys),
        "title": [deploy.title for deploy in deploys],
        "revision": [deploy.revision for deploy in deploys],
        "who": [deploy.who for deploy in deploys],
        "planned_seconds": [deploy.planned_seconds for deploy in deploys],
    }


def baseline_columns(baselines: Sequence[BaselineInForce], service: str) -> Columns:
    """Return baselines that came into force."""
    return {
        "time": [baseline.time_ns for baseline in baselines],
        "service": [service] * len(baselines),
        "version": [baseline.version for baseline in baselines],
        "origin": [baseline.origin for baseline in baselines],
        "created": [baseline.created_ns for baseline in baselines],
        "first_window": [baseline.first_window for baseline in baselines],
        "last_window": [baseline.last_window for baseline in baselines],
        "windows": [baseline.windows for baseline in baselines],
        "note": [baseline.note for baseline in baselines],
    }


def fingerprint_columns(fingerprints: Sequence[FingerprintInForce], service: str) -> Columns:
    """Return fingerprints that came into force."""
    return {
        "time": [fingerprint.time_ns for fingerprint in fingerprints],
        "service": [service] * len(fingerprints),
        "created": [fingerprint.created_ns for fingerprint in fingerprints],
        "model": [fingerprint.model for fingerprint in fingerprints],
        "revision": [fingerprint.revision for fingerprint in fingerprints],
        "dtype": [fingerprint.dtype for fingerprint in fingerprints],
        "prompt_set": [fingerprint.prompt_set for fingerprint in fingerprints],
        "runs": [fingerprint.runs for fingerprint in fingerprints],
        "exact": [fingerprint.exact for fingerprint in fingerprints],
        "note": [fingerprint.note for fingerprint in fingerprints],
    }


def _heads_of(incident: Incident) -> Sequence[HeadFinding]:
    """Return the heads that a page names, most evidence first."""
    found = [head for evidence in incident.event.evidence for head in evidence.heads]
    return sorted(found, key=lambda head: -head.log10_evidence)[:MAX_HEADS]


def _head_columns(heads: Sequence[Sequence[HeadFinding]]) -> Columns:
    return {
        "heads.layer": [[min(max(head.layer, 0), _U16) for head in found] for found in heads],
        "heads.head": [[min(max(head.head, 0), _U16) for head in found] for found in heads],
        "heads.feature": [[head.feature for head in found] for found in heads],
        "heads.before": [[head.before for head in found] for found in heads],
        "heads.after": [[head.after for head in found] for found in heads],
    }
