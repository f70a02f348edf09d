"""``headwatch bench query``: how long the product's own questions take on a month of a fleet.

The fleet is that of :mod:`headwatch.bench.query_data`: 30 days, 64 replicas (16 with ``--quick``), 1,024 heads.  Each query
is asked once *cold*, with the engine's caches dropped and the store's files out of the page cache, and then warm again and
again; the bar is the largest 95th percentile of the warm times.  Times are those of a caller in Python: SQL, rows and what is
computed from them.

Building is not timed.  Growth is shown by three queries over 1, 7 and 30 days, over services of different numbers of
replicas, and over 1, 8 and 32 layers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from headwatch.bench.machine import Machine, describe
from headwatch.bench.query_data import DAYS, FEATURE, build
from headwatch.bench.query_set import queries
from headwatch.bench.store import settle
from headwatch.bench.store_data import DAY_SECONDS
from headwatch.config import StoreConfig
from headwatch.errors import CommandError
from headwatch.records import HeadScope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwatch.bench.query_data import Fleet
    from headwatch_exporters.clickhouse.connection import Connection

    Progress = Callable[[str], None]

REPLICAS = {True: 16, False: 64}
REPEATS = {True: 10, False: 20}
BOUNDS = {"queries": 20.0, "warm_p95_seconds_max": 1.0}
"""At least so many queries, at most so many seconds."""


class Timed(msgspec.Struct, frozen=True):
    """One query."""

    name: str
    asks: str
    rows: int
    cold_seconds: float
    warm_median_seconds: float
    warm_p95_seconds: float


class Growth(msgspec.Struct, frozen=True):
    """How the warm median of one query grows with one thing."""

    query: str
    along: str
    seconds: dict[str, float]


class QueryReport(msgspec.Struct, frozen=True):
    """What ``bench query`` prints."""

    bars: dict[str, float]
    bounds: dict[str, str]
    passed: bool
    queries: list[Timed]
    growth: list[Growth]
    replicas: int
    head_hours: int
    minute_head_windows: int
    build_seconds: float
    gib_on_disk: float
    machine: Machine
    seconds: float


def run(*, quick: bool, progress: Progress = lambda _: None) -> QueryReport:
    """Return how long each query takes.

    Raises:
        StoreError: The embedded store cannot be opened here.
        CommandError: A query returned nothing.
    """
    from headwatch_exporters.clickhouse.connection import connect  # noqa: PLC0415 - heavy
    from headwatch_exporters.clickhouse.schema import create_tables  # noqa: PLC0415

    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="headwatch-bench-query-"))
    config = StoreConfig(url=f"chdb://{folder}/store")
    try:
        connection = connect(config)
        try:
            create_tables(connection, config)
            last = int(time.time()) // DAY_SECONDS * DAY_SECONDS
            fleet = build(connection, REPLICAS[quick], last, progress)
            built = time.monotonic() - started
            settle(connection)
            timed = []
            for query in queries(connection, fleet):
                progress(query.name)
                _forget(connection, folder)
                cold, rows = _once(query.ask)
                if not rows:
                    raise CommandError(f"bench query: {query.name} returned nothing, so its time says nothing")
                warm = [_once(query.ask)[0] for _ in range(REPEATS[quick])]
                timed.append(Timed(query.name, query.asks, rows, round(cold, 4), round(float(np.median(warm)), 4),
                                   round(float(np.percentile(warm, 95)), 4)))  # fmt: skip
            progress("growth")
            growth = _growth(connection, fleet)
        finally:
            connection.close()
        return _report(fleet, timed, growth, built, _size(folder), started)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _report(
    fleet: Fleet, timed: list[Timed], growth: list[Growth], built: float, size: int, started: float
) -> QueryReport:
    bars = {"queries": float(len(timed)), "warm_p95_seconds_max": max(one.warm_p95_seconds for one in timed)}
    return QueryReport(
        bars=bars,
        bounds={"queries": f">= {BOUNDS['queries']:g}", "warm_p95_seconds_max": f"<= {BOUNDS['warm_p95_seconds_max']:g}"},
        passed=bars["queries"] >= BOUNDS["queries"] and bars["warm_p95_seconds_max"] <= BOUNDS["warm_p95_seconds_max"],
        queries=timed,
        growth=growth,
        replicas=fleet.replicas,
        head_hours=fleet.head_hours,
        minute_head_windows=fleet.minute_head_windows,
        build_seconds=round(built, 1),
        gib_on_disk=round(size / (1 << 30), 2),
        machine=describe(),
        seconds=round(time.monotonic() - started, 1),
    )


def _growth(connection: Connection, fleet: Fleet) -> list[Growth]:
    from headwatch_exporters.clickhouse.reading.head_history import HeadHistory  # noqa: PLC0415

    history = HeadHistory(connection)

    def course(first: int, **fields: Any) -> Any:
        return history.course(HeadScope(FEATURE, first, fleet.last, **fields), 3600)

    def quantiles(first: int, **fields: Any) -> Any:
        return history.quantile_course(HeadScope(FEATURE, first, fleet.last, **fields), 86_400, (0.1, 0.5, 0.9))

    found = []
    for name, ask in (("course, hourly", course), ("quantile course, daily", quantiles)):
        days = {f"{days} days": _median(partial(ask, fleet.last - days * DAY_SECONDS)) for days in (1, 7, DAYS)}
        replicas = {
            f"{number} replicas": _median(partial(ask, fleet.first, service=service))
            for service, number in fleet.services.items()
        }
        replicas[f"{fleet.replicas} replicas"] = _median(partial(ask, fleet.first))
        heads = {
            f"{layers * fleet.heads} heads": _median(partial(ask, fleet.first, layers_below=layers))
            for layers in (1, fleet.layers // 4, fleet.layers)
        }
        found += [Growth(name, "days", days), Growth(name, "replicas", replicas), Growth(name, "heads", heads)]
    return found


def _median(ask: Callable[[], Any], repeats: int = 5) -> float:
    return round(float(np.median([_once(ask)[0] for _ in range(repeats)])), 4)


def _once(ask: Callable[[], Any]) -> tuple[float, int]:
    """Return how long it took, and how many rows came back."""
    started = time.perf_counter()
    answer = ask()
    return time.perf_counter() - started, len(answer)


def _forget(connection: Connection, folder: Path) -> None:
    """Drop the engine's caches, and the store's files from the page cache."""
    for cache in ("MARK CACHE", "UNCOMPRESSED CACHE", "QUERY CACHE"):
        connection.command(f"SYSTEM DROP {cache}")
    for path in _files(folder):
        with suppress(FileNotFoundError), path.open("rb") as file:  # a merge may take it away
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _size(folder: Path) -> int:
    size = 0
    for path in _files(folder):
        with suppress(FileNotFoundError):
            size += path.lstat().st_size
    return size


def render(report: QueryReport) -> str:
    """Return *report* for people."""
    size = f"{report.replicas} replicas, {report.head_hours / 1e6:.1f} million head-hours, {report.gib_on_disk:.2f} GiB"
    lines = [
        f"{report.machine.cpu}, {report.machine.cores} cores; {size}, built in {report.build_seconds:.0f} s",
        "",
        f"{'query':<42}{'rows':>7}{'cold':>9}{'warm':>9}{'p95':>9}",
        *(
            f"{one.name:<42}{one.rows:>7}{one.cold_seconds:>9.3f}{one.warm_median_seconds:>9.3f}"
            f"{one.warm_p95_seconds:>9.3f}"
            for one in report.queries
        ),
        "",
        *(
            f"{one.query}, with {one.along}: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in one.seconds.items())
            for one in report.growth
        ),
        "",
        *(f"{name} {report.bars[name]:g} ({bound})" for name, bound in report.bounds.items()),
    ]
    return "\n".join(lines)
