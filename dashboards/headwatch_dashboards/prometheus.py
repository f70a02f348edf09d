"""The alert rules for Prometheus, with the same meaning as those for Grafana, and an example of routes for Alertmanager.

One cause, one page: *HeadwatchIncident* pages for drift, of any class, and only where ``incident.route`` is ``prometheus``.
The others watch headwatch itself.  Those on grounding and retrieval come in a file of their own, for who runs without drift
detection: with it, either opens an incident.

``keep_firing_for`` covers a scrape that failed or a sidecar that starts again: an alert that goes and comes back is a second
page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwatch.health import SPOOL_FULL, SPOOL_LATE_SECONDS
from headwatch.metrics import (
    ATTR_CLASS,
    ATTR_INCIDENT,
    ATTR_INCIDENT_HEADS,
    ATTR_MODEL,
    ATTR_ROLE,
    ATTR_ROUTE,
    ATTR_SEVERITY,
    ATTR_STATE,
    metric,
)
from headwatch_dashboards.names import INCIDENT_VARIABLE, RUNBOOKS, dashboard_uid
from headwatch_dashboards.provisioning import HEADER
from headwatch_dashboards.queries.alert import CANARY_INTERVALS

if TYPE_CHECKING:
    from collections.abc import Sequence

GRAFANA_URL = "http://localhost:3000"
"""Where links lead; `headwatch dashboards build --grafana-url` sets another."""
JOB = "headwatch"
"""``job_name`` of the scrape that docs/dashboards.md shows."""
LEAST_ROWS = 20
"""Requests on either side, below which a share or a mean says nothing."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert."""

    name: str
    expression: str
    wait: str
    """How long it must hold before it fires: ``for``."""
    keep: str
    """How long it fires on: ``keep_firing_for``."""
    severity: str
    summary: str
    description: str
    runbook: str
    """Name of its runbook, without the extension."""
    board: str
    """Where its link leads: a dashboard's slug, and what comes behind it."""
    labels: dict[str, str] = field(default_factory=dict)
    why: str = ""
    """What an operator who edits the file should know."""


def _label(attribute: str) -> str:
    return attribute.replace(".", "_")


def _value(attribute: str) -> str:
    """Return the template of a label's value."""
    return f"{{{{ $labels.{_label(attribute)} }}}}"


def _query_value(attribute: str) -> str:
    """Return the template of a label's value within an address: clients choose names, and one may end a parameter."""
    return f"{{{{ $labels.{_label(attribute)} | urlquery }}}}"


def _name(short: str) -> str:
    return metric(short).prometheus_name


def drift_rules() -> tuple[Rule, ...]:
    """Return the rule on incidents."""
    incident = _value(ATTR_INCIDENT)
    return (
        Rule(
            "HeadwatchIncident",
            f"{_name('incident.paging')} == 1",
            wait="0m", keep="5m", severity=_value(ATTR_SEVERITY),
            summary=f"[{_value(ATTR_SEVERITY)}] {_value(ATTR_CLASS)}: {incident} on {_value(ATTR_MODEL)} {_value(ATTR_ROUTE)}",
            description=f"Heads: {_value(ATTR_INCIDENT_HEADS)}. `headwatch incident show {incident}` has what happened, how "
                        f"sure "
                        "that is, and the heads, documents and requests to look at.",
            runbook=_value(ATTR_CLASS), board=f"incident?var-{INCIDENT_VARIABLE}={incident}",
            labels={
                "class": _value(ATTR_CLASS), "incident": incident, "route": _value(ATTR_ROUTE), "model": _value(ATTR_MODEL),
            },
            why='One alert for each incident, where incident.route = "prometheus" in headwatch.toml; no series, and so silent, '
                "where another route pages.",
        ),
    )  # fmt: skip


def health_rules() -> tuple[Rule, ...]:
    """Return the rules on headwatch itself."""
    own = f'{{job="{JOB}"}}'
    spool = f"{_name('spool.bytes')} / {_name('spool.limit')}"
    return (
        Rule(
            "HeadwatchWatchdog", f"max by (job) (up{own}) == 1", wait="0m", keep="0m", severity="none",
            summary="headwatch is scraped, and alerts get here",
            description="Fires for ever. Send it to a service that pages when it stops (a dead man's switch): then headwatch, "
                        "Prometheus or the way to Alertmanager is broken, and no other alert would say so.",
            runbook="telemetry", board="health", why="The dead man's switch: this one is well while it fires.",
        ),
        Rule(
            "HeadwatchSidecarDown", f"up{own} == 0 or absent(up{own}) == 1", wait="5m", keep="5m", severity="warning",
            summary="The sidecar {{ $labels.instance }} is not scraped",
            description="Nothing is detected meanwhile. vLLM does not need it and goes on. The store, where it is embedded, "
                        "is not reached either.",
            runbook="telemetry", board="health",
        ),
        Rule(
            "HeadwatchCaptureDown", f"{_name('capture.up')} == 0", wait="5m", keep="5m", severity="warning",
            summary="The worker {{ $labels.service_instance_id }} does not capture",
            description="It is switched off, silent, or its circuit breaker is open: `headwatch doctor` says which. Figures "
                        "of its traffic are missing, and a fall in requests says nothing about traffic. An incident of "
                        "telemetry says the same where drift detection is on, and inhibits this alert.",
            runbook="telemetry", board="health",
        ),
        Rule(
            "HeadwatchDataStale", f"{_name('spool.age')} > {SPOOL_LATE_SECONDS:.0f}", wait="5m", keep="5m", severity="warning",
            summary="The store is {{ $value | humanizeDuration }} behind",
            description="The oldest delivery in the spool waits for so long: the store is away or slow. What dashboards show "
                        "is the past. Nothing is lost while the spool has room, and what waits arrives once.",
            runbook="telemetry", board="health",
        ),
        Rule(
            "HeadwatchSpoolFilling",
            f"{spool} > {SPOOL_FULL:g} or (predict_linear({_name('spool.bytes')}[30m], 4 * 3600) > {_name('spool.limit')} "
            f"and {spool} > {SPOOL_FULL / 2:g})",
            wait="10m", keep="10m", severity="warning",
            summary="The spool of {{ $labels.instance }} is filling",
            description="It is nearly full, or will be within four hours at the pace of the last half. When it is, the oldest "
                        "deliveries are dropped and counted. See to the store, or raise spool.max_bytes.",
            runbook="telemetry", board="health",
        ),
        Rule(
            "HeadwatchCanariesBehind",
            f"{_name('canary.run_age')} > {CANARY_INTERVALS} * {_name('canary.interval')}\n"
            f"and on (job, instance) max by (job, instance) ({_name('capture.up')}) == 1",
            wait="5m", keep="5m", severity="warning",
            summary="No canary run was completed for {{ $value | humanizeDuration }}",
            description="A change of the model is not seen by fixed prompts meanwhile, and triage is less sure. It is no "
                        "drift. Why it "
                        f"fails: {_name('canary.failures')} by reason, and `headwatch canary explain`.",
            runbook="telemetry", board="canaries",
        ),
        Rule(
            "HeadwatchPagerDown", f'{_name("pager.up")}{{{_label(ATTR_ROLE)}="page"}} == 0',
            wait="10m", keep="5m", severity="warning",
            summary="Pages cannot be sent by {{ $labels.headwatch_pager }}",
            description="The route that pages (incident.route) does not take messages. They wait and are sent again; until "
                        "then nobody is told of an incident but by this alert.",
            runbook="telemetry", board="health",
        ),
    )  # fmt: skip


def grounding_rules() -> tuple[Rule, ...]:
    """Return the rules for who runs without drift detection."""
    by = f"{_label(ATTR_MODEL)}, {_label(ATTR_ROUTE)}"
    ratio, requests, state = _name("grounding.ratio"), _name("grounding.requests"), _label(ATTR_STATE)

    def mean(span: str) -> str:
        return f"(sum by ({by}) (increase({ratio}_sum[{span}])) / sum by ({by}) (increase({ratio}_count[{span}])))"

    def share(span: str) -> str:
        return (f'(sum by ({by}) (increase({requests}{{{state}="absent"}}[{span}])) '
                f"/ sum by ({by}) (increase({requests}[{span}])))")  # fmt: skip

    enough = f"sum by ({by}) (increase({requests}[10m])) >= {LEAST_ROWS}"
    where = f"route {_value(ATTR_ROUTE)} ({_value(ATTR_MODEL)})"
    return (
        Rule(
            "HeadwatchGroundingLost", f"{mean('10m')}\n< 0.7 * {mean('6h')}\nand {enough}", wait="5m", keep="10m",
            severity="warning", summary=f"Grounding of {where} fell by a third",
            description="The model gives the documents of this route less attention than in the six hours before. It does "
                        "not say why: retrieval may return the wrong documents, prompts may have grown, the model or its "
                        "template may have changed.",
            runbook="grounding", board=f"grounding?var-route={_query_value(ATTR_ROUTE)}",
        ),
        Rule(
            "HeadwatchRetrievalAbsent", f"{share('10m')}\n> 0.5 and {share('6h')} < 0.25\nand {enough}", wait="5m", keep="10m",
            severity="critical", summary=f"Most requests of {where} come without documents",
            description="More than half of the sampled requests of ten minutes named no document, where less than a quarter "
                        "did in six hours: retrieval returns nothing, or a client stopped naming documents.",
            runbook="retrieval", board=f"grounding?var-route={_query_value(ATTR_ROUTE)}",
        ),
    )  # fmt: skip


def rules_yaml(name: str, rules: Sequence[Rule], grafana_url: str = GRAFANA_URL) -> str:
    """Return the file of one group of *rules*."""
    listed = "".join(_rule(rule, grafana_url.rstrip("/")) for rule in rules)
    return f"{HEADER}groups:\n  - name: {name}\n    rules:\n{listed}"


def _rule(rule: Rule, grafana_url: str) -> str:
    slug, _, rest = rule.board.partition("?")
    labels = {"severity": rule.severity, "component": "headwatch", **rule.labels}
    annotations = {
        "summary": rule.summary,
        "description": rule.description,
        "runbook_url": f"{RUNBOOKS}/{rule.runbook}.md",
        "dashboard_url": f"{grafana_url}/d/{dashboard_uid(slug)}" + (f"?{rest}" if rest else ""),
    }
    lines = [
        *([f"# {rule.why}"] if rule.why else []),
        f"- alert: {rule.name}",
        "  expr: |-",
        *(f"    {line}" for line in rule.expression.splitlines()),
        f"  for: {rule.wait}",
        *([f"  keep_firing_for: {rule.keep}"] if rule.keep != "0m" else []),
        "  labels:",
        *(f"    {name}: {json.dumps(value)}" for name, value in labels.items()),
        "  annotations:",
        *(f"    {name}: {json.dumps(value)}" for name, value in annotations.items()),
    ]
    return "".join(f"      {line}\n" for line in lines)


def alertmanager_yaml() -> str:
    """Return an example of routes and inhibition; receivers are the operator's own."""
    return f"""{HEADER}# An example: take the routes and the inhibition into your own file. `amtool check-config` reads it.
route:
  receiver: team
  group_by: [alertname]
  routes:
    # The dead man's switch goes where its absence pages.
    - matchers: ['alertname="HeadwatchWatchdog"']
      receiver: dead-mans-switch
      group_wait: 0s
      group_interval: 1m
      repeat_interval: 5m
    # Shown in the list, wakes nobody: what another route of headwatch pages for.
    - matchers: ['component="headwatch"', 'role="mirror"']
      receiver: nobody
    # One incident, one notification; detection has waited already.
    - matchers: ['alertname="HeadwatchIncident"']
      group_by: [incident]
      group_wait: 0s
      repeat_interval: 12h
      receiver: on-call
    # Of headwatch itself: one notification for all that one cause brings down.
    - matchers: ['component="headwatch"']
      group_by: [component]
      group_wait: 1m
      repeat_interval: 12h
      receiver: team
inhibit_rules:
  # A sidecar that is down explains whatever else of it is missing.
  - source_matchers: ['alertname="HeadwatchSidecarDown"']
    target_matchers: ['alertname=~"Headwatch(CaptureDown|DataStale|SpoolFilling|CanariesBehind|PagerDown)"']
    equal: [job, instance]
  # An incident of telemetry says what is missing; so do the alerts on its parts.
  - source_matchers: ['alertname="HeadwatchIncident"', 'class="telemetry"']
    target_matchers: ['alertname=~"Headwatch(CaptureDown|CanariesBehind)"']
    equal: [job, instance]
  # Drift detection sees lost grounding and absent retrieval too: one cause, one page.
  - source_matchers: ['alertname="HeadwatchIncident"', 'class="retrieval"']
    target_matchers: ['alertname=~"Headwatch(GroundingLost|RetrievalAbsent)"']
    equal: [job]
receivers:
  - name: on-call
  - name: team
  - name: nobody
  - name: dead-mans-switch
"""
