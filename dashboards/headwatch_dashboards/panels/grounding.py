"""Does the model read its documents, and which?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch_dashboards.grafana import (
    lines,
    override,
    override_matching,
    panel,
    stacked_bars,
    table_options,
    timeseries_options,
)
from headwatch_dashboards.names import ALL_HEADS, RETRIEVAL_HEADS, dashboard_uid
from headwatch_dashboards.queries import grounding

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json

GROUNDING_OVER_TIME = "Grounding ratio by route"
"""Title of the panel that the alert rule opens."""

STATES_OVER_TIME = "Requests by grounding state"
_STATE_COLORS = {"measured": "green", "absent": "blue", "unresolved": "orange"}


def grounding_over_time() -> Json:
    """Return the ratio by route, arm and set of heads."""
    only_this_route: Json = {
        "title": "Only this route",
        "url": f"/d/{dashboard_uid('grounding')}?${{__url_time_range}}&var-route=${{__field.labels.route}}",
        "targetBlank": False,
    }
    return panel(
        "timeseries",
        GROUNDING_OVER_TIME,
        "Mean over the requests that ended in each interval: attention per document token, over that plus attention per "
        "generated token, averaged over generated rows and heads. One line for each route, arm of an experiment and set of "
        "heads. Thick: retrieval heads, chosen by calibration, which tell right from wrong documents best. Thin and dashed: "
        "all heads. A fall on one route at equal prompt length says that the model reads its documents less; it does not "
        "say that answers are wrong. Requests without documents have no point here: see the panel beside.",
        grounding.grounding_over_time(),
        unit="none",
        no_value="no measured request in this range: see 'Could grounding be measured?'",
        options=timeseries_options(legend_calcs=("mean", "lastNotNull")),
        defaults={
            "decimals": 3,
            "displayName": "${__field.labels.route} · ${__field.labels.arm} · ${__field.labels.heads}",
            "links": [only_this_route],
        },
        custom=lines(),
        overrides=[
            override_matching(
                f"{ALL_HEADS}$", {"custom.lineStyle": {"fill": "dash", "dash": [6, 6]}, "custom.lineWidth": 1}
            )
        ],
    )


def states_over_time() -> Json:
    """Return requests by grounding state."""
    return panel(
        "timeseries",
        STATES_OVER_TIME,
        "Sampled requests that ended in each interval, by whether grounding could be measured. When retrieval breaks down "
        "altogether the ratio does not fall, it stops: measured requests turn into absent ones here. Counts are of sampled "
        "requests, not of all traffic.",
        grounding.states_over_time(),
        unit="short",
        no_value="no sampled request in this range",
        options=timeseries_options(),
        defaults={"displayName": "${__field.labels.state}", "min": 0},
        custom=stacked_bars(),
        overrides=[
            override_matching(f"^{state}$", {"color": {"mode": "fixed", "fixedColor": color}})
            for state, color in _STATE_COLORS.items()
        ],
    )


def document_share() -> Json:
    """Return the share of a document by source, beside an equal split."""
    return panel(
        "barchart",
        "Document share by source",
        "For each source, the mean share that one of its documents drew of the attention on all documents of its request, "
        "beside the share that it would have if all documents were read alike (1 / documents). Above its equal split: the "
        "source is preferred. Below: it is retrieved and passed over. Position in the prompt and length of a document move "
        "this too. The 20 sources with the largest share.",
        grounding.document_share(),
        **_bars("source", upright=False),
    )


def share_by_rank() -> Json:
    """Return the share of a document by its place among those of its request."""
    return panel(
        "barchart",
        "Document share by rank",
        "For each place in the order in which clients name their documents (usually that of the retriever's score), the mean "
        "share that the document there drew, beside an equal split. A share that falls with rank is healthy where the "
        "retriever ranks well. One that is high at both ends and low between them is position, not relevance: the model is "
        "lost in the middle. It does not tell the two apart by itself; shuffling documents on an arm does.",
        grounding.share_by_rank(),
        **_bars("rank", upright=True),
    )


def share_by_age() -> Json:
    """Return the share of a document by its age."""
    return panel(
        "barchart",
        "Document share by age",
        "For each age of a document, counted from its retrieved_at to the request, the mean share that it drew, beside an "
        "equal split. Documents of which clients give no retrieved_at are left out. Old documents above their split: answers "
        "rest on them, which is right for a manual and wrong for a price list. It is as good as the clock of whoever wrote "
        "retrieved_at.",
        grounding.share_by_age(),
        **{**_bars("age", upright=True), "no_value": "no document with a retrieved_at in this range"},
    )


def preference_over_time() -> Json:
    """Return how much more than an equal split each source draws, over time."""
    return panel(
        "timeseries",
        "Preference by source",
        "What a document of each source draws over what it would draw if all documents of its request were read alike: 1 is "
        "no preference. A source that falls while the others rise is retrieved and passed over; all of them at 1 means that "
        "the model no longer tells documents apart. It says nothing of how often a source is retrieved.",
        grounding.share_by_source_over_time(),
        unit="none",
        no_value="no document was found in a prompt in this range",
        options=timeseries_options(legend_calcs=("mean", "lastNotNull")),
        defaults={"decimals": 2, "min": 0, "displayName": "${__field.labels.source}"},
        custom=lines(),
    )


def _bars(name: str, *, upright: bool) -> dict[str, Any]:
    """Return what panels of shares beside an equal split have in common; *name* is the column that names the bars."""
    return {
        "unit": "percentunit",
        "no_value": "no document was found in a prompt in this range",
        "options": {
            "orientation": "vertical" if upright else "horizontal",
            "xField": name,
            "showValue": "auto",
            "stacking": "none",
            "groupWidth": 0.7,
            "barWidth": 0.9,
            "barRadius": 0,
            "fullHighlight": False,
            "xTickLabelMaxLength": 30,
            "xTickLabelRotation": 0,
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        "defaults": {"min": 0, "decimals": 1},
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "overrides": [override("equal split", {"color": {"mode": "fixed", "fixedColor": "gray"}})],
    }


def least_grounded_requests() -> Json:
    """Return the requests to look at first."""
    return panel(
        "table",
        "Least grounded requests",
        "The 20 measured requests with the lowest ratio in the range, by retrieval heads where the model has a head map, "
        "else by all heads. Where to start reading, not a list of wrong answers: there is always a lowest 20. Documents "
        "found fewer than named: the prompt does not contain their text.",
        grounding.least_grounded_requests(),
        unit="none",
        no_value="no measured request in this range",
        options=table_options(),
        overrides=[
            override("time", {"unit": "dateTimeAsIso", "custom.width": 170}),
            override(RETRIEVAL_HEADS, {"decimals": 3, "custom.width": 120}),
            override(ALL_HEADS, {"decimals": 3, "custom.width": 90}),
            override("document mass", {"unit": "percentunit", "decimals": 1, "custom.width": 120}),
            override("prompt tokens", {"unit": "short", "decimals": 0, "custom.width": 110}),
        ],
    )
