"""Making recordings: every scenario on the real pair, run after run, in an order that starts as few engines as it can.

The healthy engine serves the baseline, a lead for each run, and all scenarios that change traffic, wire or sampling; then it is
restarted for each run, which is a scenario of its own.  Each altered engine serves all its runs at a stretch.  One sidecar
observes it all.

Seeds follow from scenario and run, so what is asked is the same in every recording; what an engine answers is, too, on the same
machine.  How requests meet in a batch is not, and neither are times.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from headwatch.bench.machine import describe
from headwatch.bench.triage import recording
from headwatch.bench.triage.asking import MAX_TOKENS, healthy
from headwatch.bench.triage.knowledge import company
from headwatch.bench.triage.scenarios import CONCURRENCY, SCENARIOS
from headwatch.bench.triage.sending import send
from headwatch.bench.triage.stage import IDLE_SECONDS, STEP_STRIDE, WINDOW_REQUESTS, Stage
from headwatch.demo.model import MODEL_NAME
from headwatch.demo.servers import SERVED_MODEL
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwatch.bench.triage.asking import Asked
    from headwatch.bench.triage.knowledge import Split
    from headwatch.bench.triage.scenarios import Scenario, Server
    from headwatch.observed import ObservedWindow

SEED = 20_261_129
RUNS = 3
DEVELOPMENT_RUNS = 2
"""The first runs are those that rules and thresholds were looked at with; the others are the reported ones."""
BASELINE_WINDOWS = 96
LEAD_WINDOWS = 4
_CLOSING_SECONDS = 10.0
"""Windows are waited for so long before more requests are sent: those of a lossy wire end when they have been idle."""
_IDLE_SECONDS = IDLE_SECONDS + 4.0
_MORE_WINDOWS = 24
"""A run goes on for so many windows at most until a canary has been seen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is recorded."""

    scenarios: tuple[Scenario, ...] = SCENARIOS
    runs: tuple[int, ...] = tuple(range(1, RUNS + 1))
    reuse: bool = False
    """Whether a baseline and leads that are there are left as they are."""
    tape: Path | None = None
    """Where the frames are kept as well."""
    command: str = "headwatch bench triage --record DIR"


def record(model: Path, target: Path, plan: Plan, progress: Callable[[str], None] = lambda _: None) -> None:
    """Record *plan* with *model* into the folder *target*.

    Raises:
        CommandError: A server does not start, or refuses a request.
    """
    target.mkdir(parents=True, exist_ok=True)
    work_dir = Path(tempfile.mkdtemp(prefix="headwatch-triage-"))
    try:
        with Stage(model, work_dir, plan.tape) as stage:
            _Recorder(stage, target, plan, progress).run()
    except CommandError:
        progress(f"the logs of the servers are in {work_dir}")
        raise
    shutil.rmtree(work_dir, ignore_errors=True)


def split_of(run: int) -> Split:
    """Return which questions *run* asks."""
    return "development" if run <= DEVELOPMENT_RUNS else "report"


def requests_of(scenario: Scenario, run: int) -> Iterator[Asked]:
    """Yield the requests of *run* of *scenario*, from its change on, without end; the same ones for the same arguments."""
    random, split = _random(scenario.name, run), split_of(run)
    alter = scenario.alteration(run) if scenario.alteration is not None else None
    for asked in healthy(random, split, scenario.bundles(), scenario.support_share):
        yield asked if alter is None else alter(asked, random, split)


class _Recorder:
    def __init__(self, stage: Stage, target: Path, plan: Plan, progress: Callable[[str], None]) -> None:
        self._stage, self._target, self._plan, self._say = stage, target, plan, progress
        self._machine = msgspec.to_builtins(describe())
        self._started = time.monotonic()

    def run(self) -> None:
        healthy_ones = [item for item in self._plan.scenarios if item.server == "healthy"]
        restarts = [item for item in self._plan.scenarios if item.server == "restarted"]
        others = [item for item in self._plan.scenarios if item.server not in {"healthy", "restarted"}]
        self._stage.start_sidecar()
        self._serve("healthy")
        self._stage.wait_for_fingerprint()
        self._keep_healthy(f"{recording.BASELINE}{recording.SUFFIX}", 0, "baseline", BASELINE_WINDOWS)
        for run in self._plan.runs:
            self._keep_healthy(recording.lead_of(run), run, split_of(run), LEAD_WINDOWS)
        # Run after run of one scenario: the engine still has the documents of the run before in its prefix cache.
        for scenario, run in itertools.product(healthy_ones, self._plan.runs):
            self._scenario(scenario, run)
        for scenario, run in itertools.product(restarts, self._plan.runs):
            self._serve("restarted")
            self._scenario(scenario, run)
        for server, scenarios in itertools.groupby(others, key=lambda item: item.server):
            self._serve(server)
            for scenario, run in itertools.product(tuple(scenarios), self._plan.runs):
                self._scenario(scenario, run)

    def _serve(self, server: Server) -> None:
        self._tell(f"starting the engine: {server}")
        self._stage.serve(server)

    def _keep_healthy(self, name: str, run: int, split: Split, windows: int) -> None:
        if self._plan.reuse and (self._target / name).is_file():
            return
        self._tell(f"healthy traffic: {name}")
        requests = healthy(_random(name, run), split, company())
        found = self._segment(requests, windows, CONCURRENCY)
        kind = name.removesuffix(recording.SUFFIX).partition("-")[0]
        self._write(name, found, {"scenario": kind, "run": run, "split": split})

    def _scenario(self, scenario: Scenario, run: int) -> None:
        self._tell(f"{scenario.name}, run {run}")
        self._stage.relay.mode = scenario.wire
        if scenario.sample_rate < 1.0:
            self._stage.order_sample_rate(scenario.sample_rate)
        found = self._segment(requests_of(scenario, run), scenario.windows, scenario.concurrency, scenario.sample_rate,
                              needs_canary=scenario.wire == "clean")  # fmt: skip
        self._write(recording.name_of(scenario.name, run), found, {
            "scenario": scenario.name, "expected": scenario.expected, "what": scenario.what, "run": run, "split": split_of(run),
        })  # fmt: skip
        if scenario.sample_rate < 1.0 or scenario.wire != "clean":
            self._settle(scenario, run)

    def _segment(
        self, requests: Iterator[Asked], windows: int, concurrency: int, sample_rate: float = 1.0, *, needs_canary: bool = False
    ) -> list[ObservedWindow]:
        """Return *windows* windows of *requests*, or as many more as it takes until a canary has been seen.

        Canaries that ran before, while no window was open, are those of the engine before.
        """
        before, began_ns = self._stage.last_window(), time.time_ns()
        wanted = before + windows
        self._send(requests, round(windows * WINDOW_REQUESTS / sample_rate), concurrency)
        self._push()
        while not self._stage.wait_for_window(wanted, _CLOSING_SECONDS):
            self._send(requests, WINDOW_REQUESTS, concurrency)
            self._push()
        if needs_canary:
            while wanted < before + windows + _MORE_WINDOWS and not _with_canary(self._windows(before, began_ns)):
                wanted += 1
                self._send(requests, WINDOW_REQUESTS, concurrency)
                self._push()
                self._stage.wait_for_window(wanted, _IDLE_SECONDS)
        return self._windows(before, began_ns)

    def _windows(self, before: int, began_ns: int) -> list[ObservedWindow]:
        """Return the windows behind number *before*, without the canaries that ran earlier than *began_ns*."""
        return [
            dataclasses.replace(window, canaries=tuple(run for run in window.canaries if run.time_ns >= began_ns))
            for window in self._stage.windows_after(before)
        ]

    def _push(self) -> None:
        """Have the engine take one more step: that the last requests have ended, a worker hears with the next step alone."""
        unseen = dataclasses.replace(next(healthy(_random("push", 0), "baseline")), max_tokens=1, capture=False)
        send(self._stage.vllm, SERVED_MODEL, [unseen], 1)

    def _settle(self, scenario: Scenario, run: int) -> None:
        """Undo what *scenario* did, and let what it left in the open window be closed by healthy requests."""
        self._stage.relay.mode = "clean"
        if scenario.sample_rate < 1.0:
            self._stage.order_sample_rate(1.0)
        if scenario.wire == "lossy":  # requests whose end was lost are taken as ended
            time.sleep(_IDLE_SECONDS)
        self._send(healthy(_random(f"settle {scenario.name}", run), split_of(run)), WINDOW_REQUESTS, CONCURRENCY)
        self._stage.wait_for_window(self._stage.last_window() + 1, _CLOSING_SECONDS)

    def _send(self, requests: Iterator[Asked], count: int, concurrency: int) -> None:
        send(self._stage.vllm, SERVED_MODEL, list(itertools.islice(requests, count)), concurrency)
        self._stage.check()

    def _write(self, name: str, windows: Sequence[ObservedWindow], meta: dict[str, Any]) -> None:
        provenance = {
            "model": MODEL_NAME, "seed": SEED, "window_requests": WINDOW_REQUESTS, "step_stride": STEP_STRIDE,
            "max_tokens": MAX_TOKENS, "canaries": "every window", "machine": self._machine, "command": self._plan.command,
            "recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        recording.write(self._target / name, windows, meta | provenance)

    def _tell(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._started:5.0f} s  {text}")


def _with_canary(windows: Sequence[ObservedWindow]) -> bool:
    return any(window.canaries for window in windows)


def _random(name: str, run: int) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(name.encode()), run])
