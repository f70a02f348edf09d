"""Sidecars with a known state, behind a real HTTP server."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from headwatch.console.app import create_app
from headwatch.console.server import HttpServer
from headwatch.console.static import StaticReader, StaticView
from headwatch.health import ExporterHealth, Health, WorkerHealth

from .frames import status, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.console.view import SidecarView

COUNTERS = {"steps": 100, "sampled_steps": 10, "rows_planned": 12, "rows_sent": 12, "frames_sent": 10, "frames_dropped": 0}
READER = StaticReader(
    arm_rows=[{"arm": "healthy", "requests": 3, "last_time_ns": 5}],
    request_rows=[{"request_id": f"r-{n}", "arm": "healthy" if n % 2 else "wrong", "route": "hr"} for n in range(6)],
    head_table={"layers": [0], "heads": 2, "mean": [[0.5, float("nan")]], "sd": [[0.1, None]], "requests": 3},
    history_rows=[{"layer": 0, "head": 0, "mean": 0.5}, {"layer": 1, "head": 0, "mean": 0.7}],
    document_rows=[{"document_id": "d-1", "source": "wiki", "requests": 3, "found": 3, "share_mean": 0.5}],
    row_counts={"otel_rows": 7, "requests": 6},
    evidence_rows=[{"time_ns": 5, "name": "lookback", "log10_evidence": 2.0}, {"time_ns": 4, "name": "entropy"}],
    canary_rows=[{"time_ns": 5, "prompt": "plain", "failed": False}],
    deploy_rows=[{"time_ns": 5, "title": "release 7"}],
)


def reporting(**changes: object) -> WorkerHealth:
    """Return a healthy worker, with fields of its status or of what ingest counted changed."""
    frame = msgspec.structs.replace(status(), counters=COUNTERS, worker=worker())
    own = {name: changes.pop(name) for name in list(changes) if name in frame.__struct_fields__}
    frame = msgspec.structs.replace(frame, **own)
    kept = {"received_ns": time.time_ns(), "clock_skew_seconds": 0.01, "frames_received": 10, "frames_missing": 0}
    return WorkerHealth(frame, **{**kept, **changes})  # type: ignore[arg-type]


def exporter(**changes: object) -> ExporterHealth:
    """Return a healthy exporter, with fields changed."""
    kept = {
        "up": True, "exported_batches": 5, "exported_points": 50, "dropped_batches": 0, "errors": 0, "last_error": "",
        "last_duration_seconds": 0.1, "queue_batches": 0,
    }  # fmt: skip
    return ExporterHealth(**{**kept, **changes})  # type: ignore[arg-type]


def health(*workers: WorkerHealth, ingest: dict[str, int] | None = None, **exporters: ExporterHealth) -> Health:
    return Health(time.time_ns(), workers, ingest or {"frames": 10, "rows": 12}, exporters or {"prometheus": exporter()})


@contextmanager
def serving(view: SidecarView | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve *view* (default: a healthy pair) on a free port, and give its address."""
    view = view or StaticView(health(reporting()), exposition=b"headwatch_capture_up 1\n", reader=READER)
    server = HttpServer(create_app(view, host), host, 0)
    server.start()
    try:
        yield f"http://{host}:{server.port}"
    finally:
        server.stop()
