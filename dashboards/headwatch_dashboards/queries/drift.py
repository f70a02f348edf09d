"""How near detection is to a page, on what evidence, and what the canaries say."""

from __future__ import annotations

from headwatch.metrics import ATTR_STATE, metric
from headwatch_dashboards.names import (
    BASELINES,
    CANARIES,
    EVIDENCE,
    FINGERPRINTS,
    GAUGES,
    MODEL_VARIABLE,
    ROUTE_VARIABLE,
    UNNAMED_ROUTE,
)
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


def _places() -> str:
    return (
        "$__timeFilter(e.time)\n"
        f"  AND {chosen('e.model', MODEL_VARIABLE)}\n"
        f"  AND {chosen(named('e.route', UNNAMED_ROUTE), ROUTE_VARIABLE)}"
    )


def effects() -> str:
    """Return what each place last said: its evidence, and the size of the change."""
    def last(column: str) -> str:
        return f"argMax(e.{column}, e.time)"

    return f"""SELECT
  toString(e.kind) AS kind,
  toString(e.name) AS name,
  if(e.stratum = '', {named("e.route", UNNAMED_ROUTE)}, toString(e.stratum)) AS place,
  {last("log10_evidence")} AS evidence,
  {last("before")} AS before,
  {last("after")} AS after,
  {last("effect")} AS effect,
  {last("since")} AS since
FROM {EVIDENCE} AS e
WHERE {_places()}
GROUP BY kind, name, place
ORDER BY evidence DESC
LIMIT 50"""


def strata() -> str:
    """Return each stratum: how many features and signals are watched there, and the most evidence among them."""
    return f"""SELECT
  if(e.stratum = '', concat('route ', {named("e.route", UNNAMED_ROUTE)}), toString(e.stratum)) AS stratum,
  uniqExact(e.name) AS watched,
  max(e.log10_evidence) AS `most evidence`,
  argMax(toString(e.name), e.log10_evidence) AS `of`,
  max(e.time) AS `last window`
FROM {EVIDENCE} AS e
WHERE {_places()}
  AND isFinite(e.log10_evidence)
GROUP BY stratum
ORDER BY `most evidence` DESC
LIMIT 50"""


def baselines() -> str:
    """Return the baselines that were put in force, the latest first; one that was before the range is in force still."""
    return f"""SELECT
  b.time AS `in force since`,
  toString(b.service) AS service,
  b.version AS version,
  toString(b.origin) AS origin,
  b.windows AS windows,
  b.created AS created,
  b.note AS note
FROM {BASELINES} AS b
WHERE $__timeFilter(b.time) OR b.time < $__fromTime
ORDER BY b.time DESC
LIMIT 20"""


def fingerprints() -> str:
    """Return the fingerprints that were pinned, the latest first; one that was before the range is in force still."""
    return f"""SELECT
  f.time AS `in force since`,
  toString(f.service) AS service,
  toString(f.model) AS model,
  toString(f.revision) AS revision,
  toString(f.dtype) AS dtype,
  f.runs AS runs,
  f.exact AS exact,
  f.note AS note
FROM {FINGERPRINTS} AS f
WHERE $__timeFilter(f.time) OR f.time < $__fromTime
ORDER BY f.time DESC
LIMIT 20"""


def canary_layers() -> str:
    """Return the heads that departed most in the runs of the range, one figure for each layer and run's prompt."""
    return f"""SELECT
  toString(c.prompt) AS prompt,
  concat('L', toString(layer)) AS layer,
  max(abs(after - before)) AS deviation
FROM {CANARIES} AS c
ARRAY JOIN c.`heads.layer` AS layer, c.`heads.before` AS before, c.`heads.after` AS after
WHERE $__timeFilter(c.time)
GROUP BY prompt, c.prompt, layer
ORDER BY prompt, toUInt16(substring(layer, 2))"""


def canary_runs() -> str:
    """Return the runs of the range, failed ones and the latest first."""
    return f"""SELECT
  c.time AS time,
  toString(c.prompt) AS prompt,
  if(c.failed, 'failed', 'passed') AS outcome,
  c.deviation / c.threshold AS `of what it may`,
  c.earliest_layer AS `from layer`,
  toString(c.hint) AS hint,
  c.note AS note
FROM {CANARIES} AS c
WHERE $__timeFilter(c.time)
  AND c.threshold > 0
ORDER BY c.failed DESC, c.time DESC
LIMIT 50"""


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
