"""A sidecar says of canaries what it took in and whether they run: in its health, over HTTP, and to what scrapes it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import msgspec

from headwatch.aggregate.canaries import MAX_OPEN
from headwatch.config import CanaryConfig, Config, DriftConfig, HttpConfig, StoreConfig, WireConfig
from headwatch.health import CANARY_REASONS, Health
from headwatch.pipeline import Sidecar
from headwatch.wire.columns import view

from ..programs import free_port, wait_for
from .frames import context, summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VALUES, MASS = {"entropy": 0.5, "sink_mass": 0.2}, [0.2, 0.3, 0.1, 0.1, 0.3]
NOBODY = "http://127.0.0.1:9"


@contextmanager
def running(folder: Path, endpoint: str = "") -> Iterator[tuple[Sidecar, str]]:
    """Run a sidecar without a store that sends canaries to *endpoint*; give it and its address."""
    port = free_port()
    made = Sidecar(Config(
        wire=WireConfig(endpoint=f"ipc://{folder}/wire", control_endpoint=f"ipc://{folder}/control"),
        http=HttpConfig(port=port), store=StoreConfig(enabled=False), drift=DriftConfig(folder=str(folder / "drift")),
        canary=CanaryConfig(endpoint=endpoint, interval_seconds=60.0),
    ))  # fmt: skip
    made.start()
    try:
        yield made, f"http://127.0.0.1:{port}"
    finally:
        made.stop()


def take(sidecar: Sidecar, engine_id: str) -> None:
    """Have *sidecar* take a frame with two rows of a canary."""
    request = msgspec.structs.replace(context(engine_id), canary="capital")
    batch = summary([(9, VALUES, MASS), (10, VALUES, MASS)], request=request)
    sidecar._consume(batch, view(batch))


def test_a_frame_of_a_canary_counts_in_ingest_and_not_as_traffic(tmp_path: Path) -> None:
    with running(tmp_path) as (sidecar, _):
        take(sidecar, "c-1")
        ingest = sidecar.health().ingest
        assert (ingest["canary_rows"], ingest.get("canary_rows_dropped", 0), ingest.get("rows", 0)) == (2, 0, 0)
        for number in range(MAX_OPEN):
            take(sidecar, f"more-{number}")
        ingest = sidecar.health().ingest
        assert (ingest["canary_rows"], ingest["canary_rows_dropped"]) == (2 * MAX_OPEN + 2, 2), "one found no room"
        assert sidecar.health().canary is None, "of runs there is nothing to say where none are sent"


def test_a_server_that_does_not_answer_shows_in_status_and_to_a_scrape(tmp_path: Path) -> None:
    with running(tmp_path, NOBODY) as (sidecar, url):
        take(sidecar, "c-1")
        wait_for(lambda: sidecar.health().canary.failures["unreachable"] == 1, "the run to fail")  # type: ignore[union-attr]  # it sends
        body = httpx.get(f"{url}/api/v1/status").content
        shown = msgspec.json.decode(body)["canary"]
        assert (shown["interval_seconds"], shown["runs"], shown["completed_ns"]) == (60.0, 0, 0)
        assert shown["failures"] == {**dict.fromkeys(CANARY_REASONS, 0), "unreachable": 1}
        assert msgspec.json.decode(body, type=Health).canary == sidecar.health().canary, "as doctor reads it"
        sidecar.tick(everything=True)

        def scraped() -> str:
            return httpx.get(f"{url}/metrics").text

        failed = r'^headwatch_canary_failures_total{headwatch_reason="(\w+)"} (\S+)$'
        wait_for(lambda: re.search(failed, scraped(), re.MULTILINE) is not None, "the failures to be exported")
        text = scraped()
        counts = {reason: float(count) for reason, count in re.findall(failed, text, re.MULTILINE)}
        assert counts == {**dict.fromkeys(CANARY_REASONS, 0.0), "unreachable": 1.0}
        for name, value in (("canary_runs_total", 0.0), ("canary_interval_seconds", 60.0), ("ingest_canary_rows_total", 2.0)):
            assert f"\nheadwatch_{name} {value}\n" in text
        assert re.search(r"^headwatch_canary_run_age_seconds \S+$", text, re.MULTILINE)


def test_the_status_of_an_earlier_version_is_read() -> None:
    """Doctor may be newer than the sidecar that it asks."""
    older = msgspec.json.encode({"time_ns": 1, "workers": [], "ingest": {}, "exporters": {}})
    assert msgspec.json.decode(older, type=Health).canary is None
