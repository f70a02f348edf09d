"""A whole sidecar whose store or disk is away: it runs, says so in one place, and what waited arrives."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from headwatch.config import Config, DriftConfig, HttpConfig, SpoolConfig, StoreConfig, WireConfig
from headwatch.errors import SpoolError
from headwatch.pipeline import Sidecar
from headwatch.wire.columns import view
from headwatch_exporters.clickhouse.exporter import ClickHouseExporter

from ..clickhouse_http import ClickHouseHttp
from ..contract.deliveries import full
from ..programs import free_port, wait_for
from ..unit.frames import detailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.store


def config(folder: Path, url: str, /, **spool: object) -> Config:
    return Config(
        wire=WireConfig(endpoint=f"ipc://{folder}/frames", control_endpoint=f"ipc://{folder}/control"),
        http=HttpConfig(port=0), store=StoreConfig(url=url, min_free_bytes=64 << 20),
        drift=DriftConfig(enabled=False, folder=f"{folder}/drift"),
        spool=SpoolConfig(**{"folder": f"{folder}/spool", **spool}),  # type: ignore[arg-type]
    )  # fmt: skip


@contextmanager
def running(folder: Path, url: str, /, **spool: object) -> Iterator[Sidecar]:
    made = Sidecar(config(folder, url, **spool))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def answer(sidecar: Sidecar, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{sidecar._http.port}{path}")


def ended(sidecar: Sidecar, name: str) -> None:
    """Have a request of that name end, and its window close."""
    batch = detailed(3, time_ns=time.time_ns(), finished=[name])
    sidecar._consume(batch, view(batch))
    sidecar.tick(everything=True)


def metric(sidecar: Sidecar, name: str) -> float:
    found = re.search(rf"^headwatch_spool_{name} (\S+)$", answer(sidecar, "/metrics").text, re.MULTILINE)
    return float(found[1]) if found else -1.0


def requests(server: ClickHouseHttp) -> int:
    return int(server.query("SELECT count() FROM headwatch_requests")[0][0])


def test_a_sidecar_starts_without_its_store_and_delivers_when_it_is_there(tmp_path: Path):
    server = ClickHouseHttp(tmp_path / "server", free_port())
    try:
        with running(tmp_path, server.url) as sidecar:
            for number in range(3):
                ended(sidecar, f"r-{number}")
            wait_for(lambda: sidecar.health().exporters["clickhouse"].spool.records >= 3, "the spool to have them")  # type: ignore[union-attr]
            wait_for(lambda: not sidecar.health().exporters["clickhouse"].up, "an attempt")
            reasons = answer(sidecar, "/readyz").json()["reasons"]
            assert any(one.startswith("exporter clickhouse: cannot open the store http://default:***@") for one in reasons)
            sidecar.tick(everything=True)
            wait_for(lambda: metric(sidecar, "records") >= 3, "the metrics to tell")
            assert metric(sidecar, "bytes") > 500
            assert metric(sidecar, "limit_bytes") == 2 * 1024**3
            assert metric(sidecar, "age_seconds") >= 0
            assert answer(sidecar, "/api/v1/requests").status_code == 503
            server.listen()
            wait_for(lambda: sidecar.health().exporters["clickhouse"].spool.records == 0, "the spool to drain", 60)  # type: ignore[union-attr]
            assert requests(server) == 3
            assert sidecar.health().exporters["clickhouse"].up
            assert not [one for one in answer(sidecar, "/readyz").json()["reasons"] if "clickhouse" in one]
            assert answer(sidecar, "/api/v1/requests").status_code == 200
            sidecar.tick(everything=True)
            wait_for(lambda: metric(sidecar, "sent_total") > 3, "the metrics to tell")
    finally:
        server.close()


def test_what_is_not_delivered_at_the_end_is_delivered_after_the_next_start(tmp_path: Path):
    server = ClickHouseHttp(tmp_path / "server", free_port())
    try:
        with running(tmp_path, server.url) as sidecar:
            ended(sidecar, "r-1")
            started = time.monotonic()
        assert time.monotonic() - started < 9.0, "nobody waits for a store that is away"
        server.listen()
        with running(tmp_path, server.url) as sidecar:
            wait_for(lambda: sidecar.health().exporters["clickhouse"].spool.records == 0, "the spool to drain", 60)  # type: ignore[union-attr]
            assert requests(server) == 1
    finally:
        server.close()


def test_what_is_on_its_way_can_be_taken_out(tmp_path: Path):
    """Of a sidecar that runs: as a person asks for it, before it reaches the store."""
    server = ClickHouseHttp(tmp_path / "server", free_port())
    try:
        exporter = ClickHouseExporter.open(StoreConfig(url=server.url), SpoolConfig(), tmp_path / "spool")
        exporter.export(full(time.time_ns()))
        assert exporter.rewrite_spool(lambda batch: None if batch.table == "headwatch_requests" else batch) == 1
        server.listen()
        wait_for(lambda: exporter.spool_health().records == 0, "the spool to drain", 60)  # type: ignore[union-attr]  # it has one
        assert requests(server) == 0
        assert int(server.query("SELECT count() FROM headwatch_documents")[0][0]) == 6
        exporter.close()
    finally:
        server.close()


def test_a_spool_that_fills_up_or_waits_long_makes_the_sidecar_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"http://127.0.0.1:{free_port()}/default"
    monkeypatch.setattr("headwatch.health.SPOOL_LATE_SECONDS", 0.0)
    monkeypatch.setattr("headwatch.health.SPOOL_FULL", 0.001)
    with running(tmp_path, url, max_bytes=1 << 20) as sidecar:
        ended(sidecar, "r-1")
        for words in ("the spool is", "waits for the store"):
            wait_for(lambda words=words: any(words in one for one in sidecar.readiness()), words)


def test_a_second_sidecar_on_one_spool_is_told_in_one_line(tmp_path: Path):
    with running(tmp_path, f"chdb://{tmp_path}/store"):
        other = config(tmp_path, f"http://127.0.0.1:{free_port()}/default")
        with pytest.raises(SpoolError, match=f"^the spool {tmp_path}/spool is in use by another process; .*spool.folder.$"):
            Sidecar(other)


def test_a_disk_that_is_read_only_is_one_line_and_metrics_stay(tmp_path: Path):
    """A real one, for store and spool; when it can be written again both open."""
    code = f"""
        import logging, subprocess, sys, time
        import httpx
        from pathlib import Path
        from tests.integration.test_spool_sidecar import running, answer, ended, wait_for
        logging.basicConfig(level=logging.WARNING, format="LOG %(message)s", stream=sys.stdout)
        disk = Path({str(tmp_path)!r}) / "disk"
        disk.mkdir()
        run = lambda *words: subprocess.run(["mount", *words, str(disk)], check=True)
        run("-t", "tmpfs", "-o", "size=400m", "tmpfs")
        run("-o", "remount,ro")
        with running(disk.parent, f"chdb://{{disk}}/store", folder=f"{{disk}}/spool") as sidecar:
            print("metrics", answer(sidecar, "/metrics").status_code)
            ended(sidecar, "r-1")
            wait_for(lambda: not sidecar.health().exporters["clickhouse"].up, "the failure")
            print("ready", answer(sidecar, "/readyz").status_code, answer(sidecar, "/readyz").json()["reasons"])
            run("-o", "remount,rw")
            wait_for(lambda: sidecar.health().exporters["clickhouse"].exported_batches > 0, "the delivery", 60)
            print("then", sidecar.reader.counts()["requests"])
    """
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets no user make a mount namespace")
    done = subprocess.run([*command, sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "metrics 200" in lines
    assert "then 1" in lines
    assert [line for line in lines if line.startswith("ready 503") and "Read-only file system" in line], lines
    logged = [line for line in lines if line.startswith("LOG") and "Read-only" in line]
    assert 1 <= len(logged) <= 3, "one line each of store, spool and exporter: whatever tries again is silent"
    assert "Traceback" not in done.stdout + done.stderr
