"""Incidents with known contents, for tests of what shows and carries them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from headwatch.findings import (
    CanaryExhibit,
    DeployEvent,
    DocumentExhibit,
    DriftEvent,
    DriftStatus,
    Evidence,
    Exhibits,
    HeadFinding,
    Incident,
    RequestExhibit,
    Verdict,
)
from headwatch.health import CANARY_REASONS, CanaryRuns, PagerHealth

if TYPE_CHECKING:
    from headwatch.records import Delivery

SECOND = 1_000_000_000
OPENED_NS = 1_800_000_000 * SECOND
STRATUM = "smol|rev||support|<512|decode"


def head(number: int = 0, **changes: object) -> HeadFinding:
    found = HeadFinding(layer=number // 3, head=number % 3, feature="lookback", log10_evidence=6.0 - number, before=0.4,
                        after=0.2, effect=-3.0, confident=number == 0)
    return msgspec.structs.replace(found, **changes)


def evidence(name: str = "lookback", **changes: object) -> Evidence:
    found = Evidence(
        kind="heads", name=name, model="smol", route="support", stratum=STRATUM, log10_evidence=5.5, before=0.4, after=0.2,
        effect=-3.0, since_ns=OPENED_NS - 300 * SECOND, heads=(head(0), head(1)),
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def event(**changes: object) -> DriftEvent:
    found = DriftEvent(
        time_ns=OPENED_NS, since_ns=OPENED_NS - 300 * SECOND, model="smol", route="support",
        evidence=(evidence(), evidence("document_mass", kind="signal", stratum="", heads=())), log10_evidence=5.7,
        interval_windows=43_200.0, window_seconds=60.0, windows_since=5,
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def verdict(**changes: object) -> Verdict:
    found = Verdict(
        drift_class="retrieval", cause="documents_ignored", sentence="Documents of route support are given and not read.",
        confidence=0.9, runner_up="model", tells_apart="A canary run.", why=("document_mass fell",),
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def exhibits() -> Exhibits:
    return Exhibits(
        documents=(DocumentExhibit("doc-1", "wiki", "3", "", 12, 0.5, 0.1),),
        requests=(RequestExhibit("chatcmpl-1", "chatcmpl-1-0a1b2c3d", "t" * 32, OPENED_NS, "support", "measured", 0.2,
                                  "1k-4k docs:3-4 turns:0"),),
        canary=canary(),
        deploys=(deploy(),),
    )


def canary(prompt: str = "plain", **changes: object) -> CanaryExhibit:
    found = CanaryExhibit(time_ns=OPENED_NS, prompt=prompt, deviation=1e-7, threshold=1e-6, failed=False, earliest_layer=None)
    return msgspec.structs.replace(found, **changes)


def deploy(**changes: object) -> DeployEvent:
    found = DeployEvent(OPENED_NS - 600 * SECOND, "release 7", "abc123", "ada", 0.0)
    return msgspec.structs.replace(found, **changes)


def incident(number: int = 1, **changes: object) -> Incident:
    found = Incident(
        id=f"hw-{number:010x}", state="open", severity="critical", opened_ns=OPENED_NS, updated_ns=OPENED_NS, event=event(),
        verdict=verdict(), exhibits=exhibits(), paged=True,
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def resolved(number: int = 1, seconds: float = 600.0, **changes: object) -> Incident:
    end_ns = OPENED_NS + int(seconds * SECOND)
    ended = {"state": "resolved", "resolved_ns": end_ns, "resolved_by": "ada", "updated_ns": end_ns, "ruling": "true"}
    return incident(number, **{**ended, **changes})


def status(**changes: object) -> DriftStatus:
    found = DriftStatus(
        time_ns=OPENED_NS, window=30_000_000, state="watching", pages_from_ns=0, clock=2.5, threshold=4.6,
        evidence=(
            evidence(heads=()),
            evidence("document_mass", kind="signal", stratum="", heads=(), log10_evidence=2.0, effect=-1.5),
        ),
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def pager(**changes: object) -> PagerHealth:
    kept = {"pages": True, "up": True, "sent": 3, "failed": 1, "pending": 0, "opened": {"retrieval": 2}, "last_error": ""}
    return PagerHealth(**{**kept, **changes})  # type: ignore[arg-type]


def canary_runs(now_ns: int, **changes: object) -> CanaryRuns:
    """Return the counts of a runner that completed seven runs, the last a minute ago, and was refused twice."""
    failures = {**dict.fromkeys(CANARY_REASONS, 0), "refused": 2, "timed_out": 1}
    kept = {"interval_seconds": 300.0, "runs": 7, "failures": failures, "completed_ns": now_ns - 60 * SECOND,
            "started_ns": now_ns - 3600 * SECOND}  # fmt: skip
    return CanaryRuns(**{**kept, **changes})  # type: ignore[arg-type]


def found(delivery: Delivery, **changes: object) -> Delivery:
    """Return *delivery* with what detection, canaries, incidents and pagers came to, as of its time."""
    now_ns = delivery.time_ns
    pagers = {"webhook": pager(), "grafana": pager(pages=False, up=False, sent=1, failed=4, pending=1, opened={})}
    kept = {
        "drift": status(time_ns=now_ns - 2 * SECOND),
        "incidents": (incident(1, opened_ns=now_ns, updated_ns=now_ns),),
        "open_incidents": (incident(1), incident(2, silenced=True)),
        "canaries": (canary(time_ns=now_ns - 5 * SECOND), canary("tools", time_ns=now_ns, deviation=0.5, failed=True)),
        "deploys": (deploy(time_ns=now_ns - 9 * SECOND),),
        "precision": {"retrieval": (3, 4), "model": (0, 0)},
        "page_route": "webhook",
        "health": replace(delivery.health, pagers=pagers, canary=canary_runs(now_ns)),
    }  # fmt: skip
    return replace(delivery, **{**kept, **changes})
