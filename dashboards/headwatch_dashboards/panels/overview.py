"""The first row: is there anything to see, and may it be believed?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_dashboards.grafana import override, panel, stat_options, table_options, thresholds, value_names
from headwatch_dashboards.names import dashboard_uid
from headwatch_dashboards.queries import grounding, health
from headwatch_dashboards.queries import incidents as incident_queries

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json

CAPTURE, NEWEST_REPORT = "Capture", "Newest report"
"""Titles of panels that alert rules open."""
_NEUTRAL = {"thresholds": thresholds("blue"), "color": {"mode": "thresholds"}}


def request_count() -> Json:
    """Return how many requests everything on the dashboard rests on."""
    return panel(
        "stat",
        "Requests sampled",
        "Sampled requests that ended in this range, routes and models as chosen. Everything about grounding below rests on "
        "these. It is not the traffic of the server: only the configured share of requests is sampled.",
        grounding.request_count(),
        unit="short",
        no_value="none in this range",
        defaults=_NEUTRAL,
        options=stat_options(),
    )


def state_shares() -> Json:
    """Return the shares of measured, absent and unresolved requests."""
    return panel(
        "stat",
        "Could grounding be measured?",
        "Shares of the sampled requests. measured: documents were named and found in the prompt. absent: the request named "
        "no documents, so it has no grounding ratio, which is not a ratio of 0; a rise means that retrieval returned "
        "nothing or a client stopped naming documents. unresolved: documents were named and none was found in the prompt, "
        "the request's field was rejected (see its errors), "
        "or no generated row was sampled.",
        grounding.state_shares(),
        unit="percentunit",
        no_value="no sampled request in this range",
        defaults={"decimals": 0, "min": 0, "max": 1, **_NEUTRAL},
        options=stat_options(text_mode="value_and_name"),
        overrides=[
            override("unresolved", {"thresholds": thresholds("blue", (0.05, "orange"))}),
        ],
    )


def mean_grounding() -> Json:
    """Return the mean ratio over the whole range."""
    return panel(
        "stat",
        "Grounding ratio",
        "Mean over the measured requests of the range: attention per document token, over that plus attention per generated "
        "token. 0.5 means that a document token is read as much as a generated one. It says what the model looks at, not "
        "whether the answer is right, and it depends on prompt length and model: compare a route with itself, never two "
        "models. Retrieval heads need a head map; without one only all heads are shown.",
        grounding.mean_grounding(),
        unit="none",
        no_value="no measured request in this range",
        defaults={"decimals": 3, "min": 0, "max": 1, **_NEUTRAL},
        options=stat_options(text_mode="value_and_name"),
    )


def routes() -> Json:
    """Return the routes, the one that fell most first."""
    only: Json = {
        "title": "Grounding of this route",
        "url": f"/d/{dashboard_uid('grounding')}?${{__url_time_range}}&var-route=${{__value.raw}}",
        "targetBlank": False,
    }
    return panel(
        "table",
        "Routes",
        "Each route: sampled requests, the mean grounding ratio (retrieval heads where there is a map) in the earlier and in "
        "the later half of the range, and the shares whose grounding could not be measured. The route that fell most stands "
        "first; there is always one, and this list tests nothing: what is a change and what is noise stands under "
        "Incidents. A rising share of absent means that retrieval returns nothing.",
        grounding.by_route(),
        unit="none",
        no_value="no sampled request in this range",
        options=table_options(),
        overrides=[
            override("route", {"links": [only]}),
            override("requests", {"unit": "short", "decimals": 0, "custom.width": 90}),
            override("earlier", {"decimals": 3, "custom.width": 90}),
            override("later", {"decimals": 3, "custom.width": 90}),
            override("change", {"decimals": 3, "custom.width": 90}),
            override("absent", {"unit": "percentunit", "decimals": 1, "custom.width": 90}),
            override("unresolved", {"unit": "percentunit", "decimals": 1, "custom.width": 100}),
        ],
    )  # fmt: skip


def live_incidents() -> Json:
    """Return how many incidents are open, by severity."""
    return panel(
        "stat",
        "Incidents not resolved",
        "Incidents that are open or acknowledged, by severity, whenever they opened. Silenced ones are counted apart: they "
        "woke nobody. None does not mean that all is well: detection must be watching (see Detection) and capture must be "
        "up. Critical pages; a warning waits for the morning; info is told and never pages.",
        incident_queries.live(),
        unit="short",
        no_value="none",
        defaults={"decimals": 0, "thresholds": thresholds("text"), "color": {"mode": "thresholds"}},
        options=stat_options(text_mode="value_and_name"),
        overrides=[
            override("critical", {"thresholds": thresholds("text", (1, "red"))}),
            override("warning", {"thresholds": thresholds("text", (1, "orange"))}),
        ],
    )


def capture_up() -> Json:
    """Return whether every worker captures."""
    return panel(
        "stat",
        CAPTURE,
        "The last word of every worker that reported in this range. Down: at least one is switched off, silent, or its "
        "circuit breaker is open; then a fall in requests here says nothing about traffic. The reason is on the sidecar "
        "under /api/v1/status and in `headwatch doctor`. A worker that was taken away on purpose counts as silent.",
        health.capture_up(),
        unit="none",
        no_value="no worker reported in this range",
        defaults={
            "mappings": [value_names({"1": ("Up", "green"), "0": ("Down", "red")})],
            "thresholds": thresholds("red", (1, "green")),
            "color": {"mode": "thresholds"},
        },
        options=stat_options(color_mode="background"),
    )


def refused_layers() -> Json:
    """Return how many layers the self-check refused."""
    return panel(
        "stat",
        "Refused layers",
        "Attention layers that failed the self-check or whose cache layout is not understood. Nothing is exported of them, "
        "so that means over heads leave them out; before an upgrade and after it they may mean different things.",
        health.refused_layers(),
        unit="none",
        no_value="no worker reported in this range",
        defaults={"thresholds": thresholds("green", (1, "red")), "color": {"mode": "thresholds"}},
        options=stat_options(),
    )


def report_age() -> Json:
    """Return the age of the newest report in the store."""
    return panel(
        "stat",
        NEWEST_REPORT,
        "How long before the end of the range the sidecar last wrote to the store. More than a minute: the sidecar is "
        "down, its store is, or the delivery lags; what is shown is then the past. It does not say that traffic flows.",
        health.report_age(),
        unit="s",
        no_value="nothing reported in this range",
        defaults={"thresholds": thresholds("green", (60, "orange"), (300, "red")), "color": {"mode": "thresholds"}},
        options=stat_options(),
    )
