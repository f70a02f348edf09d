"""The budget controller in a trace of step times with tenfold load spikes, on a clock of its own.

Run ``python -m benchmarks.budget [--json FILE] [--plot FILE]``.  A simulated engine takes steps one after the other; the
real planner and the real budget decide which rows it summarises, and what those cost is drawn: seconds a row and layer and
kilotoken as measured for the CPU kernel, times a log-normal error, sometimes a thread that lost its core, and a long
self-check at the start.  Spikes: ten times the requests; ten times the context; both at once.

Reported: the share of 10-second windows of step time (one starts at every step) in which capture stayed within its share.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from headwatch.capture.engine.runners.base import StepBatch
from headwatch.capture.layers.attention import row_spans
from headwatch.capture.plan.budget import WINDOW_SECONDS, Budget
from headwatch.capture.plan.step import SampledRequest, plan_step
from headwatch.capture.plan.thinning import seed_of
from headwatch.capture.settings import of_file
from headwatch.config import CaptureConfig
from headwatch.model import RequestContext, Span

SHARE = 0.01
LAYERS = 30
SPIKES = ((200.0, 320.0, 10, 1), (440.0, 560.0, 1, 10), (680.0, 800.0, 10, 10))
"""From and to (seconds), times the requests, times the context."""
SECONDS = 960.0
_WILD = 0.005
"""Share of steps whose thread loses its core while it summarises."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked of capture, on which machine."""

    name: str
    sampled: float
    """Share of requests that are sampled."""
    step_stride: int
    requests: int = 8
    context: int = 400
    step_seconds: float = 0.050
    request_seconds: float = 0.0005
    """What one more request adds to a step."""
    row_seconds: float = 25e-6
    kilotoken_seconds: float = 90e-6
    """For each layer."""
    seed: int = 1


SCENARIOS = (
    Scenario("within its share until a spike comes", sampled=0.25, step_stride=8),
    Scenario("every row of every request", sampled=1.0, step_stride=1),
    Scenario("steps of a fast engine", sampled=0.25, step_stride=8, requests=32, step_seconds=0.008, request_seconds=5e-5,
             row_seconds=12e-6, kilotoken_seconds=2e-6),
)  # fmt: skip


@dataclass(slots=True)
class Trace:
    """What happened, step by step."""

    step_seconds: list[float]
    spent_seconds: list[float]
    stride: list[int]
    wanted: list[int]
    planned: list[int]
    weight: list[float]
    empty: list[bool]
    uncapped_seconds: list[float]
    """What all wanted rows would have cost."""


class _Engine:
    """Requests that come and go, so many at a time as the load of the moment is."""

    def __init__(self, scenario: Scenario, random: np.random.Generator) -> None:
        self._scenario, self._random = scenario, random
        self._lengths: dict[str, list[int]] = {}  # id: [length, end]
        self.requests: dict[str, SampledRequest] = {}
        self._number = 0

    def batch(self, requests: int, context: int) -> StepBatch:
        """Return the next step: ended requests leave, new ones come with their whole prompt."""
        new = set()
        for name in [name for name, (length, end) in self._lengths.items() if length >= end]:
            del self._lengths[name]
            self.requests.pop(name, None)
        while len(self._lengths) < requests:
            self._number += 1
            name = f"r{self._number}"
            prompt = int(context * self._random.uniform(0.5, 1.5))
            self._lengths[name] = [prompt - 1, prompt + int(self._random.integers(20, 200))]
            new.add(name)
            if self._random.random() < self._scenario.sampled:
                spans = [Span("user", 0, prompt)]
                self.requests[name] = SampledRequest(RequestContext(name, prompt, spans), row_spans(spans), seed_of(name))
        starts, lengths = [0], []
        for name, entry in self._lengths.items():
            entry[0] += 1
            starts.append(starts[-1] + (entry[0] if name in new else 1))
            lengths.append(entry[0])
        return StepBatch(list(self._lengths), starts, lengths)


def simulate(scenario: Scenario, share: float = SHARE, seconds: float = SECONDS) -> Trace:
    """Return the trace of the first *seconds* of *scenario* under a budget of *share*."""
    random = np.random.default_rng(scenario.seed)
    engine, budget = _Engine(scenario, random), Budget(share, LAYERS)
    settings = of_file(CaptureConfig(step_stride=scenario.step_stride))
    trace, now = Trace([], [], [], [], [], [], [], []), 0.0
    checks = 3
    while now < seconds:
        more, longer = next(((m, c) for start, end, m, c in SPIKES if start <= now < end), (1, 1))
        batch = engine.batch(scenario.requests * more, scenario.context * longer)
        trace.empty.append(budget.purse_seconds <= 0)
        plan = plan_step(engine.requests, batch, {}, settings, 4096, budget)
        tokens = np.concatenate([rows.positions + 1 for rows in plan.rows]) if plan.rows else np.zeros(0)
        layers = LAYERS / plan.layer_stride
        # The hooks, and planning; with an empty purse the engine would not have planned, which is done here to count.
        spent = 15e-6 + (0.0 if budget.passes_over() else 2e-6 * len(engine.requests))
        spent += _cost(scenario, tokens, layers) * _surprise(random)
        checked = bool(plan.rows) and checks > 0
        if checked:
            checks -= 1
            spent += 0.05
        step = scenario.step_seconds + scenario.request_seconds * len(batch.ids) + 2e-6 * sum(batch.sequence_lengths) / 10
        step = step * random.lognormal(0.0, 0.1) + spent
        budget.settle(step, spent, ordinary=not checked)
        now += step
        trace.step_seconds.append(step)
        trace.spent_seconds.append(spent)
        trace.stride.append(budget.stride)
        trace.wanted.append(plan.planned + plan.thinned)
        trace.planned.append(plan.planned)
        trace.weight.append(float(sum(rows.weights.sum() for rows in plan.rows)) / plan.layer_stride)
        trace.uncapped_seconds.append(
            (plan.planned + plan.thinned) * _cost(scenario, np.array([scenario.context * longer]), LAYERS)
        )
    return trace


def _cost(scenario: Scenario, tokens: np.ndarray, layers: float) -> float:
    return float(layers * (len(tokens) * scenario.row_seconds + tokens.sum() * 1e-3 * scenario.kilotoken_seconds))


def _surprise(random: np.random.Generator) -> float:
    """Return by what factor a step's cost misses its mean: noise of 35 %, and one step in 200 loses its core."""
    return float(random.lognormal(-0.06, 0.35) * (random.uniform(3, 10) if random.random() < _WILD else 1.0))


def window_shares(trace: Trace, seconds: float = WINDOW_SECONDS) -> np.ndarray:
    """Return capture's share of each stretch of *seconds* of step time; one starts at every step."""
    ends, spent = np.cumsum(trace.step_seconds), np.cumsum(trace.spent_seconds)
    starts = np.append(0.0, ends[:-1])
    first = np.arange(len(ends))
    last = np.searchsorted(ends, starts + seconds)
    whole = last < len(ends)
    first, last = first[whole], last[whole]
    before = np.append(0.0, spent[:-1])
    shares: np.ndarray = (spent[last] - before[first]) / (ends[last] - starts[first])
    return shares


def summary(trace: Trace, share: float = SHARE) -> dict[str, float]:
    """Return the figures of a trace."""
    shares = window_shares(trace)
    steps, spent = np.array(trace.step_seconds), np.array(trace.spent_seconds)
    return {
        "windows": len(shares),
        "windows_within": float((shares <= share).mean()),
        "worst_window_share": float(shares.max()),
        "mean_share": float(spent.sum() / steps.sum()),
        "share_without_budget": float(sum(trace.uncapped_seconds) / steps.sum()),
        "rows_wanted": int(sum(trace.wanted)),
        "rows_planned": int(sum(trace.planned)),
        "uncovered": float(np.array(trace.wanted)[np.array(trace.empty)].sum() / max(sum(trace.wanted), 1)),
        "largest_stride": max(trace.stride),
        "stride_changes": int((np.diff(trace.stride) != 0).sum()),
    }


def main() -> int:
    """Run the scenarios and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--plot", type=Path, help="write the picture of the first scenario there, as SVG")
    arguments = parser.parse_args()
    results = {}
    for scenario in SCENARIOS:
        trace = simulate(scenario)
        if arguments.plot and scenario is SCENARIOS[0]:
            from benchmarks.budget_plot import plot  # noqa: PLC0415 - draws what this module measures

            arguments.plot.write_text(plot("The budget of capture under tenfold load spikes", trace))
        results[scenario.name] = {**summary(trace), "scenario": asdict(scenario)}
        sys.stdout.write(f"{scenario.name}\n")
        sys.stdout.write("".join(f"  {name:24} {value:12,.5g}\n" for name, value in summary(trace).items()))
    if arguments.json:
        arguments.json.write_text(json.dumps({"share": SHARE, "spikes": SPIKES, "scenarios": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
