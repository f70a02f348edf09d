"""How many runs of canaries were completed, and how many were not and why.

Canaries that say nothing may be at rest or may not run at all; these counts tell the two apart.  A run counts once: as
completed, or under one reason of a bounded set, that of the first prompt that failed.  None of it is drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.health import CANARY_REASONS, CanaryReason, CanaryRuns

if TYPE_CHECKING:
    from headwatch.canary.signature import Run

_REASON_OF: dict[str, CanaryReason] = {
    **{reason: reason for reason in CANARY_REASONS},
    "incomplete": "rows", "prompts": "fingerprint", "mixed": "fingerprint", "few_runs": "fingerprint",
}  # fmt: skip
"""Reasons of :class:`~headwatch.errors.CanaryError`, of which there may be more, under what they are counted."""


class RunCounts:
    """The counts of one runner.  Not safe from threads: the runner's lock is around it."""

    def __init__(self, interval_seconds: float, now_ns: int) -> None:
        self._interval_seconds = interval_seconds
        self._started_ns = now_ns
        self._runs = 0
        self._failures = dict.fromkeys(CANARY_REASONS, 0)
        self._completed_ns = 0

    def take(self, run: Run) -> None:
        """Count *run*, which was pinned or compared as far as it goes."""
        if run.failures:
            self.fail(run.reason)
        else:
            self._runs += 1
            self._completed_ns = run.time_ns

    def fail(self, reason: str) -> None:
        """Count a run of which nothing came, for *reason*, one of an error's."""
        self._failures[_REASON_OF.get(reason, "unexpected")] += 1

    def now(self) -> CanaryRuns:
        """Return the counts."""
        return CanaryRuns(self._interval_seconds, self._runs, dict(self._failures), self._completed_ns, self._started_ns)
