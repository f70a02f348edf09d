"""How near detection is to a page, on what evidence, and what the canaries say."""

from __future__ import annotations

from headwatch.metrics import ATTR_STATE, metric
from headwatch_dashboards.names import CANARIES, EVIDENCE, GAUGES, MODEL_VARIABLE, ROUTE_VARIABLE, UNNAMED_ROUTE
from headwatch_dashboards.queries.scope import chosen, metrics, named

SHOWN = 12
"""Places whose evidence is drawn: those that reached most in the range."""


def detection_state() -> str:
    """Return the state that detection was last in."""
    return f"""SELECT toString(m.Attributes['{ATTR_STATE}']) AS state
FROM {GAUGES} AS m
WHERE {metrics("drift.state")}
  AND m.Value = 1
ORDER BY m.TimeUnix DESC
LIMIT 1"""


def clock_over_time() -> str:
    """Return what the clock showed, the most in each interval, and where it pages."""
    return f"""SELECT
  $__timeInterval(m.TimeUnix) AS time,
  maxIf(m.Value, m.MetricName = '{metric("drift.clock").name}') AS clock,
  maxIf(m.Value, m.MetricName = '{metric("drift.threshold").name}') AS `pages at`
FROM {GAUGES} AS m
WHERE {metrics("drift.clock", "drift.threshold")}
GROUP BY time
ORDER BY time"""


def evidence_over_time() -> str:
    """Return the evidence of the places that reached most in the range."""
    place = f"concat(toString(e.name), ' · ', if(e.stratum = '', {named('e.route', UNNAMED_ROUTE)}, toString(e.stratum)))"
    scope = (
        "$__timeFilter(e.time)\n"
        f"    AND {chosen('e.model', MODEL_VARIABLE)}\n"
        f"    AND {chosen(named('e.route', UNNAMED_ROUTE), ROUTE_VARIABLE)}\n"
        "    AND isFinite(e.log10_evidence)"
    )
    return f"""WITH most AS (
  SELECT {place} AS place
  FROM {EVIDENCE} AS e
  WHERE {scope}
  GROUP BY place
  ORDER BY max(e.log10_evidence) DESC
  LIMIT {SHOWN}
)
SELECT
  $__timeInterval(e.time) AS time,
  {place} AS place,
  max(e.log10_evidence) AS evidence
FROM {EVIDENCE} AS e
WHERE {scope}
  AND place IN (SELECT place FROM most)
GROUP BY time, place
ORDER BY time, place"""


def canary_deviation() -> str:
    """Return how far each fixed prompt was from its fingerprint, in units of what it may be."""
    return f"""SELECT
  $__timeInterval(c.time) AS time,
  toString(c.prompt) AS prompt,
  max(c.deviation / c.threshold) AS deviation
FROM {CANARIES} AS c
WHERE $__timeFilter(c.time)
  AND c.threshold > 0
GROUP BY time, prompt
ORDER BY time, prompt"""
