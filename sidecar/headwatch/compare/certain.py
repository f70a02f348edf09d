"""What needs no test: headwatch's own figures, fixed prompts and prompt templates, held against each other by stated rules.

Their noise is none (a refused layer, another template) or is judged where it is known (a canary's threshold), so a permutation
would only make them harder to see.

Telemetry: a difference of the means over windows beyond ``THRESHOLDS``.  The number of workers is none of them: two deployments
may differ in size.

Canaries: a side has failed a prompt where more than half of its runs failed, or the last one did (the model changed within the
range, and the range ends with another one than the fingerprint's).  A prompt differs where one side alone has failed it, or
where both have and their deviations lie further apart than the threshold.  Both sides must have been held against the same
fingerprint.

Templates: a route's usual digest (half of its requests or more, of at least five) that has a tenth of its share or less on the
other side has vanished: another system prompt or template was released.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from headwatch.compare.side import CanaryTally

if TYPE_CHECKING:
    from headwatch.compare.side import Side

THRESHOLDS: dict[str, tuple[float, float]] = {
    "capture_up": (0.25, 0.0),
    "frames_missing_share": (0.01, 0.0),
    "rows_dropped_share": (0.05, 0.0),
    "rows_refused_share": (0.01, 0.0),
    "refused_layers": (0.5, 0.0),
    "clock_skew_seconds": (2.0, 0.0),
    "sample_rate": (0.0, 0.2),
    "step_stride": (0.0, 0.2),
    "detail": (0.5, 0.0),
}
"""Name to the least difference, absolute and as a part of the larger one; both must be exceeded."""
USUAL, GONE, FEWEST_REQUESTS = 0.5, 0.1, 5.0
_TEMPLATE = "template:"


class Difference(msgspec.Struct, frozen=True):
    """A figure that differs by more than its threshold."""

    name: str
    before: float
    after: float


class CanaryDifference(msgspec.Struct, frozen=True):
    """One prompt on both sides."""

    prompt: str
    differs: bool
    first: CanaryTally
    second: CanaryTally


def telemetry_differences(first: Side, second: Side) -> list[Difference]:
    """Return the figures of headwatch's own state that differ."""
    found = []
    for name, (absolute, relative) in THRESHOLDS.items():
        before, after = first.telemetry.get(name), second.telemetry.get(name)
        if before is None or after is None:
            continue
        change = abs(after - before)
        if change > absolute and change > relative * max(abs(before), abs(after)):
            found.append(Difference(name, before, after))
    return found


def canary_differences(first: Side, second: Side) -> list[CanaryDifference]:
    """Return every prompt that was run on both sides, and whether it differs."""
    others = {tally.prompt: tally for tally in second.canaries}
    return [CanaryDifference(tally.prompt, _differs(tally, others[tally.prompt]), tally, others[tally.prompt])
            for tally in first.canaries if tally.prompt in others]  # fmt: skip


def template_differences(first: Side, second: Side) -> list[Difference]:
    """Return the usual template of each route that vanished, from its share before to its share after."""
    before, after = _templates(first), _templates(second)
    found = []
    for route in sorted(before.keys() & after.keys()):
        totals = sum(before[route].values()), sum(after[route].values())
        if min(totals) < FEWEST_REQUESTS:
            continue
        digest, count = max(before[route].items(), key=lambda item: item[1])
        share, left = count / totals[0], after[route].get(digest, 0.0) / totals[1]
        if share >= USUAL and left <= GONE * share:
            found.append(Difference(f"{_TEMPLATE}{route}:{digest}", share, left))
    return found


def _differs(first: CanaryTally, second: CanaryTally) -> bool:
    failed = [tally.last_failed or 2 * tally.failed > tally.runs for tally in (first, second)]
    if failed[0] != failed[1]:
        return True
    return all(failed) and abs(first.deviation - second.deviation) > max(first.threshold, second.threshold)


def _templates(side: Side) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for name, counts in side.traffic.items():
        if name.startswith(_TEMPLATE):
            route, _, digest = name.removeprefix(_TEMPLATE).rpartition(":")
            found[route][digest] = float(counts.sum())
    return found
