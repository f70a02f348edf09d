"""``headwatch bench store``: what the store costs on disk and how fast it takes windows, on real attention.

Bytes are those of the files after merges (``system.parts.bytes_on_disk``, indexes and marks included).  A *head window* is
one head of one stratum in one window of a minute, with all its features and their histograms: here 40 rows, 12 features.  A
*head summary* is one head for one kept row: six features and the masses of eight spans.

``rollup_overhead_ratio`` is what the rungs of ten minutes, an hour and a day add to each byte of minute windows, for the same
windows: it says what rolling up costs and depends on no retention.  What is held in the end does depend on it: ``parts``
and ``rollup_held_ratio`` say it for the default settings.

``mib_per_replica_day`` is what one day of one engine adds, at the default detail: 1,024 heads, ten strata that are all seen
in every minute by 40 rows, so 50 sampled requests a minute.  ``without_collector`` leaves the Collector's tables out, which
are kept a day.

``rows_per_second`` counts rows of the Collector's table (one feature of one head of one stratum) for a second of CPU time,
whichever thread spends it, from a closed window in memory to base table, views and rungs; merges that follow are counted in.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch.bench import store_data
from headwatch.bench.machine import Machine, describe
from headwatch.config import StoreConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwatch.records import WindowBatch
    from headwatch_exporters.clickhouse.connection import Connection

    Progress = Callable[[str], None]

BOUNDS = {"bytes_per_head_summary": 16.0, "bytes_per_head_window": 160.0, "rollup_overhead_ratio": 0.35}
"""Largest value of each bar."""
HEADS = {True: (4, 16), False: (8, 32)}
"""Layers and heads whose windows are counted, with ``--quick`` and without: bytes do not depend on how many there are."""
MINUTES = 1440
FULL_SIZE = (32, 32)
FULL_WINDOWS = {True: 8, False: 40}
"""Windows of a model of full size that are timed."""
REQUESTS = {True: 3600, False: 14_400}
REQUEST_HEADS = (2, 16)
"""Layers and heads of the requests of a day: their ids come again for each head."""
_BATCH = 240
_QUIET_SECONDS = 15
"""Merges are looked for every five seconds or so."""
STRATA = 10
COLLECTOR = "otel_metrics_exp_histogram"
RUNGS = {"1m": "minute_ttl_days", "10m": "ten_minute_ttl_days", "1h": "hour_ttl_days", "1d": "day_ttl_days"}
SERVICE = "vllm"
_MIB = 1 << 20


class Part(msgspec.Struct, frozen=True):
    """What one table takes of one engine with 1,024 heads and ten strata."""

    table: str
    bytes_per_unit: float
    unit: str
    mib_per_day: float
    kept_days: int
    gib_held: float


class StoreReport(msgspec.Struct, frozen=True):
    """What ``bench store`` prints."""

    bars: dict[str, float]
    bounds: dict[str, str]
    passed: bool
    parts: list[Part]
    mib_per_replica_day: float
    mib_per_replica_day_without_collector: float
    rollup_held_ratio: float
    """What the rungs hold over what the minutes hold, each for as long as it is kept by default."""
    rows_per_second: float
    head_windows_per_second: float
    collector_bytes_per_head_window: float
    """The plain Collector schema on the same data."""
    columns: dict[str, dict[str, float]]
    """Bytes a row of each column that takes any, by table."""
    rows_a_window: int
    features: int
    machine: Machine
    seconds: float


def run(*, quick: bool, progress: Progress = lambda _: None) -> StoreReport:
    """Return what the store costs.

    Raises:
        StoreError: The embedded store cannot be opened here.
    """
    from headwatch_exporters.clickhouse.connection import connect  # noqa: PLC0415 - heavy
    from headwatch_exporters.clickhouse.schema import create_tables  # noqa: PLC0415

    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="headwatch-bench-store-"))
    cores = os.sched_getaffinity(0)
    config = StoreConfig(url=f"chdb://{folder}/store")
    try:
        os.sched_setaffinity(0, {min(cores)})  # before the engine starts its threads
        connection = connect(config)
        create_tables(connection, config)
        try:
            return _measured(connection, config, started, quick=quick, progress=progress)
        finally:
            connection.close()
    finally:
        os.sched_setaffinity(0, cores)
        shutil.rmtree(folder, ignore_errors=True)


def _measured(connection: Connection, config: StoreConfig, started: float, *, quick: bool, progress: Progress) -> StoreReport:
    midnight = int(time.time()) // store_data.DAY_SECONDS * store_data.DAY_SECONDS
    layers, heads = HEADS[quick]
    progress(f"{MINUTES} windows of {layers * heads} heads")
    _fill(connection, store_data.windows(layers, heads, 1, MINUTES, midnight), batch=60)
    requests, kept = REQUESTS[quick], store_data.rows(midnight)
    progress(f"{requests} requests, {len(kept)} rows")
    _fill_evidence(connection, requests, midnight)
    tables = (COLLECTOR, *(f"headwatch_heads_{rung}" for rung in RUNGS), "headwatch_rows", "headwatch_request_heads",
              "headwatch_requests", "headwatch_documents")  # fmt: skip
    for table in tables:
        connection.command(f"OPTIMIZE TABLE {table} FINAL")
    size = {table: _bytes(connection, table) for table in tables}
    columns = {table: _columns(connection, table) for table in tables}
    progress("windows of a model of full size")
    rate = _rate(connection, FULL_WINDOWS[quick], midnight + store_data.DAY_SECONDS)
    head_windows = layers * heads * MINUTES
    per_window = {table: size[table] / head_windows for table in tables[:5]}
    minute = per_window["headwatch_heads_1m"]
    per_request_head = size["headwatch_request_heads"] / (requests * REQUEST_HEADS[0] * REQUEST_HEADS[1])
    per_request = (size["headwatch_requests"] + size["headwatch_documents"]) / requests
    summaries = sum(len(row.layers) * row.heads for row in kept)
    bars = {
        "bytes_per_head_summary": round(size["headwatch_rows"] / summaries, 2),
        "bytes_per_head_window": round(minute, 1),
        "rollup_overhead_ratio": round((sum(per_window.values()) - per_window[COLLECTOR] - minute) / minute, 3),
    }
    parts = list(_parts(config, per_window, per_request_head, per_request))
    total = sum(part.mib_per_day for part in parts)
    features = len(store_data.FEATURES_STORED)
    return StoreReport(
        bars=bars,
        bounds={name: f"<= {bound:g}" for name, bound in BOUNDS.items()},
        passed=all(bars[name] <= bound for name, bound in BOUNDS.items()),
        parts=parts,
        mib_per_replica_day=round(total),
        mib_per_replica_day_without_collector=round(total - parts[0].mib_per_day),
        rollup_held_ratio=round(sum(part.gib_held for part in parts[2:5]) / parts[1].gib_held, 2) if parts[1].gib_held else 0.0,
        rows_per_second=round(rate),
        head_windows_per_second=round(rate / features),
        collector_bytes_per_head_window=round(per_window[COLLECTOR], 1),
        columns=columns,
        rows_a_window=store_data.REQUESTS_A_WINDOW * store_data.ROWS_A_REQUEST,
        features=features,
        machine=describe(),
        seconds=round(time.monotonic() - started, 1),
    )


def _parts(config: StoreConfig, per_window: dict[str, float], per_request_head: float, per_request: float) -> Iterable[Part]:
    """Yield what each table takes, of an engine whose ten strata are all seen every minute."""
    heads = FULL_SIZE[0] * FULL_SIZE[1]
    windows = heads * STRATA * MINUTES
    requests = store_data.REQUESTS_A_WINDOW * STRATA * MINUTES
    days = {COLLECTOR: config.head_ttl_days, **{f"headwatch_heads_{rung}": getattr(config, ttl) for rung, ttl in RUNGS.items()}}
    measured = [(table, size, "head window", windows, days[table]) for table, size in per_window.items()]
    measured += [
        ("headwatch_request_heads", per_request_head, "request and head", requests * heads, config.evidence_ttl_days),
        ("headwatch_requests, _documents", per_request, "request", requests, config.evidence_ttl_days),
    ]
    for table, size, unit, number, kept in measured:
        mib = size * number / _MIB
        yield Part(table, round(size, 2), unit, round(mib, 1), kept, round(mib * kept / 1024, 2))


def _fill(connection: Connection, windows: Iterable[WindowBatch], batch: int) -> None:
    """Insert *windows*, so many at a time: only their bytes are asked for."""
    from headwatch_exporters.clickhouse.columns.metrics import window_columns  # noqa: PLC0415

    waiting: dict[str, list[object]] = {}
    number = 0
    for number, window in enumerate(windows, 1):
        for name, values in window_columns(window, SERVICE).items():
            waiting.setdefault(name, []).extend(values)
        if number % batch == 0:
            connection.insert(COLLECTOR, waiting, f"bench:{number}")
            waiting = {}
    if waiting:
        connection.insert(COLLECTOR, waiting, f"bench:{number}")


def _fill_evidence(connection: Connection, requests: int, start_seconds: int) -> None:
    from headwatch_exporters.clickhouse.columns.evidence import request_columns  # noqa: PLC0415
    from headwatch_exporters.clickhouse.columns.rows import row_columns  # noqa: PLC0415

    connection.insert("headwatch_rows", row_columns(store_data.rows(start_seconds), SERVICE), "bench")
    every = store_data.DAY_SECONDS / requests
    records = list(store_data.requests(*REQUEST_HEADS, requests, start_seconds, every))
    for first in range(0, requests, _BATCH):
        for table, columns in request_columns(records[first : first + _BATCH], SERVICE).items():
            connection.insert(table, columns, f"bench:{first}")


def _rate(connection: Connection, windows: int, start_seconds: int) -> float:
    """Return the rows of windows of full size that a core takes a second, by the CPU time of all threads."""
    from headwatch_exporters.clickhouse.columns.metrics import window_columns  # noqa: PLC0415

    closed = list(store_data.windows(*FULL_SIZE, 1, windows + 1, start_seconds))
    connection.insert(COLLECTOR, window_columns(closed[0], SERVICE), "rate:first")
    settle(connection)
    started = time.process_time()
    rows = sum(
        connection.insert(COLLECTOR, window_columns(window, SERVICE), f"rate:{number}")
        for number, window in enumerate(closed[1:])
    )
    settle(connection)
    return rows / (time.process_time() - started)


def settle(connection: Connection) -> None:
    """Wait until what was written is merged, ten minutes at most: nothing merges and no part has changed for a while.

    A look that finds no merge may fall between two of them, and then what is measured is a store on its way.
    """
    before, quiet = None, 0
    for _ in range(600):
        (row,) = connection.query(
            "SELECT (SELECT count() FROM system.merges) AS merges, "
            "(SELECT groupBitXor(cityHash64(table, name)) FROM system.parts "
            "WHERE active AND database = currentDatabase()) AS parts"
        )
        quiet = quiet + 1 if not row["merges"] and row["parts"] == before else 0
        if quiet >= _QUIET_SECONDS:
            return
        before = row["parts"]
        time.sleep(1.0)


def _bytes(connection: Connection, table: str) -> int:
    (row,) = connection.query(
        "SELECT sum(bytes_on_disk) AS bytes FROM system.parts "
        "WHERE database = currentDatabase() AND active AND table = {table:String}", {"table": table},
    )  # fmt: skip
    return int(row["bytes"])


def _columns(connection: Connection, table: str) -> dict[str, float]:
    rows = connection.query(
        """
        SELECT column, sum(column_data_compressed_bytes) / sum(rows) AS bytes FROM system.parts_columns
        WHERE database = currentDatabase() AND active AND table = {table:String}
        GROUP BY column HAVING bytes >= 0.01 ORDER BY bytes DESC
        """,
        {"table": table},
    )
    return {row["column"]: round(row["bytes"], 2) for row in rows}


def render(report: StoreReport) -> str:
    """Return *report* for people."""
    machine = report.machine
    lines = [
        f"{machine.cpu}, one core; {report.rows_a_window} rows a window, {report.features} features",
        "",
        f"{'table':<32}{'bytes':>9} {'per':<18}{'MiB a day':>10}{'kept':>7}{'GiB held':>10}",
        *(
            f"{part.table:<32}{part.bytes_per_unit:>9.2f} {part.unit:<18}{part.mib_per_day:>10.1f}{part.kept_days:>6}d"
            f"{part.gib_held:>10.2f}"
            for part in report.parts
        ),
        f"{'together':<32}{'':>9} {'':<18}{report.mib_per_replica_day:>10.1f}",
        "",
        f"{report.rows_per_second:,.0f} rows a second ({report.head_windows_per_second:,.0f} head windows)",
        "",
        *(f"{name} {report.bars[name]:g} ({bound})" for name, bound in report.bounds.items()),
    ]
    return "\n".join(lines)
