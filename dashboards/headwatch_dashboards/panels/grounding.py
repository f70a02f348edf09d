"""Does the model read its documents, and which?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_dashboards.grafana import (
    lines,
    override,
    override_matching,
    panel,
    stacked_bars,
    table_options,
    timeseries_options,
)
from headwatch_dashboards.names import ALL_HEADS, DASHBOARD_UID, RETRIEVAL_HEADS
from headwatch_dashboards.queries import grounding

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json

GROUNDING_OVER_TIME = "Grounding ratio by route"
"""Title of the panel that the alert rule opens."""

_STATE_COLORS = {"measured": "green", "absent": "blue", "unresolved": "orange"}


def grounding_over_time() -> Json:
    """Return the ratio by route, arm and set of heads."""
    only_this_route: Json = {
        "title": "Only this route",
        "url": f"/d/{DASHBOARD_UID}?${{__url_time_range}}&var-route=${{__field.labels.route}}",
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
        "Requests by grounding state",
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
        unit="percentunit",
        no_value="no document was found in a prompt in this range",
        options={
            "orientation": "horizontal",
            "xField": "source",
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
        defaults={"min": 0, "decimals": 1},
        custom={"fillOpacity": 80, "lineWidth": 0},
        overrides=[
            override("equal split", {"color": {"mode": "fixed", "fixedColor": "gray"}}),
        ],
    )


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
