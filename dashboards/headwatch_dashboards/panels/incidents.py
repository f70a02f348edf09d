"""What happened, which heads, was the page right, and what was released?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_dashboards.grafana import (
    lines,
    override,
    panel,
    stat_options,
    table_options,
    thresholds,
    timeseries_options,
    value_names,
)
from headwatch_dashboards.names import INCIDENT_VARIABLE, RUNBOOKS, dashboard_uid
from headwatch_dashboards.queries import incidents as queries

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json

INCIDENTS = "Incidents"
"""Title of the panel that the alert rule opens."""

_STATES = {"open": ("Open", "red"), "acknowledged": ("Acknowledged", "orange"), "resolved": ("Resolved", "green")}
_SEVERITIES = {"critical": ("Critical", "red"), "warning": ("Warning", "orange"), "info": ("Info", "blue")}


def _to_incident() -> Json:
    return {
        "title": "Everything of this incident",
        "url": f"/d/{dashboard_uid('incident')}?${{__url_time_range}}&var-{INCIDENT_VARIABLE}=${{__value.raw}}",
        "targetBlank": False,
    }


def incidents() -> Json:
    """Return the incidents."""
    runbook: Json = {"title": "Runbook", "url": f"{RUNBOOKS}/${{__value.raw}}.md", "targetBlank": True}
    return panel(
        "table",
        INCIDENTS,
        "Every incident that is not resolved, and those that opened in this range. One cause is one incident. The class is the "
        "first of telemetry, model, injection, retrieval and traffic that the evidence supports; confidence is of the class. "
        "Traffic is reported and never pages. `headwatch incident show ID` has the heads, the documents and the requests.",
        queries.incidents(),
        unit="none",
        no_value="no incident",
        options=table_options(),
        overrides=[
            override("state", {"mappings": [value_names(_STATES)], "custom.cellOptions": {"type": "color-text"},
                               "custom.width": 120}),
            override("severity", {"mappings": [value_names(_SEVERITIES)], "custom.cellOptions": {"type": "color-text"},
                                  "custom.width": 90}),
            override("class", {"links": [runbook], "custom.width": 90}),
            override("confidence", {"unit": "percentunit", "decimals": 0, "custom.width": 90}),
            override("opened", {"custom.width": 160}),
            override("incident", {"links": [_to_incident()]}),
        ],
    )  # fmt: skip


def named_heads() -> Json:
    """Return the heads that incidents name."""
    return panel(
        "table",
        "Heads that incidents name",
        "Heads that moved most at the opening of each incident shown above, frozen then: mean in the baseline, mean since the "
        "change began, and the effect in standard deviations of a window. Heads are ranked; that one of them did not move "
        "can happen, and no error rate is claimed for the list.",
        queries.named_heads(),
        unit="none",
        no_value="no incident, or one that names no heads",
        options=table_options(),
        overrides=[
            override("before", {"decimals": 3}),
            override("after", {"decimals": 3}),
            override("effect", {"decimals": 1}),
        ],
    )


def named_requests() -> Json:
    """Return the example requests of incidents."""
    return panel(
        "table",
        "Requests that incidents name",
        "Example requests of each incident shown above, frozen at its opening: those that stand out first, routes in turn. "
        "The kind of a prompt is its shape (length in tokens, documents, earlier turns, tools), with no word of it; incidents "
        "of earlier versions have none. Examples are few: they say where to look, not how often it happens.",
        queries.named_requests(),
        unit="none",
        no_value="no incident, or one that names no requests",
        options=table_options(),
        overrides=[
            override("time", {"unit": "dateTimeAsIso", "custom.width": 170}),
            override("grounding ratio", {"decimals": 3, "custom.width": 120}),
        ],
    )


def precision() -> Json:
    """Return how pages were ruled."""
    return panel(
        "table",
        "Pages and rulings",
        "Incidents that paged and opened in this range, by class, and what people said when they took or closed it. Precision "
        "is the share ruled true of those that were ruled; it is empty until somebody rules (`headwatch incident ack | "
        "resolve`), and means little below some ten rulings.",
        queries.precision(),
        unit="short",
        no_value="no page in this range",
        options=table_options(),
        overrides=[override("precision", {"unit": "percentunit", "decimals": 0})],
    )


def releases() -> Json:
    """Return what was released."""
    return panel(
        "table",
        "Releases",
        "Releases that were marked with `headwatch deploy-event`. Within the maintenance window of a planned one (planned) a "
        "change of the model is learnt anew instead of paging. A release that nobody marked is not here.",
        queries.releases(),
        unit="none",
        no_value="no release was marked in this range",
        options=table_options(),
        overrides=[override("planned", {"unit": "s"}), override("time", {"custom.width": 160})],
    )


def verdict() -> Json:
    """Return what the chosen incident is."""
    return panel(
        "stat",
        "Verdict",
        "State, severity and class of the chosen incident, how sure the class is, and what it would be else. The class is the "
        "first of telemetry, model, injection, retrieval and traffic that the evidence supports; confidence is of the class "
        "and not of the change, which the clock promised. A class can be revised while evidence comes in.",
        queries.verdict(),
        unit="none",
        no_value="no such incident: choose one above",
        defaults={"thresholds": thresholds("text"), "color": {"mode": "thresholds"}},
        options={**stat_options(text_mode="value_and_name"), "orientation": "auto",
                 "reduceOptions": {"calcs": ["lastNotNull"], "fields": "/.*/", "values": False}},
        overrides=[
            override("state", {"mappings": [value_names(_STATES)]}),
            override("severity", {"mappings": [value_names(_SEVERITIES)]}),
            override("confidence", {"unit": "percentunit", "decimals": 0}),
            override("paged", {"mappings": [value_names({"true": ("Yes", "text"), "false": ("No", "text"),
                                                         "1": ("Yes", "text"), "0": ("No", "text")})]}),
        ],
    )  # fmt: skip


def story() -> Json:
    """Return the chosen incident in words."""
    return panel(
        "table",
        "What happened",
        "The chosen incident in words: what was seen, since when, on which route, who was told and who took it. 'Began' is the "
        "best estimate of when the change started, which is before it was found. `headwatch incident show ID` says the same "
        "in a terminal, and `headwatch incident ack | resolve` takes or closes it.",
        queries.story(),
        unit="none",
        no_value="no such incident: choose one above",
        options=table_options(),
        overrides=[override("what", {"custom.width": 220})],
    )


def reasons() -> Json:
    """Return why it is of its class."""
    return panel(
        "table",
        "Why this class",
        "The facts that decided the class, in the order of the decision table, with the figures they rest on. "
        "A fact that is not listed was not found or could not be told; it was not ruled out. Nothing here says what in "
        "the deployment did it: that is what the runbook of the class is for.",
        queries.reasons(),
        unit="none",
        no_value="no such incident, or one of an earlier version",
        options=table_options(),
    )


def evidence_at_opening() -> Json:
    """Return the evidence that opened it."""
    return panel(
        "table",
        "Evidence at the opening",
        "Where the change was seen when the incident opened, frozen then: log10 of the evidence, mean before and since, and "
        "the effect in standard deviations of the baseline's windows. The first rows are what to believe. Several features of "
        "the same heads often say the same thing, so rows are not independent witnesses.",
        queries.evidence_at_opening(),
        unit="none",
        no_value="no such incident, or one without evidence of places",
        options=table_options(),
        overrides=[
            override("evidence", {"decimals": 2, "custom.width": 90}),
            override("before", {"decimals": 3, "custom.width": 90}),
            override("after", {"decimals": 3, "custom.width": 90}),
            override("effect", {"decimals": 2, "custom.width": 80}),
        ],
    )


def evidence_since() -> Json:
    """Return how that evidence went on."""
    return panel(
        "timeseries",
        "Evidence over the range",
        "log10 of the evidence in the places that opened the chosen incident, over the range. After a page the clock starts "
        "again, and a change that lasts climbs again; one that is over falls back. A line that ends: the route has had no "
        "traffic since, or detection has learnt a new baseline.",
        queries.evidence_since(),
        unit="none",
        no_value="no evidence of these places in this range: choose a range that spans the incident",
        options=timeseries_options(legend_calcs=("max", "lastNotNull")),
        defaults={"decimals": 1, "displayName": "${__field.labels.place}"},
        custom=lines(width=1),
    )


def heads() -> Json:
    """Return the heads that it names."""
    return panel(
        "table",
        "Heads",
        "The heads that moved most when the chosen incident opened, frozen then: mean in the baseline, mean since the change "
        "began, effect in standard deviations of a window. They are ranked and not tested one by one. Canaries and incidents "
        "of telemetry or traffic name none.",
        queries.heads(),
        unit="none",
        no_value="no such incident, or one that names no heads",
        options=table_options(),
        overrides=[
            override("before", {"decimals": 3}),
            override("after", {"decimals": 3}),
            override("effect", {"decimals": 1}),
        ],
    )


def documents() -> Json:
    """Return the documents that it names."""
    return panel(
        "table",
        "Documents",
        "Documents that stand out in the requests of the chosen incident: how many of its example requests had each, and the "
        "share of attention that it drew before and since. A document that is new in the list was not retrieved before; a "
        "share that rose says that it is read, not that it is wrong. Names may be hashed (privacy.hash).",
        queries.documents(),
        unit="none",
        no_value="no such incident, or one that names no documents",
        options=table_options(),
        overrides=[
            override("share before", {"unit": "percentunit", "decimals": 1, "custom.width": 110}),
            override("share after", {"unit": "percentunit", "decimals": 1, "custom.width": 110}),
            override("requests", {"decimals": 0, "custom.width": 80}),
        ],
    )


def requests() -> Json:
    """Return the requests that it names."""
    return panel(
        "table",
        "Requests",
        "Example requests of the chosen incident, frozen at its opening: those that stand out first, routes in turn. "
        "/api/v1/requests has what is kept of one. Examples are few: they say where to look, not how often it happens. The "
        "trace is the caller's own, where a traceparent came in.",
        queries.requests(),
        unit="none",
        no_value="no such incident, or one that names no requests",
        options=table_options(),
        overrides=[
            override("time", {"unit": "dateTimeAsIso", "custom.width": 170}),
            override("grounding ratio", {"decimals": 3, "custom.width": 120}),
            override("incident", {"links": [_to_incident()]}),
        ],
    )
