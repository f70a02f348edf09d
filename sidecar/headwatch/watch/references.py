"""What measurements are held against: baselines and fingerprints in force, told when they change and at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.drift.kept import NONE
from headwatch.findings import BaselineInForce, FingerprintInForce

if TYPE_CHECKING:
    from headwatch.canary.state import FingerprintFacts
    from headwatch.drift.kept import BaselineEntry


class References:
    """Remembers what was told."""

    def __init__(self) -> None:
        self._promotion: int | None = None
        self._fingerprint: FingerprintFacts | None = None

    def baselines(self, promotion: int, entry: BaselineEntry | None, now_ns: int) -> tuple[BaselineInForce, ...]:
        """Return *entry*, which *promotion* put in force, where it was not told yet; None: that none is in force."""
        if promotion == self._promotion:
            return ()
        self._promotion = promotion
        if entry is None:
            return (BaselineInForce(now_ns, NONE, "", 0, 0, 0, 0, ""),)
        return (BaselineInForce(
            now_ns, entry.version, entry.origin, entry.created_ns, entry.first_window, entry.last_window, entry.windows,
            entry.note,
        ),)  # fmt: skip

    def fingerprints(self, facts: FingerprintFacts | None, now_ns: int) -> tuple[FingerprintInForce, ...]:
        """Return the fingerprint of *facts* where it was not told yet."""
        if facts is None or facts == self._fingerprint:
            return ()
        self._fingerprint = facts
        return (FingerprintInForce(
            now_ns, facts.created_ns, facts.model, facts.revision, facts.dtype, facts.prompt_set, facts.runs, facts.exact,
            facts.note,
        ),)  # fmt: skip
