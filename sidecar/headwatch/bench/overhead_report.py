"""What ``headwatch bench overhead`` says: one document, its bars, and whether they are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headwatch.bench.arms import ALL, DEFAULT, PLAIN_AGAIN, RATE_ZERO
from headwatch.bench.conditions import Conditions
from headwatch.bench.figures import DecodeFigures, RequestFigures
from headwatch.bench.servers import ServerFigures
from headwatch.bench.statistics import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

BOUNDS = {
    "throughput_ratio_default": ">= 0.985",
    "throughput_ratio_rate0": ">= 0.985",
    "throughput_ratio_all_b4": ">= 0.85",
    "worker_memory_mib": "<= 192",
    "p99_itl_ratio_default": "<= 1.05, or inside the interval of plain against plain",
}


class Memory(msgspec.Struct, frozen=True):
    """Resident memory of the process that holds front end and worker, before and after headwatch is put into it."""

    before_mib: float
    after_mib: float
    added_mib: float
    how: str = (
        "one process, resident set after malloc_trim: a warm engine without headwatch, and the same after headwatch was "
        "imported, attached and has captured every row of as many requests"
    )


class Captured(msgspec.Struct, frozen=True):
    """What one arm really did: a capture that does nothing costs nothing."""

    rows: int
    """Summarised, in all cycles and the warm-up."""
    thinned: int
    """Left out by the budget."""
    dropped: int
    errors: dict[str, int]
    share_of_step_time: float
    """By capture's own clock: the time in its hooks over the time of the steps that it was in."""


class OverheadReport(msgspec.Struct, frozen=True):
    """The result.  Ratios are arm over plain; intervals are 95 %."""

    bars: dict[str, float]
    bounds: dict[str, str]
    intervals: dict[str, Interval]
    passed: bool
    decode: list[DecodeFigures]
    requests: list[RequestFigures]
    captured: dict[str, Captured]
    """By arm."""
    memory: Memory
    servers: ServerFigures | None
    """Real servers with and without headwatch; null in a quick run."""
    conditions: Conditions


def judge(intervals: Mapping[str, Interval], memory_mib: float) -> tuple[dict[str, float], bool]:
    """Return the bars and whether all are kept."""
    default, rate_zero = intervals[f"throughput_ratio_{DEFAULT}"], intervals[f"throughput_ratio_{RATE_ZERO}"]
    everything = intervals.get(f"throughput_ratio_{ALL}_b4") or intervals[f"throughput_ratio_{ALL}"]
    late, noise = intervals[f"p99_itl_ratio_{DEFAULT}"], intervals[f"p99_itl_ratio_{PLAIN_AGAIN}"]
    bars = {
        "throughput_ratio_default": default.value,
        "throughput_ratio_rate0": rate_zero.value,
        "throughput_ratio_all_b4": everything.value,
        "worker_memory_mib": memory_mib,
        "p99_itl_ratio_default": late.value,
    }
    passed = (
        default.value >= 0.985  # noqa: PLR2004 - the bars, as BOUNDS says them
        and rate_zero.value >= 0.985  # noqa: PLR2004
        and everything.value >= 0.85  # noqa: PLR2004
        and memory_mib <= 192  # noqa: PLR2004
        and (late.value <= 1.05 or noise.holds(late.value))  # noqa: PLR2004
    )
    return {name: round(value, 5) for name, value in bars.items()}, passed


def render(report: OverheadReport) -> str:
    """Return *report* for people."""
    lines = [
        report.conditions.headline(),
        "",
        f"{'decoding':<14}{'batch':>6}{'tokens/s':>10}{'ratio':>8}{'95 % interval':>18}{'p50 ms':>9}{'p99 ms':>9}",
    ]
    for item in report.decode:
        ratio = item.throughput_ratio
        lines.append(f"{item.arm:<14}{item.batch:>6}{item.tokens_per_second:>10.2f}{ratio.value:>8.3f}"
                     f"{f'{ratio.low:.3f} to {ratio.high:.3f}':>18}{item.itl_p50_ms:>9.1f}{item.itl_p99_ms:>9.1f}")
    lines += ["", f"{'requests':<14}{'batch':>6}{'tokens/s':>10}{'ratio':>8}{'first token':>26}{'p50 ms':>9}{'p99 ms':>9}"]
    for row in report.requests:
        late = row.ttft_ratio
        interval = f"{late.value:.3f} ({late.low:.3f} to {late.high:.3f})"
        lines.append(f"{row.arm:<14}{row.batch:>6}{row.tokens_per_second:>10.2f}{row.throughput_ratio.value:>8.3f}"
                     f"{interval:>26}{row.ttft_p50_ms:>9.0f}{row.ttft_p99_ms:>9.0f}")
    if report.servers is not None:
        servers = report.servers
        lines.append("")
        lines.append(f"two servers, headwatch at its defaults over none: {servers.throughput_ratio.value:.3f} "
                     f"({servers.throughput_ratio.low:.3f} to {servers.throughput_ratio.high:.3f}), "
                     f"worker {servers.added_memory_mib:+.0f} MiB")
    lines.append("")
    for name, value in report.bars.items():
        found = report.intervals.get(name)
        interval = f" ({found.low:.3f} to {found.high:.3f})" if found is not None else ""
        lines.append(f"{name:<28}{value:>9.3f}{interval:<20} {report.bounds[name]}")
    lines.append(f"{'passed' if report.passed else 'FAILED'}; {report.conditions.seconds:.0f} s")
    return "\n".join(lines)
