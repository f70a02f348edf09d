"""The demo's result, every figure of it read back from the store or from the scrape.

Nothing here knows what was sent: the sender's memory would agree with itself even if no number had come through.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.demo.api import total
from headwatch.demo.incidents import DemoIncident, read_incidents
from headwatch.errors import CommandError
from headwatch.metrics import metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headwatch.demo.api import SidecarApi

_POLL_SECONDS = 0.5
_TIMEOUT_SECONDS = 120.0
_SETTLED_POLLS = 4
"""Figures are taken as final when so many polls in a row, after the last window closed, show the same."""


class PhaseResult(msgspec.Struct, frozen=True):
    """One phase; ratios and masses are None where no request defines them."""

    name: str
    requests: int
    grounding_ratio_mean: float | None
    grounding_ratio_ci95: tuple[float, float] | None
    document_mass_mean: float | None
    grounding_ratio_retrieval_heads_mean: float | None
    grounding_ratio_retrieval_heads_ci95: tuple[float, float] | None


class DemoResult(msgspec.Struct, frozen=True):
    """What ``--json`` writes."""

    requests: int
    """Requests in the store."""
    sampled_rows: int
    """Query rows of these requests."""
    head_summaries: int
    """Head summaries that the sidecar aggregated, from the scrape."""
    dropped_frames: int
    """Frames that a worker dropped, or that never arrived."""
    otel_rows: int
    """Rows of the ``otel_metrics_*`` tables."""
    prometheus_samples: int
    """Samples of headwatch in one scrape."""
    phases: list[PhaseResult]
    incidents: list[DemoIncident]
    """Those that page, in the order in which they opened."""


class PhaseStates(msgspec.Struct, frozen=True):
    """How the requests of one phase were classed."""

    measured: int
    absent: int
    unresolved: int


def wait_for_requests(
    api: SidecarApi,
    expected: Mapping[str, int],
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> None:
    """Return once the store shows *expected* requests of each arm; *on_progress* is told how many it shows.

    Raises:
        CommandError: It does not within *timeout_seconds*; the message says what is missing.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        shown = {arm["arm"]: int(arm["requests"]) for arm in api.get("arms")}
        on_progress(sum(min(shown.get(arm, 0), count) for arm, count in expected.items()))
        missing = {arm: count - shown.get(arm, 0) for arm, count in expected.items() if shown.get(arm, 0) < count}
        if not missing:
            return
        if time.monotonic() > deadline:
            text = ", ".join(f"{count} of {arm}" for arm, count in missing.items())
            raise CommandError(f"{timeout_seconds:.0f} s after the last answer, requests are missing in the store: {text}")
        time.sleep(_POLL_SECONDS)


def wait_until_settled(
    api: SidecarApi, window_seconds: float, *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> None:
    """Return once the last window has closed and every exporter has delivered.

    A figure that keeps changing is not waited for beyond *timeout_seconds*.
    """
    started = time.monotonic()
    before: object = None
    same = 0
    while same < _SETTLED_POLLS and (waited := time.monotonic() - started) < timeout_seconds:
        if waited > window_seconds:
            now = (api.get("counts"), _head_summaries(api.scrape()), _queued(api.get("status")))
            same = same + 1 if now == before and not now[2] else 0
            before = now
        time.sleep(_POLL_SECONDS)


def read_result(api: SidecarApi, phases: Sequence[str]) -> DemoResult:
    """Return the figures of *phases*, in their order.  A phase that the store does not know has no requests."""
    arms = {arm["arm"]: arm for arm in api.get("arms")}
    counts = api.get("counts")
    status = api.get("status")
    samples = api.scrape()
    return DemoResult(
        requests=int(counts["requests"]),
        sampled_rows=int(counts["sampled_rows"]),
        head_summaries=_head_summaries(samples),
        dropped_frames=dropped_frames(status),
        otel_rows=int(counts["otel_rows"]),
        prometheus_samples=sum(1 for series, _ in samples if series.startswith("headwatch_")),
        phases=[_phase(name, arms.get(name, {})) for name in phases],
        incidents=read_incidents(api, phases),
    )


def read_states(api: SidecarApi, phases: Sequence[str]) -> dict[str, PhaseStates]:
    """Return how the requests of each phase were classed."""
    arms = {arm["arm"]: arm for arm in api.get("arms")}
    return {
        name: PhaseStates(**{state: int(arms.get(name, {}).get(state, 0)) for state in PhaseStates.__struct_fields__})
        for name in phases
    }


def dropped_frames(status: Mapping[str, Any]) -> int:
    """Return how many frames were lost: gaps in what arrived, or what the worker says that it dropped if that is more.

    A dropped frame leaves a gap, so the two are not added; but a gap shows only once a later frame has arrived.
    """
    return sum(
        max(int(worker["frames_missing"]), int(worker["status"]["counters"].get("frames_dropped", 0)))
        for worker in status["workers"]
    )


def _head_summaries(samples: Sequence[tuple[str, float]]) -> int:
    return int(total(samples, metric("ingest.head_summaries").prometheus_name))


def _queued(status: Mapping[str, Any]) -> int:
    return sum(int(exporter["queue_batches"]) for exporter in status["exporters"].values())


def _phase(name: str, arm: Mapping[str, Any]) -> PhaseResult:
    return PhaseResult(
        name=name,
        requests=int(arm.get("requests", 0)),
        grounding_ratio_mean=arm.get("grounding_ratio_mean"),
        grounding_ratio_ci95=_interval(arm.get("grounding_ratio_ci95")),
        document_mass_mean=arm.get("document_mass_mean"),
        grounding_ratio_retrieval_heads_mean=arm.get("grounding_ratio_retrieval_heads_mean"),
        grounding_ratio_retrieval_heads_ci95=_interval(arm.get("grounding_ratio_retrieval_heads_ci95")),
    )


def _interval(value: Sequence[float] | None) -> tuple[float, float] | None:
    return (float(value[0]), float(value[1])) if value else None
