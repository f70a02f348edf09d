"""What was found and told: incidents as they last were, the heads and requests they name, what people ruled, releases.

The table has a row for each change of an incident; FINAL leaves the latest.  What is not resolved is shown in any range.
"""

from __future__ import annotations

from headwatch_dashboards.names import DEPLOYS, INCIDENTS, MODEL_VARIABLE, ROUTE_VARIABLE, UNNAMED_ROUTE
from headwatch_dashboards.queries.scope import chosen, named

_ROUTE = named("i.route", "several or unnamed")
"""An incident of several routes names none; it is shown whichever is chosen."""


def _of_interest() -> str:
    """Return the condition on ``i``: opened in the range or not resolved, model and route as chosen."""
    return (
        "($__timeFilter(i.opened) OR i.state != 'resolved')\n"
        f"  AND {chosen('i.model', MODEL_VARIABLE)}\n"
        f"""  AND {chosen("i.route", ROUTE_VARIABLE, also=", ''")}"""
    )


def incidents() -> str:
    """Return the incidents of interest, live ones first."""
    return f"""SELECT
  i.opened AS opened,
  toString(i.state) AS state,
  toString(i.severity) AS severity,
  toString(i.class) AS class,
  toString(i.cause) AS cause,
  i.sentence AS `what happened`,
  i.confidence AS confidence,
  {_ROUTE} AS route,
  if(i.silenced, concat('silenced: ', i.silenced_why), if(i.paged, toString(i.page_route), 'nobody')) AS told,
  if(i.state = 'resolved', i.resolved_by, i.acknowledged_by) AS by,
  i.id AS incident
FROM {INCIDENTS} AS i FINAL
WHERE {_of_interest()}
ORDER BY i.state = 'resolved', i.opened DESC
LIMIT 50"""


def named_heads() -> str:
    """Return the heads that the incidents of interest name, by the effect that each had."""
    return f"""SELECT
  layer,
  head,
  toString(feature) AS feature,
  before,
  after,
  effect,
  i.id AS incident
FROM {INCIDENTS} AS i FINAL
ARRAY JOIN
  i.`heads.layer` AS layer,
  i.`heads.head` AS head,
  i.`heads.feature` AS feature,
  i.`heads.before` AS before,
  i.`heads.after` AS after,
  i.`heads.effect` AS effect
WHERE {_of_interest()}
ORDER BY i.state = 'resolved', i.opened DESC, abs(effect) DESC
LIMIT 50"""


def named_requests() -> str:
    """Return the example requests of the incidents of interest, with the kind of their prompts."""
    return f"""SELECT
  fromUnixTimestamp64Nano(JSONExtractInt(example, 'time_ns')) AS time,
  JSONExtractString(example, 'request_id') AS request,
  {named("JSONExtractString(example, 'route')", UNNAMED_ROUTE)} AS route,
  JSONExtractString(example, 'kind') AS `kind of prompt`,
  JSONExtractString(example, 'state') AS state,
  JSONExtract(example, 'grounding_ratio', 'Nullable(Float64)') AS `grounding ratio`,
  JSONExtractString(example, 'trace_id') AS trace,
  i.id AS incident
FROM {INCIDENTS} AS i FINAL
ARRAY JOIN JSONExtractArrayRaw(i.document, 'exhibits', 'requests') AS example
WHERE {_of_interest()}
ORDER BY i.state = 'resolved', i.opened DESC, time DESC
LIMIT 50"""


def precision() -> str:
    """Return for each class how many pages went out in the range, how they were ruled, and the share that was true."""
    return f"""SELECT
  toString(i.class) AS class,
  count() AS pages,
  countIf(i.ruling = 'true') AS `true`,
  countIf(i.ruling = 'false_page') AS `false`,
  countIf(i.ruling = 'known_change') AS `known change`,
  countIf(i.ruling = '') AS `not ruled`,
  if(countIf(i.ruling != '') = 0, NULL, countIf(i.ruling = 'true') / countIf(i.ruling != '')) AS precision
FROM {INCIDENTS} AS i FINAL
WHERE $__timeFilter(i.opened)
  AND {chosen("i.model", MODEL_VARIABLE)}
  AND i.paged
GROUP BY class
ORDER BY pages DESC, class"""


def releases() -> str:
    """Return the releases of the range, the latest first."""
    return f"""SELECT
  d.time AS time,
  d.title AS release,
  d.revision AS revision,
  d.who AS who,
  d.planned_seconds AS planned
FROM {DEPLOYS} AS d
WHERE $__timeFilter(d.time)
ORDER BY d.time DESC
LIMIT 20"""
