"""The queries behind the alert rules: which incidents page through Grafana, and is headwatch itself well?

Grounding: for each model and route, the mean ratio of the last ten minutes is held against that of the six hours before, in
pooled standard deviations of single requests.  Both sides need :data:`MINIMUM_REQUESTS`; a drop of one deviation is then at
least 3.1 standard errors (1 / sqrt(2 / 20)), so that a second condition on standard errors would never decide.  Each
request weighs as much as it stands for, and where weights differ it is the effective number of requests that counts.  The
retrieval heads are taken where both sides have them, else all heads: the two are never mixed.

It compares a route with its own past and nothing else: longer prompts or other questions on the same route move the ratio
too, and requests without documents have none.  docs/runbooks/grounding.md says how to tell.
"""

from __future__ import annotations

from headwatch.metrics import metric
from headwatch_dashboards.names import GAUGES, INCIDENTS, REQUESTS, UNNAMED_ROUTE
from headwatch_dashboards.queries.scope import WORKER, named

RECENT_SECONDS = 10 * 60
RANGE_SECONDS = 6 * 60 * 60 + RECENT_SECONDS
MINIMUM_REQUESTS = 20
SMALLEST_DEVIATION = 0.01
"""A route whose requests hardly differ would otherwise alarm at a drop that nobody could notice."""
ALWAYS_ROUTE = "(none)"
"""Label of a row that is always there, with a drop of 0: a rule whose query returns no row fails instead of resting."""


INCIDENT_RANGE_SECONDS = 30 * 24 * 3600
"""An incident that nobody touched for so long fires no more: its sidecar has gone, or its file."""
CANARY_RANGE_SECONDS = 10 * 60
"""A sidecar that said nothing for so long has gone, or the store was away."""
STALE_RANGE_SECONDS = 24 * 3600
"""A service that wrote nothing for so long was taken away on purpose."""
STALE_SECONDS = 300
CANARY_INTERVALS = 3
"""A run that is late by less is none to get up for: a server may be busy, and a failed run is tried again."""


def paging_incidents() -> str:
    """Return 1 for each incident that is to page through Grafana, under the labels that its alert has."""
    return f"""SELECT
  $__toTime AS time,
  i.id AS incident,
  toString(i.class) AS class,
  toString(i.severity) AS severity,
  toString(i.model) AS model,
  toString(i.route) AS route,
  arrayStringConcat(arraySlice(arrayDistinct(arrayMap((layer, head) -> concat('L', toString(layer), '.H', toString(head)),
    i.`heads.layer`, i.`heads.head`)), 1, 5), ' ') AS heads,
  toUInt8(1) AS open
FROM {INCIDENTS} AS i FINAL
WHERE $__timeFilter(i.updated)
  AND i.state != 'resolved'
  AND i.paged
  AND NOT i.silenced
  AND i.class != 'traffic'
  AND i.page_route = 'grafana'
UNION ALL
SELECT $__toTime AS time, '{ALWAYS_ROUTE}' AS incident, '' AS class, '' AS severity, '' AS model, '' AS route, '' AS heads,
  0 AS open"""


def canaries_behind() -> str:
    """Return for each sidecar that sends canaries how many intervals ago a run was completed.

    It is 0 while no worker of its service captures: a server that is away opens an incident of telemetry, and one cause is one
    page.
    """
    age, interval, up = (metric(name).name for name in ("canary.run_age", "canary.interval", "capture.up"))
    return f"""SELECT $__toTime AS time, sidecar, if(service IN (
  SELECT service
  FROM (
    SELECT toString(m.ServiceName) AS service, {WORKER} AS worker, argMax(m.Value, m.TimeUnix) AS up
    FROM {GAUGES} AS m
    WHERE m.MetricName = '{up}' AND $__timeFilter(m.TimeUnix)
    GROUP BY service, worker
  )
  WHERE up = 1
), age / interval, 0) AS intervals
FROM (
  SELECT
    toString(c.ServiceName) AS service,
    toString(c.ResourceAttributes['service.instance.id']) AS sidecar,
    argMaxIf(c.Value, c.TimeUnix, c.MetricName = '{age}') AS age,
    argMaxIf(c.Value, c.TimeUnix, c.MetricName = '{interval}') AS interval
  FROM {GAUGES} AS c
  WHERE c.MetricName IN ('{age}', '{interval}') AND $__timeFilter(c.TimeUnix)
  GROUP BY service, sidecar
  HAVING interval > 0
)
UNION ALL
SELECT $__toTime AS time, '{ALWAYS_ROUTE}' AS sidecar, 0 AS intervals"""


def data_stale() -> str:
    """Return for each service how many seconds ago its sidecar last wrote."""
    names = ", ".join(f"'{metric(name).name}'" for name in ("capture.up", "exporter.up"))
    return f"""SELECT $__toTime AS time, toString(m.ServiceName) AS service,
  greatest(0, dateDiff('second', max(m.TimeUnix), $__toTime)) AS age
FROM {GAUGES} AS m
WHERE m.MetricName IN ({names}) AND $__timeFilter(m.TimeUnix)
GROUP BY service
UNION ALL
SELECT $__toTime AS time, '{ALWAYS_ROUTE}' AS service, 0 AS age"""


def spool_filling() -> str:
    """Return for each sidecar what its spool takes of its room."""
    used, limit = metric("spool.bytes").name, metric("spool.limit").name
    return f"""SELECT $__toTime AS time, toString(m.ResourceAttributes['service.instance.id']) AS sidecar,
  argMaxIf(m.Value, m.TimeUnix, m.MetricName = '{used}') / argMaxIf(m.Value, m.TimeUnix, m.MetricName = '{limit}') AS full
FROM {GAUGES} AS m
WHERE m.MetricName IN ('{used}', '{limit}') AND $__timeFilter(m.TimeUnix)
GROUP BY sidecar
HAVING isFinite(full)
UNION ALL
SELECT $__toTime AS time, '{ALWAYS_ROUTE}' AS sidecar, 0 AS full"""


def capture_down() -> str:
    """Return for each worker 1 where it was last said that it does not capture."""
    return f"""SELECT $__toTime AS time, worker, toFloat64(last = 0) AS down
FROM (
  SELECT {WORKER} AS worker, argMax(m.Value, m.TimeUnix) AS last
  FROM {GAUGES} AS m
  WHERE m.MetricName = '{metric("capture.up").name}' AND $__timeFilter(m.TimeUnix)
  GROUP BY worker
)
UNION ALL
SELECT $__toTime AS time, '{ALWAYS_ROUTE}' AS worker, 0 AS down"""


def retrieval_absent() -> str:
    """Return for each model and route the share of requests without documents of late, 0 where it is no news or too few."""
    recent = f"$__toTime - INTERVAL {RECENT_SECONDS} SECOND"

    def share(side: str) -> str:
        return f"sumIf(r.weight, r.state = 'absent' AND r.time {side} {recent}) / sumIf(r.weight, r.time {side} {recent})"

    return f"""SELECT $__toTime AS time, model, route,
  if(n_now >= {MINIMUM_REQUESTS} AND n_before >= {MINIMUM_REQUESTS} AND late > before + 0.25, late, 0) AS absent
FROM (
  SELECT
    toString(r.model) AS model,
    {named("r.route", UNNAMED_ROUTE)} AS route,
    countIf(r.time >= {recent}) AS n_now,
    countIf(r.time < {recent}) AS n_before,
    {share(">=")} AS late,
    {share("<")} AS before
  FROM {REQUESTS} AS r
  WHERE $__timeFilter(r.time)
  GROUP BY model, route
)
UNION ALL
SELECT $__toTime AS time, '' AS model, '{ALWAYS_ROUTE}' AS route, 0 AS absent"""


def grounding_drop() -> str:
    """Return for each model and route by how many standard deviations its grounding fell (0 where it cannot be told)."""
    recent = f"$__toTime - INTERVAL {RECENT_SECONDS} SECOND"
    return f"""SELECT $__toTime AS time, model, route, coalesce(anyIf(fell, heads = 1), anyIf(fell, heads = 0), 0) AS fell_by
FROM (
  SELECT
    model,
    route,
    heads,
    if(
      effective_before >= {MINIMUM_REQUESTS} AND effective_now >= {MINIMUM_REQUESTS},
      (before - now_mean) / greatest(
        sqrt(((n_before - 1) * var_before + (n_now - 1) * var_now) / (n_before + n_now - 2)), {SMALLEST_DEVIATION}
      ),
      NULL
    ) AS fell
  FROM (
    SELECT
      toString(r.model) AS model,
      {named("r.route", UNNAMED_ROUTE)} AS route,
      heads,
      countIf(r.time >= {recent}) AS n_now,
      countIf(r.time < {recent}) AS n_before,
      round(pow(sumIf(r.weight, r.time >= {recent}), 2) / sumIf(r.weight * r.weight, r.time >= {recent}), 3) AS effective_now,
      round(pow(sumIf(r.weight, r.time < {recent}), 2) / sumIf(r.weight * r.weight, r.time < {recent}), 3) AS effective_before,
      avgWeightedIf(assumeNotNull(ratio), r.weight, r.time >= {recent}) AS now_mean,
      avgWeightedIf(assumeNotNull(ratio), r.weight, r.time < {recent}) AS before,
      varSampIf(toFloat64(assumeNotNull(ratio)), r.time >= {recent}) AS var_now,
      varSampIf(toFloat64(assumeNotNull(ratio)), r.time < {recent}) AS var_before
    FROM {REQUESTS} AS r
    ARRAY JOIN [0, 1] AS heads, [r.grounding_ratio, r.grounding_ratio_retrieval_heads] AS ratio
    WHERE $__timeFilter(r.time)
      AND ratio IS NOT NULL
    GROUP BY model, route, heads
  )
)
GROUP BY model, route
UNION ALL
SELECT $__toTime AS time, '' AS model, '{ALWAYS_ROUTE}' AS route, 0 AS fell_by"""
