"""The endpoint over a real embedded store, behind the sidecar's own HTTP server."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from headwatch.config import ClickHouseConfig, Config, HttpConfig, StoreConfig
from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticView
from headwatch.health import Health
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter
from headwatch_exporters.clickhouse.http.endpoint import ClickHouseEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwatch_exporters.clickhouse.http.audit import Read

TWO_SERVICES = """
CREATE TABLE IF NOT EXISTS seen (service LowCardinality(String), route LowCardinality(String), number UInt64, secret String)
ENGINE = MergeTree ORDER BY number SETTINGS index_granularity = 64
"""
"""Even numbers belong to service a, odd ones to b; every third to route r."""


class Kept:
    """An audit that keeps reads in memory."""

    def __init__(self) -> None:
        self.reads: list[Read] = []
        self._came = threading.Condition()

    def record(self, read: Read) -> None:
        with self._came:
            self.reads.append(read)
            self._came.notify_all()

    def wait(self, query_id: str) -> Read:
        """Return the read *query_id*; it is noted after its answer has gone."""
        with self._came:
            assert self._came.wait_for(lambda: any(read.query_id == query_id for read in self.reads), 10.0)
        return next(read for read in self.reads if read.query_id == query_id)


@dataclass
class Served:
    """A store that is served at *url*."""

    url: str
    port: int
    store: ClickHouseExporter
    endpoint: ClickHouseEndpoint
    audit: Kept = field(default_factory=Kept)

    def ask(self, query: str, *, user: tuple[str, str] | None = None, **parameters: Any) -> httpx.Response:
        """Return the answer to *query* in a body."""
        return httpx.post(self.url, content=query.encode(), params=parameters, auth=user, timeout=60.0)

    def values(self, query: str, **parameters: Any) -> list[list[Any]]:
        """Return the rows that *query* answers."""
        answer = self.ask(f"{query} FORMAT JSONCompactEachRow", **parameters)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def write(self, sql: str) -> None:
        """Run *sql* as the sidecar itself does, beside the endpoint."""
        self.store._connection.command(sql)


@contextmanager
def serving_store(
    folder: Path, config: ClickHouseConfig | None = None, http: HttpConfig | None = None
) -> Iterator[Served]:
    """Serve a new store in *folder*."""
    config = config or ClickHouseConfig()
    whole = Config(store=StoreConfig(url=f"chdb://{folder}/store"), clickhouse=config, http=http or HttpConfig())
    store = ClickHouseExporter.open(whole.store)
    try:
        audit = Kept()
        endpoint = ClickHouseEndpoint.open(whole, audit)
        assert endpoint is not None
        server = HttpServer(create_app(StaticView(Health(0, (), {}, {})), clickhouse=endpoint), "127.0.0.1", 0)
        server.start()
        try:
            yield Served(f"http://127.0.0.1:{server.port}/clickhouse", server.port, store, endpoint, audit)
        finally:
            endpoint.close()
            server.stop()
    finally:
        store.close()


def fill_two_services(served: Served, rows: int = 1000) -> None:
    served.write(TWO_SERVICES)
    served.write(
        "INSERT INTO seen SELECT if(number % 2, 'b', 'a'), if(number % 3, 'q', 'r'), number, "
        f"if(number % 2, 'of b', 'of a') FROM numbers({rows})"
    )
