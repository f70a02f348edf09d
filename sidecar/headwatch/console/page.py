"""The page at ``/``: the state of the pair in plain HTML, without script and without anything from elsewhere."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from headwatch import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwatch.health import ExporterHealth, Health, WorkerHealth

MAX_WORKERS = 100
"""Workers shown; the rest stands in ``/api/v1/status``."""


def render_page(health: Health, reasons: Sequence[str]) -> bytes:
    """Return the page for *health* and the *reasons* why the sidecar is not ready.

    Whatever comes from outside is escaped: names of models, reasons of workers and errors of exporters are others' text.
    """
    template = Template(files("headwatch.console").joinpath("index.html").read_text("utf-8"))
    shown = health.workers[:MAX_WORKERS]
    page = template.substitute(
        version=escape(__version__),
        state="not ready" if reasons else "ready",
        colour="bad" if reasons else "good",
        reasons="".join(f"<li>{escape(reason)}</li>" for reason in reasons),
        workers=_rows((_worker(worker, health.time_ns) for worker in shown), 7, "no worker has reported yet"),
        more=f"and {len(health.workers) - len(shown)} more" if len(shown) < len(health.workers) else "",
        exporters=_rows((_exporter(*item) for item in health.exporters.items()), 6, "none"),
        ingest=_rows(((name, f"{count:,}") for name, count in sorted(health.ingest.items())), 2, "nothing has arrived"),
    )
    return page.encode()


def _worker(worker: WorkerHealth, now_ns: int) -> tuple[str, ...]:
    status = worker.status
    seconds = max(0.0, (now_ns - worker.received_ns) / 1e9)
    return (
        f"{status.worker.instance} / {status.worker.rank}",
        status.worker.model,
        "up" if status.up else f"down: {status.reason}",
        f"{seconds:,.0f} s ago",
        f"{status.counters.get('rows_sent', 0):,} of {status.counters.get('rows_planned', 0):,}",
        f"{worker.frames_missing:,} of {worker.frames_received + worker.frames_missing:,}",
        f"{len(status.refused_layers):,} of {status.worker.layers:,}",
    )


def _exporter(name: str, health: ExporterHealth) -> tuple[str, ...]:
    return (
        name,
        "up" if health.up else f"down: {health.last_error}",
        f"{health.exported_points:,}",
        f"{health.queue_batches:,}",
        f"{health.dropped_batches:,}",
        f"{health.errors:,}",
    )


def _rows(rows: Iterable[tuple[str, ...]], columns: int, nothing: str) -> str:
    made = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return made or f'<tr><td colspan="{columns}">{escape(nothing)}</td></tr>'
