"""How many head summaries one core takes, from the bytes of frames to closed windows and ended requests."""

from __future__ import annotations

import statistics
import time

import msgspec

from headwatch.aggregate.windows import Aggregator
from headwatch.bench.ingest.frames import STEP_NS, Shape, templates
from headwatch.config import WindowConfig, WireConfig
from headwatch.errors import CommandError
from headwatch.ingest.receiver import Receiver
from headwatch.ingest.workers import WorkerRegistry

PASSES = 5
_START_NS = 1_800_000_000 * 10**9
_FRAMES_BYTES = 100 * 1024 * 1024
"""Of all frames of a pass together, which are made before."""
_PASS_STEPS = 1800
_TICK_STEPS = 12
"""Steps between two looks at what has closed: half a second, as in the sidecar."""


class Rate(msgspec.Struct, frozen=True):
    """What one shape of frames showed."""

    shape: Shape
    head_summaries_per_second: float
    """Median of the passes."""
    passes: list[float]
    windows: int
    """That closed in a pass."""
    ratio_to_copying: float
    """Time over that of copying the same bytes once, which nothing that keeps them can beat."""


def measure(shape: Shape) -> Rate:
    """Return the rate of *shape*; the caller keeps the process on one core.

    Raises:
        CommandError: A summary went astray.
    """
    made = templates(shape, min(_PASS_STEPS, max(50, _FRAMES_BYTES // (shape.summaries * 60))))
    aggregator = Aggregator(WindowConfig())
    receiver = Receiver(WireConfig(), WorkerRegistry(), aggregator.add)
    rates, copying, windows = [], 0.0, 0
    for turn in range(PASSES + 1):
        seconds, copying, windows = 0.0, 0.0, 0
        for step in range(turn * _PASS_STEPS, (turn + 1) * _PASS_STEPS, _TICK_STEPS):
            payloads = [
                made[number % len(made)].at(number, _START_NS + number * STEP_NS) for number in range(step, step + _TICK_STEPS)
            ]
            started = time.perf_counter()
            for payload in payloads:
                receiver.accept(memoryview(payload))
            windows += len(aggregator.collect(_START_NS + (step + _TICK_STEPS) * STEP_NS)[0])
            seconds += time.perf_counter() - started
            copying += _copying(payloads)
        rates.append(_PASS_STEPS * shape.summaries / seconds)
    receiver.stop()
    offered = (PASSES + 1) * _PASS_STEPS * shape.summaries
    if aggregator.counters["head_summaries"] != offered:
        raise CommandError(f"{offered} head summaries were offered, {aggregator.counters['head_summaries']} were aggregated")
    passes = rates[1:]  # the first one only warms up
    rate = statistics.median(passes)
    return Rate(shape, rate, passes, windows, _PASS_STEPS * shape.summaries / rate / copying)


def _copying(payloads: list[bytearray]) -> float:
    started = time.perf_counter()
    for payload in payloads:
        bytes(payload)
    return time.perf_counter() - started
