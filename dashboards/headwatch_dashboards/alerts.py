"""The alert rules, as Grafana's provisioning reads them: incidents, canaries that do not run, and the grounding of a route.

They are written as text, because most of what they hold is comments for the operator who will edit them.  One cause, one page:
the rule on incidents fires only where ``incident.route`` is ``grafana``; the one on canaries tells of what opens no incident;
the one on grounding is delivered paused, because a fall of grounding opens an incident as well.
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, NamedTuple

from headwatch_dashboards.names import (
    ALERT_UID,
    CANARY_ALERT_UID,
    DATASOURCE_PLUGIN_VERSION,
    DATASOURCE_TYPE,
    DATASOURCE_UID,
    FOLDER,
    INCIDENT_ALERT_UID,
    RUNBOOK,
    RUNBOOKS,
)
from headwatch_dashboards.provisioning import HEADER
from headwatch_dashboards.queries.alert import (
    ALWAYS_ROUTE,
    CANARY_INTERVALS,
    CANARY_RANGE_SECONDS,
    INCIDENT_RANGE_SECONDS,
    MINIMUM_REQUESTS,
    RANGE_SECONDS,
    RECENT_SECONDS,
    canaries_behind,
    grounding_drop,
    paging_incidents,
)

if TYPE_CHECKING:
    from headwatch_dashboards.grafana import Json


_RESTS = """                  # Once firing it rests only when half of the drop is made up.
                  unloadEvaluator:
                    type: lt
                    params: [0.5]
"""


class Place(NamedTuple):
    """A panel."""

    dashboard_uid: str
    panel_id: int


def alert_yaml(incident: Place, canary: Place, grounding: Place) -> str:
    """Return the rules; each opens its panel."""
    return f"""{HEADER}apiVersion: 1
groups:
  - orgId: 1
    name: headwatch
    folder: {FOLDER}
    interval: 1m
    rules:
{_incident_rule(incident)}{_canary_rule(canary)}{_grounding_rule(grounding)}"""


def _incident_rule(place: Place) -> str:
    return f"""      - uid: {INCIDENT_ALERT_UID}
        title: "headwatch: incident"
        # One alert for each incident that is not resolved and not silenced, where incident.route = "grafana" in headwatch.toml;
        # silent where another route pages. Its labels: incident, class, severity, model, route.
        condition: C
        for: 0s
        # The query always returns a row that is 0, so no data means that something else is broken: that must not resolve
        # what was firing. An error of the store must not look like an incident.
        noDataState: KeepLast
        execErrState: Error
        isPaused: false
        dashboardUid: {place.dashboard_uid}
        panelId: {place.panel_id}
        labels:
          component: headwatch
        annotations:
          summary: >-
            [{{{{ $labels.severity }}}}] {{{{ $labels.class }}}}: {{{{ $labels.incident }}}} on {{{{ $labels.model }}}}
            {{{{ $labels.route }}}}
          description: >-
            `headwatch incident show {{{{ $labels.incident }}}}` has what happened, how sure that is, and the heads, documents
            and requests to look at.
          runbook_url: {RUNBOOKS}/{{{{ $labels.class }}}}.md
        data:
{_query(paging_incidents(), INCIDENT_RANGE_SECONDS)}{_threshold(0.5)}"""


def _canary_rule(place: Place) -> str:
    return f"""      - uid: {CANARY_ALERT_UID}
        title: "headwatch: canaries do not run"
        # A sidecar that sends canaries (canary.endpoint) has not completed a run for more than {CANARY_INTERVALS} intervals,
        # though a worker captures: so the server is there and refuses them, does not answer in time, or their rows do not
        # arrive. Where no worker captures an incident of telemetry says so, and this rule rests.
        condition: C
        for: 5m
        # The query always returns the row of sidecar "{ALWAYS_ROUTE}", so no data means that something else is broken.
        noDataState: KeepLast
        execErrState: Error
        isPaused: false
        dashboardUid: {place.dashboard_uid}
        panelId: {place.panel_id}
        labels:
          severity: warning
          component: headwatch
        annotations:
          summary: >-
            {{{{ $labels.sidecar }}}} completed its last canary run {{{{ printf "%.0f" $values.B.Value }}}} intervals ago
          description: >-
            A change of the model is not seen by fixed prompts meanwhile, and triage is less sure. It is no drift. Why it fails:
            headwatch_canary_failures_total by reason, and `headwatch canary explain`.
          runbook_url: {RUNBOOKS}/telemetry.md
        data:
{_query(canaries_behind(), CANARY_RANGE_SECONDS)}{_threshold(CANARY_INTERVALS)}"""


def _grounding_rule(place: Place) -> str:
    return f"""      - uid: {ALERT_UID}
        title: "headwatch: grounding of a route fell"
        # Paused: with drift detection on, a fall of grounding opens an incident, and one cause is one page. Take the pause away
        # where drift.enabled = false.
        # The mean grounding ratio of a route over the last {RECENT_SECONDS // 60} minutes lies more than one standard
        # deviation of single requests below that of the six hours before, with at least {MINIMUM_REQUESTS} measured
        # requests on both sides. That is 3.1 standard errors or more. Longer prompts or other questions on the same
        # route can do it too: see the runbook.
        condition: C
        for: 5m
        keepFiringFor: 10m
        # The query always returns the row of route "{ALWAYS_ROUTE}", so no data means that something else is broken:
        # that must not resolve what was firing.
        noDataState: KeepLast
        # An error of the store must not look like a model that stopped reading.
        execErrState: Error
        isPaused: true
        dashboardUid: {place.dashboard_uid}
        panelId: {place.panel_id}
        labels:
          severity: warning
          component: headwatch
        annotations:
          summary: >-
            Grounding of route {{{{ $labels.route }}}} ({{{{ $labels.model }}}}) fell by
            {{{{ printf "%.1f" $values.B.Value }}}} standard deviations
          description: >-
            The model gives the documents of this route less attention than in the six hours before. It does not say why:
            retrieval may return the wrong documents, prompts may have grown, the model or its template may have changed.
          runbook_url: {RUNBOOK}
        data:
{_query(grounding_drop(), RANGE_SECONDS)}{_threshold(1)}{_RESTS}"""


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
                    params: [{limit}]
"""
