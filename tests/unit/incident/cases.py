"""Evidence, events and cases for tests: a window of a minute, one route, unless a test says otherwise."""

from __future__ import annotations

import msgspec

from headwatch.findings import CanaryExhibit, Case, DriftEvent, Evidence, EvidenceKind, Exhibits, HeadFinding, Verdict

MINUTE = 60 * 10**9
START = 1_800_000_000 * 10**9
"""When changes begin, 2027-01-15 08:00 UTC."""
MODEL, ROUTE = "smol", "hr"


def evidence(
    kind: EvidenceKind, name: str, before: float, after: float, effect: float = 5.0, *, route: str = ROUTE,
    since_ns: int = START, stratum: str = "",
) -> Evidence:
    return Evidence(kind, name, MODEL, route, stratum, 5.0, before, after, effect, since_ns)  # fmt: skip


def signal(name: str, before: float, after: float, effect: float | None = None, **more) -> Evidence:
    return evidence("signal", name, before, after, (5.0 if after > before else -5.0) if effect is None else effect, **more)


def telemetry(name: str, before: float, after: float, **more) -> Evidence:
    return evidence("telemetry", name, before, after, 0.0, route="", **more)


def traffic(name: str, before: float, after: float, **more) -> Evidence:
    return evidence("traffic", name, before, after, after - before, **more)


def heads(route: str = ROUTE, stratum: str = "smol|1|-|hr|1k-2k|decode", effect: float = -1.5, **more) -> Evidence:
    found = tuple(HeadFinding(12, head, "lookback", 6.0 - head, 0.42, 0.31, effect) for head in range(3))
    one = evidence("heads", "lookback", 0.42, 0.31, effect, route=route, stratum=stratum, **more)
    return msgspec.structs.replace(one, heads=found)


def event(*found: Evidence, since_ns: int = START, windows: int = 6, route: str | None = None) -> DriftEvent:
    routes = {one.route for one in found}
    return DriftEvent(
        time_ns=since_ns + windows * MINUTE, since_ns=since_ns, model=MODEL,
        route=(routes.pop() if len(routes) == 1 else "") if route is None else route, evidence=found, log10_evidence=4.7,
        interval_windows=43_200, window_seconds=60.0, windows_since=windows,
    )  # fmt: skip


def canary(*, failed: bool, hint: str = "", time_ns: int = START + 2 * MINUTE, deviation: float = 0.5) -> CanaryExhibit:
    return CanaryExhibit(
        time_ns=time_ns, prompt="needle-2", deviation=deviation if failed else 0.0, threshold=1e-5, failed=failed,
        earliest_layer=7 if failed else None,
        heads=(HeadFinding(7, 3, "entropy", 0.0, 0.5, 0.9, 40.0),) if failed else (), hint=hint,
    )  # fmt: skip


def case(*found: Evidence, run: CanaryExhibit | None = None, **more) -> Case:
    return Case(event=event(*found), canary=run, **more)


def verdict(drift_class: str = "retrieval", cause: str = "documents_absent", confidence: float = 0.9) -> Verdict:
    return Verdict(drift_class, cause, "requests come without documents", confidence, "traffic", "ask again", ("a row",))


NOTHING = Exhibits()
