"""What the pair says of its own state: workers, ingest, exporters."""

from __future__ import annotations

from dataclasses import dataclass, field

from headwatch.model import StatusFrame  # noqa: TC001 - doctor reads these annotations at run time (msgspec)


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """The latest status of a worker and what ingest counted of it."""

    status: StatusFrame
    received_ns: int
    clock_skew_seconds: float
    """Worker clock minus sidecar clock when its last status arrived."""
    frames_received: int
    frames_missing: int
    """Gaps in the sequence: frames that were sent and never arrived, or were dropped by the worker."""


@dataclass(frozen=True, slots=True)
class Health:
    """State of the pair at one moment, for exporters, /readyz and doctor."""

    time_ns: int
    workers: tuple[WorkerHealth, ...]
    ingest: dict[str, int]
    """Cumulative counts: ``frames rows head_summaries rejected.<reason> field.<reason> late_rows dropped_requests
    evidence_rows evidence_dropped.<reason>``."""
    exporters: dict[str, ExporterHealth]
    pagers: dict[str, PagerHealth] = field(default_factory=dict)
    """By the name of the sender: the one that pages, and those that mirror it."""


@dataclass(frozen=True, slots=True)
class ExporterHealth:
    """What one exporter says of itself."""

    up: bool
    exported_batches: int
    exported_points: int
    dropped_batches: int
    errors: int
    last_error: str
    last_duration_seconds: float
    queue_batches: int


@dataclass(frozen=True, slots=True)
class PagerHealth:
    """What one sender of pages says of itself."""

    pages: bool
    """Whether this is the operator's one route; False: it mirrors it."""
    up: bool
    sent: int
    failed: int
    """Attempts that failed, each of which is made again."""
    pending: int
    """Messages that were tried and not yet delivered."""
    opened: dict[str, int]
    """By class: incidents that this route told of for the first time, or again because they were reopened."""
    last_error: str
