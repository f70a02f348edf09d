"""What the pair says of its own state: workers, ingest, exporters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from headwatch.model import StatusFrame  # noqa: TC001 - doctor reads these annotations at run time (msgspec)

CanaryReason = Literal["unreachable", "timed_out", "refused", "rows", "fingerprint", "unexpected"]
"""Why a run of canaries was not completed: nothing answers at the server's address; it did not answer in time; it answered with
an error or nonsense; rows did not arrive, or not whole; the fingerprint cannot be read, written or pinned, or is of other
prompts; an error of headwatch's own."""
CANARY_REASONS: tuple[CanaryReason, ...] = get_args(CanaryReason)

SPOOL_FULL = 0.8
"""Beyond this part of its cap a spool makes the sidecar not ready."""
SPOOL_LATE_SECONDS = 300.0
"""So does a delivery that waits longer."""


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
    """Cumulative counts: ``frames rows head_summaries thinned_rows thinned_head_summaries rejected.<reason> field.<reason>
    late_rows dropped_requests evidence_rows evidence_dropped.<reason> canary_rows canary_rows_dropped text_frames``."""
    exporters: dict[str, ExporterHealth]
    pagers: dict[str, PagerHealth] = field(default_factory=dict)
    """By the name of the sender: the one that pages, and those that mirror it."""
    canary: CanaryRuns | None = None
    """None: this sidecar sends no canaries."""
    thinning: int = 1
    """Ingest keeps one request in so many at the moment."""
    reads: dict[str, int] = field(default_factory=dict)
    """Reads through the ClickHouse endpoint by how they ended: ``ok``, ``cancelled``, or the name of the error."""
    texts: dict[str, int] = field(default_factory=dict)
    """Cumulative counts of texts: ``kept refused.<reason>``; empty where none are kept."""


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
    spool: SpoolHealth | None = None
    """None: this exporter has no spool.  Otherwise what is exported is what the store has taken."""


@dataclass(frozen=True, slots=True)
class SpoolHealth:
    """What is between this process and the store.  Counts are since the sidecar's start."""

    up: bool
    """Whether the last record was taken, by the spool and by the store."""
    last_error: str
    disk_bytes: int
    """On disk, what was delivered and not yet deleted included."""
    max_bytes: int
    records: int
    """Deliveries that wait for the store."""
    oldest_ns: int
    """When the oldest of them was made; 0: none waits."""
    sent_records: int
    sent_batches: int
    sent_rows: int
    """Rows of the Collector's and headwatch's tables; not what views make of them."""
    send_errors: int
    """Attempts to send a delivery that failed; each is made again."""
    errors: dict[str, int]
    """By reason, attempts that failed, of writing to the spool and of sending: each is made again."""
    dropped_batches: dict[str, int]
    """By ``reason:table``: given up for good."""
    dropped_rows: dict[str, int]
    """Likewise; what could not be read any more counts no rows, since nobody knows how many it held."""
    aside_batches: int
    """Batches set aside, with the reason beside each: the store refuses them, or they could not be read."""
    last_duration_seconds: float
    """How long the store took for the last record."""

    def age_seconds(self, now_ns: int) -> float:
        """Return how long the oldest delivery waits; 0 where none does."""
        return max(0.0, (now_ns - self.oldest_ns) / 1e9) if self.oldest_ns else 0.0


def spool_reasons(spool: SpoolHealth, now_ns: int) -> list[str]:
    """Return why *spool* is no state to be in; empty where it is."""
    reasons = []
    if spool.disk_bytes > SPOOL_FULL * spool.max_bytes:
        full = spool.disk_bytes / spool.max_bytes
        reasons.append(f"the spool is {full:.0%} full; at 100 % the oldest is lost (spool.max_bytes)")
    if spool.age_seconds(now_ns) > SPOOL_LATE_SECONDS:
        reasons.append(f"the oldest of {spool.records} deliveries waits for the store since {spool.age_seconds(now_ns):.0f} s")
    return reasons


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


@dataclass(frozen=True, slots=True)
class CanaryRuns:
    """What the runner of canaries says of its work.  Counts are since the sidecar's start; each run counts once."""

    interval_seconds: float
    """How often a run is due: ``canary.interval_seconds``."""
    runs: int
    """Completed: every prompt was sent, its rows arrived whole, and they were pinned or held against the fingerprint."""
    failures: dict[CanaryReason, int]
    """Not completed, which is no drift; every reason is there, also with 0."""
    completed_ns: int
    """When the last completed run ended; 0 before the first."""
    started_ns: int
    """When the runner was made."""

    def age_seconds(self, now_ns: int) -> float:
        """Return how long ago the last completed run ended; before the first, how long the runner has been there."""
        return max(0.0, (now_ns - (self.completed_ns or self.started_ns)) / 1e9)
