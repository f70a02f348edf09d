"""Is capture well, and does what it captured arrive?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch.health import SPOOL_FULL, SPOOL_LATE_SECONDS
from headwatch_dashboards.grafana import (
    lines,
    override,
    override_matching,
    panel,
    stacked_bars,
    stat_options,
    table_options,
    thresholds,
    timeseries_options,
    value_names,
)
from headwatch_dashboards.queries import health

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json


SPOOL_SHARE = "Spool: share of its room"
"""Titles of panels that alert rules open."""


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


def strides() -> Json:
    """Return what the budget leaves out."""
    return panel(
        "timeseries",
        "Stride of the budget",
        "The budget (capture.budget_share) keeps one of so many wanted rows in each worker, and gives it their weight; 1 is "
        "all of them. A spike of load raises it instead of slowing tokens. Means stay unbiased and get noisier: at a high "
        "stride detection believes a window less, and takes longer to find a change.",
        health.strides(),
        unit="none",
        no_value="no worker reported in this range",
        options=timeseries_options(legend_calcs=("max", "lastNotNull")),
        defaults={"displayName": "${__field.labels.worker}", "min": 1, "decimals": 1},
        custom=lines(),
    )


def thinning() -> Json:
    """Return what ingest leaves out."""
    return panel(
        "timeseries",
        "Thinning of ingest",
        "The sidecar keeps one request in so many at the moment, because more arrives than its core can aggregate; 1 is all of "
        "them. Kept requests stand for the others, so figures stay unbiased. If it lasts, give the sidecar a core of its own "
        "or lower the sampling rate (docs/ingest.md). vLLM never waits for it.",
        health.thinning(),
        unit="none",
        no_value="no sidecar reported in this range",
        options=timeseries_options(legend_calcs=("max",)),
        defaults={"displayName": "${__field.labels.sidecar}", "min": 1, "decimals": 0},
        custom=lines(),
    )


def spool_now() -> Json:
    """Return what waits for the store."""
    return panel(
        "stat",
        "Spool",
        "Deliveries that lie in the spool on disk and are not in the store yet, over all sidecars, and how long the oldest of "
        "them waits. A few seconds are normal. Minutes mean that the store is away or slow; nothing is lost while there is "
        "room (see the spool's share of it below), and what waits arrives once.",
        health.spool_now(),
        unit="short",
        no_value="no spool reported in this range",
        defaults={"decimals": 0, "thresholds": thresholds("text"), "color": {"mode": "thresholds"}},
        options=stat_options(text_mode="value_and_name"),
        overrides=[override("oldest waits", {"unit": "s", "thresholds": thresholds("text", (SPOOL_LATE_SECONDS, "red"))})],
    )


def spool_over_time() -> Json:
    """Return how full the spool is."""
    return panel(
        "timeseries",
        SPOOL_SHARE,
        "What the spool of each sidecar takes on disk, over what it may take (spool.max_bytes). At 1 the oldest deliveries "
        "make room and are counted as dropped. Above the line the sidecar says that it is not ready (/readyz), while there is "
        "still time to see to the store.",
        health.spool_over_time(),
        unit="percentunit",
        no_value="no spool reported in this range",
        options=timeseries_options(legend_calcs=("max", "lastNotNull")),
        defaults={
            "displayName": "${__field.labels.sidecar}", "min": 0, "max": 1,
            "thresholds": thresholds("transparent", (SPOOL_FULL, "red")),
        },
        custom={**lines(), "thresholdsStyle": {"mode": "line"}},
    )  # fmt: skip


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
