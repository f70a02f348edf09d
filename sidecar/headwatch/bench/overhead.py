"""``headwatch bench overhead``: what capture costs a server, in tokens a second, in latency and in memory.

One engine, one process, one run.  Arms take turns of a fraction of a second (:mod:`headwatch.bench.measure`), each is held
against plain vLLM in the same cycle, and plain against plain says how much of a difference is noise.  Throughput ratios
are those of decoding: prefill has hardly any sampled row, so counting it in would only make capture look cheaper.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.bench.arms import ALL, DEFAULT, EVERY_REQUEST, PLAIN, PLAIN_AGAIN, RATE_ZERO, Switch
from headwatch.bench.conditions import Watch
from headwatch.bench.engine import Engine, engine_environment
from headwatch.bench.figures import decode_figures, itl_ratio, request_figures, throughput_ratio
from headwatch.bench.measure import decode, whole_requests
from headwatch.bench.memory import settled_rss_mib
from headwatch.bench.overhead_report import BOUNDS, Captured, Memory, OverheadReport, judge
from headwatch.bench.prompts import PROMPT_TOKENS, PromptMaker
from headwatch.bench.servers import compare_servers
from headwatch.bench.sidecar import running_sidecar
from headwatch.capture.plan.budget import Budget
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from headwatch.bench.measure import DecodeCycle, RequestCycle
    from headwatch.bench.statistics import Interval
    from headwatch.capture.worker import Capture

    Progress = Callable[[str], None]

DECODE_ARMS = (PLAIN, PLAIN_AGAIN, RATE_ZERO, DEFAULT, EVERY_REQUEST, ALL)
REQUEST_ARMS = (PLAIN, PLAIN_AGAIN, RATE_ZERO, DEFAULT, ALL)
WARM_TOKENS = 8
_WARM_UPS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    decode_groups: dict[int, int]
    """Batch size to batches of requests."""
    decode_cycles: int
    """Cycles over each of them."""
    request_cycles: dict[int, int]
    request_tokens: int
    seconds: float
    """No new batch is begun after so many seconds of measuring, but each batch size is measured once."""
    servers: bool
    """Whether two real servers, one without headwatch, are compared as well."""
    prompt_tokens: int = PROMPT_TOKENS


QUICK = Plan({1: 3, 4: 3}, 5, {1: 2}, 8, 330.0, servers=False)
FULL = Plan({1: 6, 4: 5, 16: 3}, 4, {1: 3, 4: 2, 16: 1}, 16, 3600.0, servers=True)


def run(model: Path, *, quick: bool, progress: Progress = lambda _: None, plan: Plan | None = None) -> OverheadReport:
    """Return what capture of *model* costs on this machine.

    Raises:
        CommandError: The engine or the sidecar cannot be had.
    """
    plan = plan or (QUICK if quick else FULL)
    watch = Watch()
    with running_sidecar() as sidecar, engine_environment(HEADWATCH_DISABLE="1"):
        progress("starting vLLM")
        engine = Engine(model, max_sequences=max(plan.decode_groups))
        try:
            prompts = PromptMaker(engine.tokenizer, plan.prompt_tokens)
            switch = Switch(engine, sidecar.endpoint)
            memory = attach(engine, switch, prompts, max(plan.decode_groups), progress)
            decoded, requested = measure(engine, switch, prompts, plan, progress)
            kernel = switch.captures[ALL].kernel.name
            captured = {arm: _captured(capture) for arm, capture in switch.captures.items()}
            switch.close()
        finally:
            engine.close()
    servers = compare_servers(model, progress) if plan.servers else None
    throughput = {arm: throughput_ratio(decoded, arm) for arm in DECODE_ARMS if arm != PLAIN}
    intervals: dict[str, Interval] = {
        **{f"throughput_ratio_{arm}": ratio for arm, ratio in throughput.items()},
        **{f"throughput_ratio_{arm}_b{batch}": throughput_ratio(decoded, arm, batch)
           for arm in throughput for batch in plan.decode_groups},
        **{f"p99_itl_ratio_{arm}": itl_ratio(decoded, arm, 99) for arm in throughput},
    }  # fmt: skip
    added = max(memory.added_mib, servers.added_memory_mib if servers is not None else 0.0)
    bars, passed = judge(intervals, added)
    return OverheadReport(
        bars=bars,
        bounds=BOUNDS,
        intervals=intervals,
        passed=passed,
        decode=decode_figures(decoded, DECODE_ARMS),
        requests=request_figures(requested, REQUEST_ARMS),
        captured=captured,
        memory=memory,
        servers=servers,
        conditions=watch.conditions(model, plan.prompt_tokens, kernel, engine, quick=quick),
    )


def attach(engine: Engine, switch: Switch, prompts: PromptMaker, batch: int, progress: Progress) -> Memory:
    """Warm the engine up, put headwatch into it, warm every arm up; return what that added to the process."""
    progress("warming up without headwatch")
    for number in range(2):  # the second one shows nothing new
        engine.add(prompts.batch(batch, number), WARM_TOKENS)
        engine.finish()
    before = settled_rss_mib()
    progress("attaching headwatch")
    switch.add([ALL])
    _warm_up(engine, switch, prompts, [ALL], batch)
    after = settled_rss_mib()
    others = [arm for arm in DECODE_ARMS if arm not in {PLAIN, PLAIN_AGAIN, ALL}]
    switch.add(others)
    _warm_up(engine, switch, prompts, others, 1)
    return Memory(before_mib=round(before, 1), after_mib=round(after, 1), added_mib=round(after - before, 1))


def measure(
    engine: Engine, switch: Switch, prompts: PromptMaker, plan: Plan, progress: Progress
) -> tuple[list[DecodeCycle], list[RequestCycle]]:
    """Return everything that is measured in one engine."""
    started = time.monotonic()
    decoded: list[DecodeCycle] = []
    requested: list[RequestCycle] = []
    for batch, group in _interleaved(plan.decode_groups):
        if group and time.monotonic() - started > plan.seconds:
            continue
        progress(f"decoding, batch of {batch}: {group + 1} of {plan.decode_groups[batch]}")
        decoded += decode(engine, switch, prompts, DECODE_ARMS, batch=batch, cycles=plan.decode_cycles, group=group)
    for batch, number in _interleaved(plan.request_cycles):
        if number and time.monotonic() - started > plan.seconds:
            continue
        progress(f"whole requests, batch of {batch}: {number + 1} of {plan.request_cycles[batch]}")
        requested.append(
            whole_requests(
                engine, switch, prompts, REQUEST_ARMS, batch=batch, number=number, max_tokens=plan.request_tokens
            )
        )
    return decoded, requested


def _captured(capture: Capture) -> Captured:
    status = capture.status()
    if not status.up:
        raise CommandError(f"capture is down: {status.reason}")
    return Captured(
        rows=status.counters["rows_planned"],
        thinned=status.counters["rows_thinned"],
        dropped=status.counters["rows_dropped"] + status.counters["rows_refused"],
        errors=status.errors,
        share_of_step_time=round(status.capture_seconds / max(status.step_seconds, 1e-9), 5),
    )


def _warm_up(engine: Engine, switch: Switch, prompts: PromptMaker, arms: Sequence[str], batch: int) -> None:
    """Let each of *arms* sample requests, whatever its rate, until each layer has proved itself and what is lazy is loaded.

    A server does this once, in its first sampled rows.  An arm would do it while it is timed if its budget, which the
    self-check overdraws, left it no row: so it begins each request with a full purse, and keeps what it learnt of costs.

    Raises:
        CommandError: A layer was refused, or capture takes no rows.
    """
    for arm in arms:
        switch.put(arm)
        capture = switch.captures[arm]
        for number in range(_WARM_UPS):
            capture.budget = Budget(capture.budget.share, capture.budget.layers, cost=capture.budget.cost)
            engine.add(prompts.batch(batch, number, always=True), 2 * WARM_TOKENS)
            engine.finish()
            if number and all(item.trust.earned for item in capture.layers.values() if item.active):
                break
        else:
            raise CommandError(f"the self-check of arm {arm} has not ended after {_WARM_UPS} requests")
        capture.budget = Budget(capture.budget.share, capture.budget.layers, cost=capture.budget.cost)


def _interleaved(counts: dict[int, int]) -> list[tuple[int, int]]:
    """Return (batch size, number) of everything to do, so that all batch sizes progress together."""
    tasks = [((number + 0.5) / count, batch, number) for batch, count in counts.items() for number in range(count)]
    return [(batch, number) for _, batch, number in sorted(tasks)]
