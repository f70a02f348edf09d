"""The alert rules, as Grafana's provisioning reads them: incidents, and what headwatch says of itself.

They are written as text, because much of what they hold is comments for the operator who will edit them.  One cause, one
page: the rule on incidents fires only where ``incident.route`` is ``grafana``; those beside it tell of what opens no incident;
those on grounding, retrieval and capture are delivered paused, because with drift detection on each opens an incident as well.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from headwatch.health import SPOOL_FULL
from headwatch_dashboards.names import (
    ALERT_UID,
    CANARY_ALERT_UID,
    CAPTURE_ALERT_UID,
    DATASOURCE_PLUGIN_VERSION,
    DATASOURCE_TYPE,
    DATASOURCE_UID,
    FOLDER,
    INCIDENT_ALERT_UID,
    INCIDENT_VARIABLE,
    RETRIEVAL_ALERT_UID,
    RUNBOOK,
    RUNBOOKS,
    SPOOL_ALERT_UID,
    STALE_ALERT_UID,
    dashboard_uid,
)
from headwatch_dashboards.panels.drift import CANARY_DEVIATION
from headwatch_dashboards.panels.grounding import GROUNDING_OVER_TIME, STATES_OVER_TIME
from headwatch_dashboards.panels.health import SPOOL_SHARE
from headwatch_dashboards.panels.incidents import INCIDENTS
from headwatch_dashboards.panels.overview import CAPTURE, NEWEST_REPORT
from headwatch_dashboards.provisioning import HEADER
from headwatch_dashboards.queries import alert

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch_dashboards.grafana import Json


class Place(NamedTuple):
    """A panel: the slug of its dashboard, and its title."""

    board: str
    panel: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.  It fires where the last value of its query is above *limit*."""

    uid: str
    title: str
    comment: str
    """What an operator who edits the file should know."""
    place: Place
    """The panel that it opens."""
    sql: str
    seconds: int
    """Range of the query."""
    limit: float
    summary: str
    description: str
    runbook_url: str
    wait: str = "5m"
    keep: str = ""
    labels: dict[str, str] = field(default_factory=lambda: {"severity": "warning", "component": "headwatch"})
    paused: bool = False
    rests_below: float | None = None
    """Once firing it rests below this."""
    more: dict[str, str] = field(default_factory=dict)
    """Further annotations."""


_PAUSED = (
    "Paused: with drift detection on, {} opens an incident, and one cause is one page. Take the pause away where "
    "drift.enabled = false."
)
_ALWAYS = (
    f'The query always returns the row "{alert.ALWAYS_ROUTE}", so no data means that something else is broken: that must not '
    "resolve what was firing. An error of the store must not look like what the rule watches."
)

RULES: tuple[Rule, ...] = (
    Rule(
        INCIDENT_ALERT_UID, "headwatch: incident",
        'One alert for each incident that is not resolved and not silenced, where incident.route = "grafana" in '
        "headwatch.toml; "
        "silent where another route pages. Its labels: incident, class, severity, model, route, heads.",
        Place("overview", INCIDENTS), alert.paging_incidents(), alert.INCIDENT_RANGE_SECONDS, 0.5,
        summary="[{{ $labels.severity }}] {{ $labels.class }}: {{ $labels.incident }} on {{ $labels.model }} "
                "{{ $labels.route }}",
        description="Heads: {{ $labels.heads }}. `headwatch incident show {{ $labels.incident }}` has what happened, how "
                    "sure that is, and the heads, documents and requests to look at.",
        runbook_url=f"{RUNBOOKS}/{{{{ $labels.class }}}}.md",
        wait="0s", labels={"component": "headwatch"},
        more={"incident_url": f"/d/{dashboard_uid('incident')}?var-{INCIDENT_VARIABLE}={{{{ $labels.incident }}}}"},
    ),
    Rule(
        CANARY_ALERT_UID, "headwatch: canaries do not run",
        f"A sidecar that sends canaries (canary.endpoint) has not completed a run for more than {alert.CANARY_INTERVALS} "
        "intervals, "
        "though a worker captures: so the server is there and refuses them, does not answer in time, or their rows do not "
        "arrive. Where no worker captures an incident of telemetry says so, and this rule rests.",
        Place("canaries", CANARY_DEVIATION), alert.canaries_behind(), alert.CANARY_RANGE_SECONDS, alert.CANARY_INTERVALS,
        summary='{{ $labels.sidecar }} completed its last canary run {{ printf "%.0f" $values.B.Value }} intervals ago',
        description="A change of the model is not seen by fixed prompts meanwhile, and triage is less sure. It is no drift. "
                    "Why it fails: headwatch_canary_failures_total by reason, and `headwatch canary explain`.",
        runbook_url=f"{RUNBOOKS}/telemetry.md",
    ),
    Rule(
        STALE_ALERT_UID, "headwatch: data is stale",
        "A sidecar that reported in the last day has written nothing to the store for five minutes: it is down, or its way to "
        "the store is. Rests a day after a service ended on purpose.",
        Place("overview", NEWEST_REPORT), alert.data_stale(), alert.STALE_RANGE_SECONDS, alert.STALE_SECONDS,
        summary='{{ $labels.service }} wrote to the store for the last time {{ printf "%.0f" $values.B.Value }} seconds ago',
        description="Dashboards show the past, and rules that read the store see nothing new. vLLM does not need the sidecar "
                    "and goes on. What the sidecar could not deliver waits in its spool.",
        runbook_url=f"{RUNBOOKS}/telemetry.md", keep="5m",
    ),
    Rule(
        SPOOL_ALERT_UID, "headwatch: spool is filling",
        f"The spool of a sidecar takes more than {SPOOL_FULL:.0%} of its room. When it is full the oldest deliveries are "
        "dropped and "
        "counted. Where the store is away altogether this figure is as well: the rule on stale data fires then.",
        Place("health", SPOOL_SHARE), alert.spool_filling(), alert.CANARY_RANGE_SECONDS, SPOOL_FULL,
        summary='The spool of {{ $labels.sidecar }} takes {{ printf "%.2f" $values.B.Value }} of its room',
        description="The store takes less than arrives. See to the store, or raise spool.max_bytes; nothing is lost until "
                    "it is full.",
        runbook_url=f"{RUNBOOKS}/telemetry.md", keep="10m",
    ),
    Rule(
        CAPTURE_ALERT_UID, "headwatch: capture is down",
        f"{_PAUSED.format('capture that is down')} The last word of a worker, or the sidecar's about it, is that it does "
        "not capture.",
        Place("overview", CAPTURE), alert.capture_down(), alert.CANARY_RANGE_SECONDS, 0.5,
        summary="{{ $labels.worker }} does not capture",
        description="It is switched off, silent, or its circuit breaker is open: `headwatch doctor` says which. Figures of its "
                    "traffic are missing, and a fall in requests says nothing about traffic.",
        runbook_url=f"{RUNBOOKS}/telemetry.md", keep="5m", paused=True,
    ),
    Rule(
        ALERT_UID, "headwatch: grounding of a route fell",
        f"{_PAUSED.format('a fall of grounding')} The mean grounding ratio of a route over the last "
        f"{alert.RECENT_SECONDS // 60} "
        "minutes lies more than one standard deviation of single requests below that of the six hours before, with at least "
        f"{alert.MINIMUM_REQUESTS} measured requests on both sides. That is 3.1 standard errors or more. Longer prompts or "
        "other "
        "questions on the same route can do it too: see the runbook.",
        Place("grounding", GROUNDING_OVER_TIME), alert.grounding_drop(), alert.RANGE_SECONDS, 1,
        summary="Grounding of route {{ $labels.route }} ({{ $labels.model }}) fell by "
                '{{ printf "%.1f" $values.B.Value }} standard deviations',
        description="The model gives the documents of this route less attention than in the six hours before. It does not "
                    "say why: retrieval may return the wrong documents, prompts may have grown, the model or its template "
                    "may have changed.",
        runbook_url=RUNBOOK, keep="10m", paused=True, rests_below=0.5,
    ),
    Rule(
        RETRIEVAL_ALERT_UID, "headwatch: retrieval is absent",
        f"{_PAUSED.format('absent retrieval')} More than half of the requests of a route in the last "
        f"{alert.RECENT_SECONDS // 60} "
        "minutes named no document, at least a quarter more than in the six hours before, with at least "
        f"{alert.MINIMUM_REQUESTS} requests on both sides.",
        Place("grounding", STATES_OVER_TIME), alert.retrieval_absent(), alert.RANGE_SECONDS, 0.5,
        summary='{{ printf "%.2f" $values.B.Value }} of the requests of route {{ $labels.route }} ({{ $labels.model }}) '
                "come without "
                "documents",
        description="Retrieval returns nothing, or a client stopped naming documents. The grounding ratio does not show "
                    "it: it stops.",
        runbook_url=f"{RUNBOOKS}/retrieval.md", keep="10m", paused=True,
        labels={"severity": "critical", "component": "headwatch"},
    ),
)  # fmt: skip
"""All of them, what pages for drift first."""


def alert_yaml(panel_of: Callable[[Place], int]) -> str:
    """Return the rules; *panel_of* knows the id of a panel."""
    listed = "".join(_rule(rule, panel_of(rule.place)) for rule in RULES)
    return f"""{HEADER}apiVersion: 1
groups:
  - orgId: 1
    name: headwatch
    folder: {FOLDER}
    interval: 1m
    rules:
{listed}"""


def _rule(rule: Rule, panel_id: int) -> str:
    annotations = {
        "summary": rule.summary, "description": rule.description, "runbook_url": rule.runbook_url, **rule.more,
    }  # fmt: skip
    lines = [
        f"- uid: {rule.uid}",
        f"  title: {json.dumps(rule.title)}",
        *_comment(rule.comment),
        "  condition: C",
        f"  for: {rule.wait}",
        *([f"  keepFiringFor: {rule.keep}"] if rule.keep else []),
        *_comment(_ALWAYS),
        "  noDataState: KeepLast",
        "  execErrState: Error",
        f"  isPaused: {json.dumps(rule.paused)}",
        f"  dashboardUid: {dashboard_uid(rule.place.board)}",
        f"  panelId: {panel_id}",
        "  labels:",
        *(f"    {name}: {value}" for name, value in rule.labels.items()),
        "  annotations:",
        *(line for name, value in annotations.items() for line in _folded(name, value)),
        "  data:",
    ]
    text = "".join(f"      {line}\n" for line in lines)
    return f"{text}{_query(rule.sql, rule.seconds)}{_threshold(rule.limit)}{_rests(rule.rests_below)}"


def _comment(text: str) -> list[str]:
    return [f"  # {line}" for line in textwrap.wrap(" ".join(text.split()), 110)]


def _folded(name: str, value: str) -> list[str]:
    """Return an annotation as YAML that folds; its templates may not be split, so that each stays in one line."""
    kept = value.replace("{{ ", "{{\u00a0").replace(" }}", "\u00a0}}").replace('"%', '"%').replace(" $", "\u00a0$")
    wrapped = textwrap.wrap(kept, 110, break_long_words=False, break_on_hyphens=False)
    return [f"    {name}: >-", *(f"      {line}".replace("\u00a0", " ") for line in wrapped)]


def _rests(limit: float | None) -> str:
    return "" if limit is None else f"""                  # Once firing it rests only when half of the drop is made up.
                  unloadEvaluator:
                    type: lt
                    params: [{limit:g}]
"""


def alert_model(sql: str) -> Json:
    """Return the query of a rule as the plugin reads it.  Macros only: alert queries know no dashboard variables."""
    return {
        "refId": "A",
        "datasource": {"type": DATASOURCE_TYPE, "uid": DATASOURCE_UID},
        "editorType": "sql",
        "queryType": "timeseries",
        "format": 0,
        "rawSql": sql,
        "pluginVersion": DATASOURCE_PLUGIN_VERSION,
        "intervalMs": 60000,
        "maxDataPoints": 1000,
    }


def _query(sql: str, seconds: int) -> str:
    model = alert_model(sql)
    rest = "\n".join(f"              {key}: {json.dumps(value)}" for key, value in model.items() if key != "rawSql")
    return f"""          - refId: A
            relativeTimeRange:
              from: {seconds}
              to: 0
            datasourceUid: {DATASOURCE_UID}
            model:
{rest}
              rawSql: |-
{textwrap.indent(sql, " " * 16)}
"""


def _threshold(limit: float) -> str:
    """Return the reduction to the last value, and the threshold that it must be above."""
    return f"""          - refId: B
            datasourceUid: __expr__
            model:
              refId: B
              type: reduce
              expression: A
              reducer: last
          - refId: C
            datasourceUid: __expr__
            model:
              refId: C
              type: threshold
              expression: B
              conditions:
                - evaluator:
                    type: gt
                    params: [{limit:g}]
"""
