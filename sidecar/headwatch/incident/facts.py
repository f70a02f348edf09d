"""What a case says, as answers to the questions that the rows of the decision table ask.

Nothing is weighed here.  Evidence counts only where it is material: a pager with days of windows behind it finds changes that
are real and too small to matter, and a small change must not decide what kind of thing happened.  What is material is stated
beside the rows, in :mod:`headwatch.incident.table`, and handed in.

An event also brings figures that moved beside those that paged, and some forty are looked at, so one of them moves by three
standard errors now and then.  A figure is *sure* that has evidence of its own, or moved by ``BY_CHANCE`` standard errors; the
standard error is that of windows which are as alike as they were in the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headwatch.findings import Case, Evidence, EvidenceKind

Sign = Literal[-1, 0, 1]
"""-1: it fell.  1: it rose.  0: either."""
CanaryState = Literal["failed", "passed", "older", "none"]
"""``older``: the latest run ended before the change began, so it speaks neither for nor against."""
BY_CHANCE = 4.0
"""Standard errors: among forty figures, one in four hundred events shows a figure beyond that by chance."""
OWN_EVIDENCE = 2.0
"""log10 of the evidence from which a figure speaks for itself."""
TOGETHER_WINDOWS = 3
"""Two beginnings within so many windows are one beginning: a beginning is an estimate."""


@dataclass(frozen=True, slots=True)
class Least:
    """How large a change must be before it counts."""

    effect: float = 0.0
    """|effect|, in standard deviations of the baseline's windows."""
    change: float = 0.0
    """|after - before|, in the unit of the figure."""
    relative: float = 0.0
    """|after - before| as a part of the larger of the two."""

    def reached_by(self, evidence: Evidence) -> bool:
        """Return whether *evidence* is at least so large in every respect."""
        change = abs(evidence.after - evidence.before)
        largest = max(abs(evidence.after), abs(evidence.before))
        return (abs(evidence.effect) >= self.effect and change >= self.change
                and (not self.relative or (largest > 0 and change / largest >= self.relative)))  # fmt: skip


class Facts:
    """A case, asked by kind and name.  A name that ends with a dot or a colon stands for all names that begin with it."""

    def __init__(self, case: Case, least: Mapping[str, Least]) -> None:
        self.case = case
        self._least = least
        self._slack_ns = int(TOGETHER_WINDOWS * case.event.window_seconds * 1e9)

    def signal(self, name: str, sign: Sign = 0) -> Evidence | None:
        """Return the largest material and sure change of a figure of retrieval."""
        return self._largest("signal", filter(self._sure, self.case.event.evidence), name, sign)

    def leaning(self, name: str, sign: Sign = 0) -> Evidence | None:
        """Return the same of changes that need not be sure: enough for a doubt, too little for a claim."""
        return self._largest("signal", self.case.event.evidence, name, sign)

    def any_of(self, signs: Mapping[str, Sign]) -> bool:
        """Return whether any figure of *signs* moved the way that is given with it, materially and for sure."""
        return any(self.signal(name, sign) is not None for name, sign in signs.items())

    def telemetry(self, name: str, sign: Sign = 0) -> Evidence | None:
        """Return the largest material fault of headwatch's own that began with the event or before it."""
        found = [*self.case.telemetry, *self.case.event.evidence]
        latest = self.case.event.since_ns + self._slack_ns
        return self._largest("telemetry", (one for one in found if one.since_ns <= latest), name, sign)

    def traffic(self, name: str, sign: Sign = 0) -> Evidence | None:
        """Return the largest material change of what is asked."""
        return self._largest("traffic", (*self.case.traffic, *self.case.event.evidence), name, sign)

    @property
    def asked_otherwise(self) -> Evidence | None:
        """Return the change of what is asked that could bend figures within a scope: length or language, not the mix of routes.

        The length is that of what is no document: documents of another length are retrieval's own.
        """
        return self.traffic("language:") or self.traffic("asked_length")

    @property
    def documents_resized(self) -> Sign:
        """Return whether documents are longer (1) or shorter (-1) than before; 0 where neither is material, or both."""
        names = ("document_tokens", "tokens_per_document")
        longer, shorter = (any(self.leaning(name, sign) for name in names) for sign in (1, -1))
        if longer == shorter:
            return 0
        return 1 if longer else -1

    @property
    def heads(self) -> tuple[Evidence, ...]:
        """Return the evidence of attention heads."""
        return tuple(one for one in self.case.event.evidence if one.kind == "heads")

    @property
    def routes(self) -> frozenset[str]:
        """Return the routes whose heads moved; rare strata that are watched together are of no route."""
        return frozenset(one.route for one in self.heads if one.route)

    @property
    def canary(self) -> CanaryState:
        """Return what the fixed prompts say of the model since the change began."""
        run = self.case.canary
        if (run is not None and run.failed) or any(one.kind == "canary" for one in self.case.event.evidence):
            return "failed"
        if run is None:
            return "none"
        return "passed" if run.time_ns >= self.case.event.since_ns else "older"

    @property
    def hint(self) -> str:
        """Return what the failed canary's pattern looks like; empty where it tells nothing."""
        run = self.case.canary
        return run.hint if run is not None and run.failed else ""

    def _sure(self, one: Evidence) -> bool:
        windows = max((self.case.event.time_ns - one.since_ns) / 1e9 / self.case.event.window_seconds, 1.0)
        error = max(one.standard_error, 1.0 / sqrt(windows))
        return one.log10_evidence >= OWN_EVIDENCE or abs(one.effect) >= BY_CHANCE * error

    def _largest(
        self, kind: EvidenceKind, evidence: Iterable[Evidence], name: str, sign: Sign
    ) -> Evidence | None:
        found = [
            one for one in evidence
            if one.kind == kind and _named(one.name, name) and _goes(one, sign) and self._threshold(one.name).reached_by(one)
        ]  # fmt: skip
        return max(found, key=lambda one: (abs(one.effect), abs(one.after - one.before)), default=None)

    def _threshold(self, name: str) -> Least:
        for known, least in self._least.items():
            if _named(name, known):
                return least
        return Least()


def _named(name: str, wanted: str) -> bool:
    return name.startswith(wanted) if wanted.endswith((".", ":")) else name == wanted


def _goes(evidence: Evidence, sign: Sign) -> bool:
    return sign == 0 or (evidence.after - evidence.before) * sign > 0
