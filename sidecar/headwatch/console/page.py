"""The page at ``/``: the state of the pair in plain HTML, without script and without anything from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from headwatch import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwatch.findings import DriftStatus, Incident
    from headwatch.health import ExporterHealth, Health, WorkerHealth

MAX_WORKERS = 100
"""Workers shown; the rest stands in ``/api/v1/status``."""
MAX_INCIDENTS = 20


def render_page(
    health: Health, reasons: Sequence[str], drift: DriftStatus | None = None, incidents: Sequence[Incident] = ()
) -> bytes:
    """Return the page for *health*, the *reasons* why the sidecar is not ready, and the *incidents* that are not resolved.

    Whatever comes from outside is escaped: names of models, reasons of workers and errors of exporters are others' text.
    """
    template = Template(files("headwatch.console").joinpath("index.html").read_text("utf-8"))
    shown = health.workers[:MAX_WORKERS]
    page = template.substitute(
        version=escape(__version__),
        state="not ready" if reasons else "ready",
        colour="bad" if reasons else "good",
        reasons="".join(f"<li>{escape(reason)}</li>" for reason in reasons),
        drift=escape(_drift(drift)),
        incidents=_rows((_incident(incident) for incident in incidents[:MAX_INCIDENTS]), 6, "none"),
        workers=_rows((_worker(worker, health.time_ns) for worker in shown), 7, "no worker has reported yet"),
        more=f"and {len(health.workers) - len(shown)} more" if len(shown) < len(health.workers) else "",
        exporters=_rows((_exporter(*item) for item in health.exporters.items()), 6, "none"),
        ingest=_rows(((name, f"{count:,}") for name, count in sorted(health.ingest.items())), 2, "nothing has arrived"),
    )
    return page.encode()


def _drift(status: DriftStatus | None) -> str:
    if status is None:
        return "Drift detection has said nothing yet, or is off."
    if status.state == "warming_up":
        start = f", pages from {_time(status.pages_from_ns)}" if status.pages_from_ns else ""
        return f"Drift detection is warming up: the baseline is too short{start}."
    if status.state == "off":
        return "Drift detection is off."
    doing = "Watching" if status.state == "watching" else "Watching in shadow: nothing is sent"
    shown = max(0.0, status.clock)
    return f"{doing}. The clock shows 10^{shown:.1f} and pages at 10^{status.threshold:.1f}."


def _incident(incident: Incident) -> tuple[str, ...]:
    state = f"acknowledged by {incident.acknowledged_by}" if incident.state == "acknowledged" else incident.state
    if incident.ruling is not None:
        state += f", ruled {incident.ruling.replace('_', ' ')}"
    return (
        _time(incident.opened_ns),
        incident.severity,
        incident.verdict.drift_class,
        incident.verdict.sentence,
        f"{state}, silenced" if incident.silenced else state,
        incident.id,
    )


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d %H:%M} UTC"


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
