"""Has anything changed, how near is that to a page, and do the fixed prompts still answer as they did?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwatch_dashboards.grafana import (
    lines,
    override,
    override_matching,
    panel,
    stat_options,
    table_options,
    thresholds,
    timeseries_options,
    value_names,
)
from headwatch_dashboards.queries import drift

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json

_OUTCOMES = {"failed": ("Failed", "red"), "passed": ("Passed", "green")}
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


def effects() -> Json:
    """Return the size of each change beside its evidence."""
    return panel(
        "table",
        "Effect sizes",
        "What each place last said: evidence (log10), the mean before and since the change, and the effect in standard "
        "deviations of the baseline's windows. Much evidence for a small effect is a small change that lasted; a large effect "
        "without evidence is noise or news. Places are a feature of the heads of a stratum, or a signal of retrieval on a "
        "route. Only the clock pages: with many places some are always high.",
        drift.effects(),
        unit="none",
        no_value="no evidence in this range: see 'Detection'",
        options=table_options(),
        overrides=[
            override("evidence", {"decimals": 2, "custom.width": 90}),
            override("before", {"decimals": 3, "custom.width": 90}),
            override("after", {"decimals": 3, "custom.width": 90}),
            override("effect", {"decimals": 2, "custom.width": 80}),
            override("since", {"unit": "dateTimeAsIso", "custom.width": 170}),
        ],
    )  # fmt: skip


def strata() -> Json:
    """Return what is watched where."""
    return panel(
        "table",
        "Strata",
        "What must be equal before two numbers are compared: model, revision, adapter, route, band of prompt length and phase; "
        "signals of retrieval are watched by route. How many features and signals are watched in each, and the most evidence "
        "among them. A stratum that is missing here has had too few rows for a baseline, and nothing in it can page.",
        drift.strata(),
        unit="none",
        no_value="no evidence in this range: see 'Detection'",
        options=table_options(),
        overrides=[
            override("watched", {"decimals": 0, "custom.width": 80}),
            override("most evidence", {"decimals": 2, "custom.width": 120}),
            override("last window", {"unit": "dateTimeAsIso", "custom.width": 170}),
        ],
    )


def baselines() -> Json:
    """Return the baselines that are and were in force."""
    return panel(
        "table",
        "Baselines in force",
        "What detection compares with, the latest first: learnt by itself, pinned by a person (`headwatch baseline`), or "
        "learnt anew after a planned release. A baseline that was made while something was wrong hides just that. One that "
        "began before the range is shown as well: it may be the one in force.",
        drift.baselines(),
        unit="none",
        no_value="no baseline was in force yet: detection is warming up",
        options=table_options(),
        overrides=[
            override("in force since", {"unit": "dateTimeAsIso", "custom.width": 170}),
            override("created", {"unit": "dateTimeAsIso", "custom.width": 170}),
            override("version", {"decimals": 0, "custom.width": 80}),
            override("windows", {"decimals": 0, "custom.width": 80}),
        ],
    )


def fingerprints() -> Json:
    """Return the fingerprints that are and were in force."""
    return panel(
        "table",
        "Fingerprints in force",
        "What canaries are compared with, the latest first, and of which model, revision and dtype it was taken. Exact: this "
        "engine repeats itself to the last bit, so any deviation counts. After a release that was meant, the old one makes "
        "every run fail until `headwatch canary pin` takes a new one.",
        drift.fingerprints(),
        unit="none",
        no_value="no fingerprint was pinned yet",
        options=table_options(),
        overrides=[
            override("in force since", {"unit": "dateTimeAsIso", "custom.width": 170}),
            override("runs", {"decimals": 0, "custom.width": 70}),
        ],
    )


def canary_layers() -> Json:
    """Return the deviation of canaries by layer."""
    return panel(
        "table",
        "Canary deviation by layer",
        "The largest deviation from the fingerprint of a head that a run names, by layer, over the runs of the range; one row "
        "for each prompt. A change of weights begins at the layer where they changed and spreads to all later ones; one of "
        "precision is everywhere and small; one of the template begins at the first layer. Layers without a named head are "
        "empty, which is not zero.",
        drift.canary_layers(),
        unit="none",
        no_value="no canary deviated in this range",
        options=table_options(),
        defaults={"decimals": 6, "min": 0, "color": {"mode": "continuous-YlRd"}},
        custom={"cellOptions": {"type": "color-background", "mode": "gradient"}, "align": "center", "minWidth": 50},
        transformations=[
            {
                "id": "groupingToMatrix",
                "options": {"columnField": "layer", "rowField": "prompt", "valueField": "deviation", "emptyValue": "null"},
            }
        ],
        overrides=[
            override("prompt\\layer", {"custom.cellOptions": {"type": "auto"}, "custom.width": 120, "displayName": "prompt"})
        ],
    )


def canary_runs() -> Json:
    """Return the runs of canaries."""
    return panel(
        "table",
        "Canary runs",
        "Runs of fixed prompts in the range, failed ones first. 'Of what it may' above 1 fails. The layer is the earliest that "
        "departs, and the hint is what such a pattern has meant so far; both are evidence and no proof. A run that could "
        "not be completed is not here: see headwatch.canary.failures under capture health.",
        drift.canary_runs(),
        unit="none",
        no_value="no canary ran in this range",
        options=table_options(),
        overrides=[
            override("time", {"unit": "dateTimeAsIso", "custom.width": 170}),
            override("outcome", {"mappings": [value_names(_OUTCOMES)], "custom.cellOptions": {"type": "color-text"},
                                 "custom.width": 90}),
            override("of what it may", {"decimals": 2, "custom.width": 110}),
            override("from layer", {"decimals": 0, "custom.width": 90}),
        ],
    )  # fmt: skip


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
