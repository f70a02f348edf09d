"""What the tests of the endpoint's protocol, limits and sessions share: its settings, a slow query, and what to wait for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headwatch.config import ClickHouseConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from .endpoints import Served

SLOW = "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 7"
CONFIG = ClickHouseConfig(
    max_running=3, max_waiting=2, queue_seconds=0.5, max_execution_seconds=20.0, max_memory_bytes=64 * 1024 * 1024,
    max_result_bytes=256 * 1024 * 1024, max_query_bytes=64 * 1024,
)  # fmt: skip


def code(answer: httpx.Response) -> int:
    return int(answer.headers["x-clickhouse-exception-code"])


def waited(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    return condition()


def running(served: Served, query: str) -> int:
    rows = served.store._connection.query(
        "SELECT count() AS n FROM system.processes "
        "WHERE positionCaseInsensitive(query, {q:String}) AND Settings['log_comment'] != ''",
        {"q": query},
    )
    return int(rows[0]["n"])
