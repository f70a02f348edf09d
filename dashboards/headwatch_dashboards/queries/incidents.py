"""What was found and told: incidents as they last were, what they name, what people ruled, releases; and all of one incident.

The table has a row for each change of an incident; FINAL leaves the latest.  What is not resolved is shown in any range.
"""

from __future__ import annotations

from headwatch_dashboards.names import (
    DEPLOYS,
    EVIDENCE,
    INCIDENT_VARIABLE,
    INCIDENTS,
    MODEL_VARIABLE,
    ROUTE_VARIABLE,
    UNNAMED_ROUTE,
)
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


def _the_one() -> str:
    """Return the condition on ``i``: the incident that is chosen, whichever range is shown while it lives."""
    return (
        "($__timeFilter(i.opened) OR i.state != 'resolved')\n"
        f"  AND i.id = ${{{INCIDENT_VARIABLE}:singlequote}}"
    )


def ids() -> str:
    """Return the incidents that can be chosen, the latest first."""
    return (
        f"SELECT i.id AS incident\nFROM {INCIDENTS} AS i FINAL\n"
        "WHERE $__timeFilter(i.opened) OR i.state != 'resolved'\nORDER BY i.opened DESC\nLIMIT 200"
    )


def live() -> str:
    """Return how many incidents are not resolved, by severity, and how many of those were silenced."""
    severities = ", ".join(
        f"countIf(i.severity = '{severity}' AND NOT i.silenced) AS {severity}" for severity in ("critical", "warning", "info")
    )
    return f"""SELECT {severities}, countIf(i.silenced) AS silenced
FROM {INCIDENTS} AS i FINAL
WHERE {_of_interest()}
  AND i.state != 'resolved'"""


def verdict() -> str:
    """Return what the chosen incident is, in one row."""
    return f"""SELECT
  toString(i.state) AS state,
  toString(i.severity) AS severity,
  toString(i.class) AS class,
  i.confidence AS confidence,
  toString(i.runner_up) AS `else it would be`,
  i.paged AS paged
FROM {INCIDENTS} AS i FINAL
WHERE {_the_one()}"""


def story() -> str:
    """Return the chosen incident in words, one row for each thing to know."""
    who = "if(i.state = 'resolved', i.resolved_by, i.acknowledged_by)"
    tells = "JSONExtractString(i.document, 'verdict', 'tells_apart')"
    known = (
        ("what happened", "i.sentence"),
        ("cause", "toString(i.cause)"),
        ("route", "if(i.route = '', 'several or unnamed', toString(i.route))"),
        ("model", "toString(i.model)"),
        ("began", "toString(toDateTime(i.since))"),
        ("opened", "toString(toDateTime(i.opened))"),
        ("told", "if(i.silenced, concat('silenced: ', i.silenced_why), if(i.paged, toString(i.page_route), 'nobody'))"),
        ("taken or closed by", f"if({who} = '', 'nobody yet', {who})"),
        ("ruling", "if(i.ruling = '', 'none yet', toString(i.ruling))"),
        ("what would tell the class from the next likely", f"if({tells} = '', '-', {tells})"),
    )
    pairs = ",\n    ".join(f"('{name}', {value})" for name, value in known)
    return f"""SELECT told.1 AS what, told.2 AS answer
FROM {INCIDENTS} AS i FINAL
ARRAY JOIN [
    {pairs}
  ] AS told
WHERE {_the_one()}"""


def reasons() -> str:
    """Return why the chosen incident is of its class."""
    return f"""SELECT reason
FROM {INCIDENTS} AS i FINAL
ARRAY JOIN JSONExtract(i.document, 'verdict', 'why', 'Array(String)') AS reason
WHERE {_the_one()}"""


def evidence_at_opening() -> str:
    """Return the evidence that opened the chosen incident, most first."""
    return f"""SELECT
  JSONExtractString(item, 'kind') AS kind,
  JSONExtractString(item, 'name') AS name,
  if(JSONExtractString(item, 'stratum') = '', JSONExtractString(item, 'route'), JSONExtractString(item, 'stratum')) AS place,
  JSONExtractFloat(item, 'log10_evidence') AS evidence,
  JSONExtract(item, 'before', 'Nullable(Float64)') AS before,
  JSONExtract(item, 'after', 'Nullable(Float64)') AS after,
  JSONExtractFloat(item, 'effect') AS effect
FROM {INCIDENTS} AS i FINAL
ARRAY JOIN JSONExtractArrayRaw(i.document, 'event', 'evidence') AS item
WHERE {_the_one()}
ORDER BY evidence DESC
LIMIT 50"""


def evidence_since() -> str:
    """Return the evidence of the places that opened the chosen incident, over the range."""
    place = "concat(toString(e.name), ' · ', if(e.stratum = '', toString(e.route), toString(e.stratum)))"
    return f"""SELECT
  $__timeInterval(e.time) AS time,
  {place} AS place,
  max(e.log10_evidence) AS evidence
FROM {EVIDENCE} AS e
WHERE $__timeFilter(e.time)
  AND isFinite(e.log10_evidence)
  AND (e.name, e.stratum) IN (
    SELECT JSONExtractString(item, 'name'), JSONExtractString(item, 'stratum')
    FROM {INCIDENTS} AS i FINAL
    ARRAY JOIN JSONExtractArrayRaw(i.document, 'event', 'evidence') AS item
    WHERE {_the_one()}
  )
GROUP BY time, place
ORDER BY time, place"""


def heads() -> str:
    """Return the heads that the chosen incident names."""
    return _heads(_the_one(), own=True)


def documents() -> str:
    """Return the documents that the chosen incident names."""
    return f"""SELECT
  JSONExtractString(item, 'id') AS document,
  JSONExtractString(item, 'source') AS source,
  JSONExtractString(item, 'version') AS version,
  JSONExtractString(item, 'retrieved_at') AS `retrieved at`,
  JSONExtractInt(item, 'requests') AS requests,
  JSONExtract(item, 'share_before', 'Nullable(Float64)') AS `share before`,
  JSONExtract(item, 'share_after', 'Nullable(Float64)') AS `share after`
FROM {INCIDENTS} AS i FINAL
ARRAY JOIN JSONExtractArrayRaw(i.document, 'exhibits', 'documents') AS item
WHERE {_the_one()}
LIMIT 50"""


def requests() -> str:
    """Return the example requests of the chosen incident."""
    return _requests(_the_one())


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
    return _heads(_of_interest())


def _heads(which: str, *, own: bool = False) -> str:
    return f"""SELECT
  layer,
  head,
  toString(feature) AS feature,
  before,
  after,
  effect{"" if own else ", i.id AS incident"}
FROM {INCIDENTS} AS i FINAL
ARRAY JOIN
  i.`heads.layer` AS layer,
  i.`heads.head` AS head,
  i.`heads.feature` AS feature,
  i.`heads.before` AS before,
  i.`heads.after` AS after,
  i.`heads.effect` AS effect
WHERE {which}
ORDER BY i.state = 'resolved', i.opened DESC, abs(effect) DESC
LIMIT 50"""


def named_requests() -> str:
    """Return the example requests of the incidents of interest, with the kind of their prompts."""
    return _requests(_of_interest())


def _requests(which: str) -> str:
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
WHERE {which}
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


def release_marks() -> str:
    """Return the releases of the range as marks on every panel that has time on its axis."""
    return f"""SELECT d.time AS time, d.title AS title, concat(d.who, ' ', d.revision) AS text, 'release' AS tags
FROM {DEPLOYS} AS d
WHERE $__timeFilter(d.time)
ORDER BY d.time
LIMIT 100"""
