"""Has anything changed, how near is that to a page, and do the fixed prompts still answer as they did?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_dashboards.grafana import (
    lines,
    override_matching,
    panel,
    stat_options,
    thresholds,
    timeseries_options,
    value_names,
)
from headwatch_dashboards.queries import drift

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json

CANARY_DEVIATION = "Canary deviation"
"""Title of the panel that the alert rule opens."""


def detection_state() -> Json:
    """Return what detection does."""
    return panel(
        "stat",
        "Detection",
        "What drift detection last said of itself. Warming up: the baseline is shorter than its minimum, and nothing pages yet "
        "(/api/v1/drift says from when on). Shadow: what would have paged is recorded and wakes nobody. Off: drift.enabled "
        "is false. Watching does not mean that all is well: see the incidents beside.",
        drift.detection_state(),
        unit="none",
        no_value="nothing said in this range",
        defaults={
            "mappings": [value_names({
                "watching": ("Watching", "green"), "warming_up": ("Warming up", "blue"), "shadow": ("Shadow", "purple"),
                "off": ("Off", "orange"),
            })],
            "thresholds": thresholds("text"),
            "color": {"mode": "thresholds"},
        },
        options={**stat_options(), "reduceOptions": {"calcs": ["lastNotNull"], "fields": "/.*/", "values": False}},
    )  # fmt: skip


def clock_over_time() -> Json:
    """Return the clock under the line where it pages."""
    return panel(
        "timeseries",
        "Clock",
        "Evidence of all features, signals and strata together, as a power of ten, and the line where it pages. The line is "
        "the promised mean time between false alarms (drift.false_alarm_days), and no threshold that somebody chose. After a "
        "page it starts again at zero. Half way up is nothing: evidence comes and goes. docs/method.md says where the promise "
        "ends.",
        drift.clock_over_time(),
        unit="none",
        no_value="drift detection said nothing in this range",
        options=timeseries_options(legend_calcs=("max", "lastNotNull")),
        defaults={"decimals": 1, "min": 0},
        custom=lines(),
        overrides=[
            override_matching("^pages at$", {
                "color": {"mode": "fixed", "fixedColor": "red"}, "custom.lineStyle": {"fill": "dash", "dash": [8, 6]},
                "custom.showPoints": "never",
            }),
        ],
    )  # fmt: skip


def evidence_over_time() -> Json:
    """Return the evidence of single places."""
    return panel(
        "timeseries",
        "Evidence by place",
        "log10 of the evidence for a change in one place: a feature of the heads of a stratum, or a signal of retrieval on a "
        "route; the twelve that reached most in the range. It tells where a change is, and pages nobody by itself: with many "
        "places some are always high. The stratum reads model | revision | adapter | route | context | phase.",
        drift.evidence_over_time(),
        unit="none",
        no_value="no evidence in this range: see 'Detection'",
        options=timeseries_options(legend_calcs=("max",)),
        defaults={"decimals": 1, "displayName": "${__field.labels.place}"},
        custom=lines(width=1),
    )


def canary_deviation() -> Json:
    """Return the deviation of each canary."""
    return panel(
        "timeseries",
        CANARY_DEVIATION,
        "Fixed prompts through the server: the largest deviation of any head from the pinned fingerprint, over what noise of "
        "this engine and dtype may reach. Above 1 a run fails, and the model, its precision or its template has changed: "
        "traffic and retrieval cannot move it. No line: no canaries are sent (canary.endpoint), or they fail to be sent, "
        "which is no drift: headwatch.canary.failures says why.",
        drift.canary_deviation(),
        unit="none",
        no_value="no canary ran in this range",
        options=timeseries_options(legend_calcs=("max", "lastNotNull")),
        defaults={
            "decimals": 2, "min": 0, "displayName": "${__field.labels.prompt}",
            "thresholds": thresholds("transparent", (1, "red")),
        },
        custom={**lines(gap_seconds=1800), "thresholdsStyle": {"mode": "line"}},
    )  # fmt: skip
