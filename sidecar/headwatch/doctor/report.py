"""All checks in order, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.doctor import endpoints, installation, pair

if TYPE_CHECKING:
    from headwatch.doctor.context import Context, Finding, Status


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor found; ``status`` is the worst of the findings."""

    status: Status
    url: str
    checks: tuple[Finding, ...]

    def count(self, status: Status) -> int:
        """Return how many findings have *status*."""
        return sum(finding.status == status for finding in self.checks)


def examine(context: Context) -> Report:
    """Return the findings of every check that applies to *context*."""
    found = [check(context) for check in (*installation.CHECKS, *endpoints.CHECKS)]
    if context.sidecar.health is not None:
        found += [check(context.sidecar.health) for check in pair.HEALTH_CHECKS]
    found.append(pair.sidecar_version(context))
    findings = tuple(finding for finding in found if finding is not None)
    seen = {finding.status for finding in findings}
    worst: Status = "fail" if "fail" in seen else "warn" if "warn" in seen else "ok"
    return Report(worst, context.url, findings)
