"""What happened, which heads, was the page right, and what was released?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_dashboards.grafana import override, panel, table_options, value_names
from headwatch_dashboards.names import RUNBOOKS
from headwatch_dashboards.queries import incidents as queries

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json

INCIDENTS = "Incidents"
"""Title of the panel that the alert rule opens."""

_STATES = {"open": ("Open", "red"), "acknowledged": ("Acknowledged", "orange"), "resolved": ("Resolved", "green")}
_SEVERITIES = {"critical": ("Critical", "red"), "warning": ("Warning", "orange"), "info": ("Info", "blue")}


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
