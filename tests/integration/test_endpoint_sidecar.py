"""The ClickHouse endpoint of a whole sidecar, and every query of the dashboards through it."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import httpx
import pytest

from headwatch.config import ClickHouseConfig, Config, DriftConfig, HttpConfig, StoreConfig, WireConfig
from headwatch.pipeline import Sidecar
from headwatch_dashboards.boards import BOARDS
from headwatch_dashboards.macros import QueryRange
from headwatch_dashboards.query_check import run_queries, run_rules
from headwatch_exporters.clickhouse.reading.queries import StoreReader

from ..programs import free_port
from .dashboard_rows import filled_store
from .endpoints import serving_store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.store


def configured(folder: Path, **clickhouse: object) -> Config:
    return Config(
        wire=WireConfig(endpoint=f"ipc://{folder}/wire", control_endpoint=f"ipc://{folder}/control"),
        http=HttpConfig(port=free_port()),
        store=StoreConfig(url=f"chdb://{folder}/store"),
        drift=DriftConfig(enabled=False),
        clickhouse=ClickHouseConfig(**clickhouse),  # type: ignore[arg-type]
    )


def test_a_sidecar_serves_its_store_counts_reads_and_frees_it(tmp_path: Path):
    for _ in range(2):  # the store can be opened again: the endpoint left no handle behind
        config = configured(tmp_path)
        sidecar = Sidecar(config)
        sidecar.start()
        base = f"http://127.0.0.1:{config.http.port}"
        try:
            sidecar.tick(everything=True)
            assert httpx.post(f"{base}/clickhouse", content=b"SELECT count() FROM headwatch_requests").text == "0\n"
            assert httpx.post(f"{base}/clickhouse", content=b"DROP TABLE headwatch_requests").status_code == 500
            assert httpx.get(f"{base}/clickhouse/ping", headers={"Host": "evil.example"}).status_code == 400, (
                "DNS rebinding"
            )
            assert sidecar.health().reads == {"ok": 1, "READONLY": 1}
            sidecar.tick(everything=True)
            found = httpx.get(f"{base}/metrics").text
            assert 'headwatch_endpoint_reads_total{headwatch_state="READONLY"' in found
        finally:
            sidecar.stop()


def test_a_sidecar_may_have_no_endpoint(tmp_path: Path):
    config = configured(tmp_path, enabled=False)
    sidecar = Sidecar(config)
    sidecar.start()
    try:
        assert httpx.get(f"http://127.0.0.1:{config.http.port}/clickhouse/ping").status_code == 404
    finally:
        sidecar.stop()


def test_every_query_of_the_dashboards_and_alerts_runs_through_the_endpoint(tmp_path: Path):
    """As Grafana sends them: nothing that they use is outside what the guard allows."""
    now = int(time.time())
    filled_store(tmp_path / "store", now)
    with serving_store(tmp_path) as served:
        client = clickhouse_connect.get_client(host="127.0.0.1", port=served.port, proxy_path="clickhouse")
        asked = QueryRange(now - 3600, now + 1)
        reports = [report for board in BOARDS for report in run_queries(json.loads(json.dumps(board.build())), client, asked)]
        reports += run_rules(client, asked)
        client.close()
        assert [report for report in reports if report.problem] == []
        assert len(reports) > 60


def test_what_the_product_itself_asks_is_allowed_through_the_endpoint(tmp_path: Path):
    """The reader of the API, on a client of the endpoint in place of its own connection, answers the same."""
    now = int(time.time())
    filled_store(tmp_path / "store", now)
    with serving_store(tmp_path) as served:
        client = clickhouse_connect.get_client(host="127.0.0.1", port=served.port, proxy_path="clickhouse")
        reader, own = StoreReader(_Through(client)), served.store.reader()  # type: ignore[arg-type]
        for ask in ("counts", "arms", "requests", "documents", "heads", "evidence", "canaries", "deploys"):
            assert same(getattr(reader, ask)(), getattr(own, ask)()), ask
        client.close()


def same(left: Any, right: Any) -> bool:
    """Return whether both are equal but for the order in which floats were added."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-4) or (math.isnan(left) and math.isnan(right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    return bool(left == right)


class _Through:
    """What ``Connection`` is, by HTTP."""

    def __init__(self, client: object) -> None:
        self._client = client

    def query(self, sql: str, parameters: dict[str, object] | None = None) -> list[dict[str, object]]:
        result = self._client.query(sql, parameters=parameters or {})  # type: ignore[attr-defined]
        return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]
