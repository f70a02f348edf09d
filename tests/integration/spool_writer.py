"""A process that exports numbered deliveries through the real exporter and spool until it is killed.

``python -m tests.integration.spool_writer URL FOLDER FIRST [PAUSE_SECONDS]``: each delivery is announced (``begin 7``) and,
once the exporter has returned, told (``took 7``; ``refused 7`` where the spool did not take it).  With ``drain`` for FIRST it
waits until the spool is empty, and prints what the store holds of each number.
"""

# ruff: noqa: T201 - what it prints is what it is for

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from headwatch.config import SpoolConfig, StoreConfig
from headwatch.errors import ExportError
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.spool.sender import Sender

from ..contract.deliveries import full

TARGET = """CREATE TABLE IF NOT EXISTS by_route (route String, series UInt64, values UInt64)
    ENGINE = SummingMergeTree ORDER BY route SETTINGS non_replicated_deduplication_window = 1000"""
VIEW = """CREATE MATERIALIZED VIEW IF NOT EXISTS to_by_route TO by_route AS
    SELECT Attributes['headwatch.route'] AS route, count() AS series, sum(Count) AS values FROM otel_metrics_exp_histogram
    WHERE startsWith(MetricName, 'headwatch.attention.') GROUP BY route"""
COUNTS = {
    "base": "SELECT Attributes['headwatch.route'] AS route, count() AS n, sum(Count) AS m FROM otel_metrics_exp_histogram "
            "WHERE startsWith(MetricName, 'headwatch.attention.') GROUP BY route",
    "view": "SELECT route, sum(series) AS n, sum(values) AS m FROM by_route GROUP BY route",
    "rows": "SELECT Attributes['headwatch.route'] AS route, count() AS n, toUInt64(sum(Value)) AS m FROM otel_metrics_gauge "
            "WHERE MetricName = 'headwatch.attention.rows' GROUP BY route",
    "requests": "SELECT route, count() AS n, toUInt64(sum(documents)) AS m FROM headwatch_requests GROUP BY route",
    "heads": "SELECT route, count() AS n, 0 AS m FROM headwatch_request_heads GROUP BY route",
}  # fmt: skip
MIN_FREE_BYTES = 64 << 20
"""The disks of these tests are small."""


def numbered(number: int) -> Any:
    """Return the delivery of that number: one window, three requests, all of route ``w<number>``."""
    delivery = full(time.time_ns())
    route = f"w{number}"
    windows = tuple(
        replace(window, strata=tuple(replace(stratum, route=route) for stratum in window.strata)) for window in delivery.windows
    )
    requests = tuple(
        replace(one, context=msgspec.structs.replace(one.context, route=route)) for one in delivery.requests
    )
    return replace(delivery, windows=windows, requests=requests)


def opened(url: str, folder: Path) -> ClickHouseExporter:
    Sender.__init__.__kwdefaults__["longest_pause_seconds"] = 0.5  # an outage of seconds stands for one of hours
    return ClickHouseExporter.open(StoreConfig(url=url, min_free_bytes=MIN_FREE_BYTES), SpoolConfig(max_bytes=64 << 20), folder)


def write(exporter: ClickHouseExporter, first: int, pause_seconds: float) -> None:
    for number in count(first):
        delivery = numbered(number)
        print("begin", number, flush=True)
        try:
            exporter.export(delivery)
        except ExportError as error:
            print("refused", number, error, flush=True)
        else:
            print("took", number, flush=True)
        time.sleep(pause_seconds)


def drain(exporter: ClickHouseExporter, folder: Path) -> None:
    while (state := exporter.spool_health()) is None or state.records:
        time.sleep(0.05)
    answers = {name: exporter._connection.query(sql) for name, sql in COUNTS.items()}
    found = {name: {row["route"]: [row["n"], row["m"]] for row in rows} for name, rows in answers.items()}
    aside = len(list((folder / "poison").glob("*.json")))
    print(json.dumps({"found": found, "dropped": state.dropped_batches, "aside": aside}))


def main() -> None:
    url, folder, first = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    exporter = opened(url, folder)
    if first == "prepare":
        for statement in (TARGET, VIEW):
            exporter._connection.command(statement)
    elif first == "drain":
        drain(exporter, folder)
    else:
        print("open", flush=True)
        write(exporter, int(first), float(sys.argv[4]))
    exporter.close()


if __name__ == "__main__":
    main()
