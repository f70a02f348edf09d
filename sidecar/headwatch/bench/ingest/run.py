"""The benchmark as a whole: rates of several shapes on one core, then the overload of the real sidecar."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch.bench.ingest.frames import Shape
from headwatch.bench.ingest.overload import Overload
from headwatch.bench.ingest.overload import measure as measure_overload
from headwatch.bench.ingest.rate import Rate
from headwatch.bench.ingest.rate import measure as measure_rate
from headwatch.bench.machine import Machine, describe
from headwatch.bench.sidecar import running_sidecar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGED = Shape(layers=30, heads=9, rows=4)
SHAPES = {True: (PACKAGED, Shape(32, 32, 4)), False: (PACKAGED, Shape(30, 9, 16), Shape(32, 32, 4), Shape(80, 64, 4))}
OVERLOAD_SECONDS = {True: 60.0, False: 600.0}
LEAST_PER_SECOND = 2e6
MOST_RSS_MIB = 1024.0


class IngestReport(msgspec.Struct, frozen=True):
    """What ``bench ingest`` prints."""

    bars: dict[str, float]
    bounds: dict[str, str]
    passed: bool
    rates: list[Rate]
    overload: Overload
    machine: Machine
    seconds: float


def run(*, quick: bool, progress: Callable[[str], None] = lambda _: None) -> IngestReport:
    """Return what ingest takes on one core of this machine.

    Raises:
        CommandError: The sidecar does not start or does not answer, or a summary went astray.
    """
    started = time.monotonic()
    rates, cores = [], _cores()
    with _on(cores[0]):
        for shape in SHAPES[quick]:
            progress(f"{shape.layers} layers of {shape.heads} heads, {shape.rows} requests a step")
            rates.append(measure_rate(shape))
    progress(f"ten times as much for {OVERLOAD_SECONDS[quick]:.0f} s")
    with _on(cores[0]), running_sidecar(store=True) as sidecar, _on(cores[-1]):
        overload = measure_overload(sidecar, PACKAGED, rates[0].head_summaries_per_second, OVERLOAD_SECONDS[quick])
    bars = {
        "head_summaries_per_second": min(rate.head_summaries_per_second for rate in rates),
        "rss_mib_overload": overload.rss_mib_most,
        "unaccounted_summaries": float(abs(overload.unaccounted)),
    }
    return IngestReport(
        bars=bars,
        bounds={
            "head_summaries_per_second": f">= {LEAST_PER_SECOND:g}", "rss_mib_overload": f"<= {MOST_RSS_MIB:g}",
            "unaccounted_summaries": "== 0",
        },
        passed=(
            bars["head_summaries_per_second"] >= LEAST_PER_SECOND and bars["rss_mib_overload"] <= MOST_RSS_MIB
            and bars["unaccounted_summaries"] == 0
        ),
        rates=rates,
        overload=overload,
        machine=describe(),
        seconds=time.monotonic() - started,
    )  # fmt: skip


def render(report: IngestReport) -> str:
    """Return *report* for people."""
    lines = ["from frames to closed windows, one core    head summaries/s   times copying the bytes"]
    for rate in report.rates:
        shape = f"{rate.shape.layers} layers x {rate.shape.heads} heads, {rate.shape.rows} requests a step"
        lines.append(f"{shape:42} {rate.head_summaries_per_second:16,.0f} {rate.ratio_to_copying:25.0f}")
    over = report.overload
    lines += [
        f"overload, {over.offered_times:.1f} times as much for {over.seconds:.0f} s, one core for all of the sidecar",
        f"  offered {over.offered:,}: aggregated {over.aggregated:,}, thinned {over.thinned:,}",
        f"  dropped by the sender {over.dropped:,}, rejected {over.rejected:,}, unaccounted {over.unaccounted:,}",
        f"  one request in {over.most_thinning} was kept at worst; all again {over.recovery_seconds:.1f} s after the end",
        f"  memory {over.rss_mib_before:.0f} MiB before, {over.rss_mib_most:.0f} MiB at most",
        f"  /healthz answered within {over.healthz_seconds_most:.2f} s",
    ]
    lines += [f"{name:28} {value:16,.0f}   {report.bounds[name]}" for name, value in report.bars.items()]
    return "\n".join([*lines, "passed" if report.passed else "FAILED"])


def _cores() -> list[int]:
    """Return the cores that this process may use; one without a number where the system has no affinity (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [-1]


@contextmanager
def _on(core: int) -> Iterator[None]:
    """Keep this process, and what it starts, on *core*."""
    if core < 0:
        yield
        return
    before = os.sched_getaffinity(0)
    _pin({core})
    try:
        yield
    finally:
        _pin(before)


def _pin(cores: set[int]) -> None:
    """Keep every thread of this process on *cores*: those of the linear algebra that numpy uses too."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)
