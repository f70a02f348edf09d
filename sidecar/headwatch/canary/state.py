"""Where canaries stand, for health, exporters and the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from headwatch.health import CanaryReason

if TYPE_CHECKING:
    from pathlib import Path

    from headwatch.canary.fingerprint import Fingerprint

RunnerState = Literal["starting", "pinning", "watching", "failing"]


class FingerprintFacts(msgspec.Struct, frozen=True):
    """What the fingerprint in force is."""

    path: str
    created_ns: int
    model: str
    revision: str
    dtype: str
    prompt_set: str
    runs: int
    exact: bool
    note: str


class CanaryHealth(msgspec.Struct, frozen=True):
    """Where canaries stand.  Counts are since the sidecar's start."""

    state: RunnerState
    endpoint: str
    last_run_ns: int
    """When the last run ended, completed or not."""
    completed_ns: int
    """When the last completed one did; 0 before the first."""
    runs: int
    """``headwatch.canary.runs``: those that were completed."""
    failures: dict[CanaryReason, int]
    """``headwatch.canary.failures``: runs that could not be made or read whole, by reason.  No drift."""
    departures: int
    """Runs that departed from the fingerprint."""
    error: str
    """Why the last run failed; empty where it did not."""
    gathered: int
    """Runs that wait to be pinned."""
    fingerprint: FingerprintFacts | None
    deviation: dict[str, float]
    """``headwatch.canary.deviation``: the largest deviation of each prompt in the last run."""
    threshold: dict[str, float]


def facts_of(fingerprint: Fingerprint, path: Path) -> FingerprintFacts:
    """Return what *fingerprint*, which lies in *path*, is."""
    return FingerprintFacts(
        str(path), fingerprint.created_ns, fingerprint.model, fingerprint.revision, fingerprint.dtype, fingerprint.prompt_set,
        fingerprint.runs, fingerprint.noise is None, fingerprint.note,
    )  # fmt: skip
