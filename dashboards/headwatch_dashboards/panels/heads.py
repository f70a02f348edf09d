"""Which heads read documents, and which stopped?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch_dashboards.grafana import lines, override, panel, table_options, thresholds, timeseries_options
from headwatch_dashboards.queries import heads

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json

MATRIX_CORNER = "layer\\head"
"""How Grafana's groupingToMatrix names the column of row labels: row field, backslash, column field."""


def head_grounding() -> Json:
    """Return the heatmap of layers and heads.

    It is a table whose cells are coloured: Grafana's heatmap and status history panels have time on their x axis, and its
    xy chart has points instead of cells.  ``groupingToMatrix`` turns (layer, head, value) rows into one row for each layer
    and one column for each head, however many a model has.
    """
    return panel(
        "table",
        "Grounding by layer and head",
        "Mean lookback of each head over the sampled rows of the range: attention per document token, over that plus "
        "attention per generated token. One row for each layer, one column for each head; route, model and phase as "
        "chosen above. A few bright heads carry retrieval; most heads never read documents, and are none the worse for it. "
        "Choose one model: heads of different models have nothing in common but their number. Heatmap panels of Grafana "
        "need time on one axis, so this one is a coloured table.",
        heads.head_grounding(),
        **_matrix("lookback"),
    )


def feature_before() -> Json:
    """Return the chosen feature of each layer and head in the earlier half of the range."""
    return panel(
        "table",
        "Feature by layer and head: earlier half",
        "Mean of the chosen feature of each head over the sampled rows of the earlier half of what the range holds, one row "
        "for each layer, one column for each head. All features are shares between 0 and 1 (entropy and distance over the "
        "most that they can be). Choose a range that spans the moment you suspect, and compare with the map on the right, "
        "cell by cell.",
        heads.feature_of_heads("<"),
        **_matrix("mean"),
    )


def feature_after() -> Json:
    """Return the chosen feature of each layer and head in the later half of the range."""
    return panel(
        "table",
        "Feature by layer and head: later half",
        "The same map over the later half. Cells of a row or a column that changed together point to a layer or to the "
        "template, single ones to noise or to a head that incidents name. Traffic may have differed: at another length of "
        "prompts or mix of routes every head moves a little. Whether it is more than that, detection decides at equal length "
        "and position, and not the eye.",
        heads.feature_of_heads(">="),
        **_matrix("mean"),
    )


def feature_by_layer() -> Json:
    """Return the chosen feature of each layer over time."""
    return panel(
        "timeseries",
        "Feature by layer over time",
        "Mean of the chosen feature over the heads of each layer in each interval. Averages over heads hide heads: a layer "
        "whose line is flat may hold one head that stopped reading and another that began. The moment at which several layers "
        "bend together is what to look for; the marks are releases and incidents.",
        heads.feature_by_layer(),
        unit="none",
        no_value="no row of this phase with this feature in this range",
        options=timeseries_options(),
        defaults={"decimals": 3, "min": 0, "displayName": "${__field.labels.layer}", "color": {"mode": "continuous-viridis"}},
        custom=lines(width=1),
    )


def _matrix(value: str) -> dict[str, Any]:
    """Return what a map of layers and heads consists of; *value* is the column that colours the cells."""
    return {
        "unit": "none",
        "no_value": "no row of this phase with this feature in this range",
        "options": table_options(),
        "defaults": {"decimals": 2, "min": 0, "max": 1, "color": {"mode": "continuous-viridis"}},
        "custom": {"cellOptions": {"type": "color-background", "mode": "gradient"}, "align": "center", "minWidth": 50},
        "transformations": [
            {
                "id": "groupingToMatrix",
                "options": {"columnField": "head", "rowField": "layer", "valueField": value, "emptyValue": "null"},
            }
        ],
        "overrides": [
            override(
                MATRIX_CORNER,
                {"custom.cellOptions": {"type": "auto"}, "custom.width": 90, "decimals": 0, "displayName": "layer"},
            )
        ],
    }


def worst_heads() -> Json:
    """Return the heads whose lookback fell most within the range."""
    return panel(
        "table",
        "Heads that fell most",
        "Lookback of each head in the later half of the measured requests of the range against the earlier half; effect is "
        "the change in standard deviations of single requests. Choose a range that spans the moment you suspect. There are "
        "always heads at the top of such a list: below -1 is worth a look, and only if routes and prompt lengths are the "
        "same in both halves. Heads are ranked, not tested.",
        heads.worst_heads(),
        unit="none",
        no_value="fewer than four measured requests in this range",
        options=table_options(),
        overrides=[
            override("before", {"decimals": 3}),
            override("after", {"decimals": 3}),
            override(
                "effect",
                {
                    "decimals": 2,
                    "color": {"mode": "thresholds"},
                    "thresholds": thresholds("red", (-1, "orange"), (-0.5, "text")),
                    "custom.cellOptions": {"type": "color-text"},
                },
            ),
        ],
    )
