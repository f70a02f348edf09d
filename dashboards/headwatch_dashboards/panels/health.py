"""Is capture well, and does what it captured arrive?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_dashboards.grafana import (
    lines,
    override,
    override_matching,
    panel,
    stacked_bars,
    table_options,
    thresholds,
    timeseries_options,
    value_names,
)
from headwatch_dashboards.queries import health

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json


def rows_over_time() -> Json:
    """Return query rows by what became of them."""
    return panel(
        "timeseries",
        "Query rows",
        "Query rows in each interval as the worker counts them: planned, then sent, dropped (the queue to the sidecar was "
        "full) or refused (a layer failed its self-check). Sent well below planned means that the numbers rest on fewer "
        "rows than configured; they are not biased by it unless load and grounding move together. Thinned rows were left "
        "out before planning, to stay in the budget; those that were kept carry their weight.",
        health.rows_over_time(),
        unit="short",
        no_value="no worker reported in this range",
        options=timeseries_options(),
        defaults={"displayName": "${__field.labels.fate}", "min": 0},
        custom=lines(),
        overrides=[
            override_matching("^dropped$", {"color": {"mode": "fixed", "fixedColor": "orange"}}),
            override_matching("^refused$", {"color": {"mode": "fixed", "fixedColor": "red"}}),
        ],
    )


def frames_lost_over_time() -> Json:
    """Return frames lost, by where."""
    return panel(
        "timeseries",
        "Frames lost",
        "Frames in each interval. capture.dropped: the worker's queue was full. ingest.missing: gaps in the sequence that "
        "arrived, dropped frames included, so the two are not added. ingest.rejected: arrived and could not be read. "
        "A restart of the sidecar shows as one gap. Zero everywhere is the normal state; vLLM's own output is never touched.",
        health.frames_lost_over_time(),
        unit="short",
        no_value="no worker reported in this range",
        options=timeseries_options(),
        defaults={"displayName": "${__field.labels.where}", "min": 0},
        custom={**stacked_bars(), "stacking": {"mode": "none", "group": "A"}},
    )


def errors_by_reason() -> Json:
    """Return errors by reason."""
    return panel(
        "table",
        "Errors by reason",
        "Errors of the range inside capture, in the request field of clients, and in frames that could not be read. "
        "document_not_in_prompt and the like are clients' mistakes: the request was served all the same, its grounding was "
        "not measured. The total is there also when it is 0.",
        health.errors_by_reason(),
        unit="short",
        no_value="nothing reported in this range",
        options=table_options(),
        defaults={"decimals": 0},
        overrides=[
            override("errors", {
                "custom.cellOptions": {"type": "color-text"},
                "color": {"mode": "thresholds"},
                "thresholds": thresholds("green", (1, "orange")),
            }),
        ],
    )


def overhead_over_time() -> Json:
    """Return the cost of capture."""
    return panel(
        "timeseries",
        "Overhead of capture",
        "Time spent in capture over the time of the engine's steps of late, for each worker. It is time "
        "on the worker's own thread: a step that overlaps with the accelerator may lose less throughput than this says.",
        health.overhead_over_time(),
        unit="percentunit",
        no_value="no worker reported in this range",
        options=timeseries_options(legend_calcs=("lastNotNull", "max")),
        defaults={
            "displayName": "${__field.labels.worker}",
            "min": 0,
            "thresholds": thresholds("transparent", (0.015, "red")),
        },
        custom={**lines(), "thresholdsStyle": {"mode": "line"}},
    )


def exporter_queue_over_time() -> Json:
    """Return the lag of the exporters, in batches."""
    return panel(
        "timeseries",
        "Exporter lag",
        "Batches that waited for each exporter, the most in each interval; about one batch is made a second. A queue that "
        "grows means that its peer is slow or away; at 64 the oldest batch is dropped and counted. Lag delays what is "
        "shown here, it does not touch vLLM.",
        health.exporter_queue_over_time(),
        unit="short",
        no_value="no exporter reported in this range",
        options=timeseries_options(),
        defaults={"displayName": "${__field.labels.exporter}", "min": 0, "decimals": 0},
        custom=lines(),
    )


def exporters() -> Json:
    """Return the last state of each exporter."""
    return panel(
        "table",
        "Exporters",
        "What each exporter last said of itself: whether its last export succeeded, how many batches wait, and how long the "
        "last export took. An exporter that is down retries; this row cannot show the store as down while the store is "
        "down, since it is read from it: see Newest report, or /api/v1/status on the sidecar.",
        health.exporters(),
        unit="none",
        no_value="no exporter reported in this range",
        options=table_options(),
        overrides=[
            override("up", {
                "mappings": [value_names({"1": ("Up", "green"), "0": ("Down", "red")})],
                "custom.cellOptions": {"type": "color-text"},
            }),
            override("queue", {"unit": "short", "decimals": 0}),
            override("duration", {"unit": "s", "decimals": 3}),
        ],
    )
