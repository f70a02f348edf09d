"""From cycles to figures: ratios by pair, and what each arm did in absolute terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.bench.arms import PLAIN
from headwatch.bench.statistics import Interval, paired_ratio, percentile_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.bench.measure import DecodeCycle, RequestCycle


class DecodeFigures(msgspec.Struct, frozen=True):
    """One arm at one batch size, while it decodes."""

    arm: str
    batch: int
    tokens_per_second: float
    itl_p50_ms: float
    """Inter-token latency."""
    itl_p99_ms: float
    throughput_ratio: Interval
    itl_p50_ratio: Interval
    itl_p99_ratio: Interval
    steps: int


class RequestFigures(msgspec.Struct, frozen=True):
    """One arm at one batch size, whole requests."""

    arm: str
    batch: int
    tokens_per_second: float
    """Prefill included."""
    ttft_p50_ms: float
    """Time to first token."""
    ttft_p99_ms: float
    throughput_ratio: Interval
    ttft_ratio: Interval
    """Of the means of a cycle: more than 1 is later."""
    requests: int


def throughput_ratio(cycles: Sequence[DecodeCycle], arm: str, batch: int = 0) -> Interval:
    """Return tokens a second of *arm* over plain, paired by cycle; *batch* 0: over all batch sizes, each weighing the same."""
    return paired_ratio([
        [cycle.speed(arm) / cycle.speed(PLAIN) for cycle in cycles if cycle.batch == size]
        for size in _batches(cycles) if batch in {0, size}
    ])  # fmt: skip


def itl_ratio(cycles: Sequence[DecodeCycle], arm: str, percent: float, batch: int = 0) -> Interval:
    """Return a percentile of the inter-token latency of *arm* over that of plain.

    Over all batch sizes (*batch* 0) each latency is first divided by the median of plain at its batch size.
    """
    chosen = [cycle for cycle in cycles if batch in {0, cycle.batch}]
    scale = {
        size: float(np.median(np.concatenate([cycle.steps[PLAIN] for cycle in chosen if cycle.batch == size])))
        for size in _batches(chosen)
    }
    return percentile_ratio(
        [cycle.steps[arm] / scale[cycle.batch] for cycle in chosen],
        [cycle.steps[PLAIN] / scale[cycle.batch] for cycle in chosen],
        percent,
    )


def decode_figures(cycles: Sequence[DecodeCycle], arms: Sequence[str]) -> list[DecodeFigures]:
    """Return the figures of each arm at each batch size."""
    figures = []
    for batch in _batches(cycles):
        chosen = [cycle for cycle in cycles if cycle.batch == batch]
        for arm in arms:
            seconds = np.concatenate([cycle.steps[arm] for cycle in chosen])
            figures.append(DecodeFigures(
                arm=arm,
                batch=batch,
                tokens_per_second=round(batch * len(seconds) / float(seconds.sum()), 3),
                itl_p50_ms=_milliseconds(seconds, 50),
                itl_p99_ms=_milliseconds(seconds, 99),
                throughput_ratio=throughput_ratio(chosen, arm),
                itl_p50_ratio=itl_ratio(chosen, arm, 50),
                itl_p99_ratio=itl_ratio(chosen, arm, 99),
                steps=len(seconds),
            ))  # fmt: skip
    return figures


def request_figures(cycles: Sequence[RequestCycle], arms: Sequence[str]) -> list[RequestFigures]:
    """Return the figures of each arm at each batch size."""
    figures = []
    for batch in _batches(cycles):
        chosen = [cycle for cycle in cycles if cycle.batch == batch]
        for arm in arms:
            seconds = np.concatenate([cycle.first_token[arm] for cycle in chosen])
            tokens, spent = sum(cycle.tokens[arm] for cycle in chosen), sum(cycle.seconds[arm] for cycle in chosen)
            figures.append(RequestFigures(
                arm=arm,
                batch=batch,
                tokens_per_second=round(tokens / spent, 3),
                ttft_p50_ms=_milliseconds(seconds, 50),
                ttft_p99_ms=_milliseconds(seconds, 99),
                throughput_ratio=paired_ratio([[cycle.speed(arm) / cycle.speed(PLAIN) for cycle in chosen]]),
                ttft_ratio=paired_ratio([[
                    float(cycle.first_token[arm].mean() / cycle.first_token[PLAIN].mean()) for cycle in chosen
                ]]),
                requests=len(seconds),
            ))  # fmt: skip
    return figures


def _batches(cycles: Sequence[DecodeCycle | RequestCycle]) -> list[int]:
    return sorted({cycle.batch for cycle in cycles})


def _milliseconds(seconds: np.ndarray[tuple[int], np.dtype[np.float64]], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1e3, 3)
