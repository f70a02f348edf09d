"""What requests and their documents say of grounding.

Means and shares weigh each request by how many it stands for; counts are of requests that were sampled.
"""

from __future__ import annotations

from typing import get_args

from headwatch.model import GroundingState
from headwatch_dashboards.names import ALL_HEADS, DOCUMENTS, NO_ARM, NO_SOURCE, REQUESTS, RETRIEVAL_HEADS, UNNAMED_ROUTE
from headwatch_dashboards.queries.scope import evidence, named


def routes() -> str:
    """Return the routes seen in the range."""
    return (
        f"SELECT DISTINCT {named('r.route', UNNAMED_ROUTE)} AS route\n"
        f"FROM {REQUESTS} AS r\nWHERE $__timeFilter(r.time)\nORDER BY route"
    )


def models() -> str:
    """Return the models seen in the range."""
    return f"SELECT DISTINCT toString(r.model) AS model\nFROM {REQUESTS} AS r\nWHERE $__timeFilter(r.time)\nORDER BY model"


def request_count() -> str:
    """Return how many sampled requests ended; no row where none did."""
    return f"SELECT count() AS requests\nFROM {REQUESTS} AS r\nWHERE {evidence('r')}\nHAVING requests > 0"


def state_shares() -> str:
    """Return the share of requests in each grounding state, one column each."""
    columns = ",\n  ".join(
        f"sumIf(r.weight, r.state = '{state}') / sum(r.weight) AS {state}" for state in get_args(GroundingState)
    )
    return f"SELECT\n  {columns}\nFROM {REQUESTS} AS r\nWHERE {evidence('r')}\nHAVING count() > 0"


def mean_grounding() -> str:
    """Return the mean ratio over the range, over the retrieval heads and over all heads."""
    return (
        f"SELECT\n  avgWeighted(r.grounding_ratio_retrieval_heads, r.weight) AS `{RETRIEVAL_HEADS}`,\n"
        f"  avgWeighted(r.grounding_ratio, r.weight) AS `{ALL_HEADS}`\n"
        f"FROM {REQUESTS} AS r\nWHERE {evidence('r')}\nHAVING count() > 0"
    )


def grounding_over_time() -> str:
    """Return the mean ratio for each interval, route, arm and set of heads."""
    return f"""SELECT
  $__timeInterval(r.time) AS time,
  {named("r.route", UNNAMED_ROUTE)} AS route,
  {named("r.arm", NO_ARM)} AS arm,
  heads,
  avgWeighted(assumeNotNull(ratio), r.weight) AS grounding
FROM {REQUESTS} AS r
ARRAY JOIN
  ['{RETRIEVAL_HEADS}', '{ALL_HEADS}'] AS heads,
  [r.grounding_ratio_retrieval_heads, r.grounding_ratio] AS ratio
WHERE {evidence("r")}
  AND ratio IS NOT NULL
GROUP BY time, route, arm, heads
ORDER BY time, route, arm, heads"""


def states_over_time() -> str:
    """Return how many requests ended in each interval, by grounding state."""
    return f"""SELECT
  $__timeInterval(r.time) AS time,
  toString(r.state) AS state,
  count() AS requests
FROM {REQUESTS} AS r
WHERE {evidence("r")}
GROUP BY time, state
ORDER BY time, state"""


def document_share() -> str:
    """Return for each source the mean share that one of its documents drew, beside an equal split."""
    return f"""SELECT
  source,
  avgWeighted(assumeNotNull(share), weight) AS `share of a document`,
  avgWeighted(1 / siblings, weight) AS `equal split`
FROM (
  SELECT
    {named("d.source", NO_SOURCE)} AS source,
    d.share AS share,
    d.weight AS weight,
    count(d.share) OVER (PARTITION BY d.engine_id, d.request_id) AS siblings
  FROM {DOCUMENTS} AS d
  WHERE {evidence("d")}
)
WHERE share IS NOT NULL
GROUP BY source
ORDER BY `share of a document` DESC
LIMIT 20"""


def share_by_rank() -> str:
    """Return for each place in the client's order the mean share of the document there, beside an equal split."""
    return _share_by("d.rank", "toString(by + 1)", "rank", "by")


def share_by_age() -> str:
    """Return for each age of a document at its request the mean share that it drew, beside an equal split."""
    days = "dateDiff('day', parseDateTime64BestEffortOrNull(d.retrieved_at), d.time)"
    named_ages = ", ".join(f"'{name}'" for name, _ in _AGES)
    bounds = ", ".join(str(bound) for _, bound in _AGES)
    return _share_by(f"arrayFirstIndex(bound -> {days} < bound, [{bounds}])", f"[{named_ages}][by]", "age", "by",
                     also=f"isNotNull({days})")


_AGES = (("under a day", 1), ("1 to 7 days", 7), ("7 to 30 days", 30), ("30 to 180 days", 180), ("older", 1 << 30))
"""Names of ages of documents, and the days below which each lies."""


def _share_by(key: str, shown: str, name: str, order: str, *, also: str = "1") -> str:
    """Return the mean share of documents by *key* (``by`` in *shown* and *order*), of documents for which *also* holds."""
    return f"""SELECT
  {shown} AS {name},
  avgWeighted(assumeNotNull(share), weight) AS `share of a document`,
  avgWeighted(1 / siblings, weight) AS `equal split`
FROM (
  SELECT
    {key} AS by,
    {also} AS counts,
    d.share AS share,
    d.weight AS weight,
    count(d.share) OVER (PARTITION BY d.engine_id, d.request_id) AS siblings
  FROM {DOCUMENTS} AS d
  WHERE {evidence("d")}
)
WHERE share IS NOT NULL AND counts
GROUP BY by
ORDER BY {order}
LIMIT 20"""


def share_by_source_over_time() -> str:
    """Return the mean share of a document of each source, over that of an equal split: 1 is no preference."""
    return f"""SELECT
  $__timeInterval(ended) AS time,
  source,
  sum(share * weight) / sum(weight / siblings) AS preference
FROM (
  SELECT
    d.time AS ended,
    {named("d.source", NO_SOURCE)} AS source,
    d.share AS share,
    d.weight AS weight,
    count(d.share) OVER (PARTITION BY d.engine_id, d.request_id) AS siblings
  FROM {DOCUMENTS} AS d
  WHERE {evidence("d")}
)
WHERE share IS NOT NULL
GROUP BY time, source
ORDER BY time, source"""


def by_route() -> str:
    """Return each route: its requests, its grounding in the later and the earlier half of the range, what is absent."""
    middle = "$__fromTime + INTERVAL intDiv(dateDiff('second', $__fromTime, $__toTime), 2) SECOND"
    ratio = "coalesce(r.grounding_ratio_retrieval_heads, r.grounding_ratio)"
    def mean(side: str) -> str:
        return f"avgWeightedIf(assumeNotNull({ratio}), r.weight, {ratio} IS NOT NULL AND r.time {side} {middle})"

    return f"""SELECT
  {named("r.route", UNNAMED_ROUTE)} AS route,
  count() AS requests,
  {mean("<")} AS earlier,
  {mean(">=")} AS later,
  later - earlier AS change,
  sumIf(r.weight, r.state = 'absent') / sum(r.weight) AS absent,
  sumIf(r.weight, r.state = 'unresolved') / sum(r.weight) AS unresolved
FROM {REQUESTS} AS r
WHERE {evidence("r")}
GROUP BY route
ORDER BY change, route
LIMIT 50"""


def least_grounded_requests() -> str:
    """Return the measured requests with the lowest ratio."""
    return f"""SELECT
  r.time AS time,
  r.request_id AS request,
  {named("r.route", UNNAMED_ROUTE)} AS route,
  {named("r.arm", NO_ARM)} AS arm,
  r.grounding_ratio_retrieval_heads AS `{RETRIEVAL_HEADS}`,
  r.grounding_ratio AS `{ALL_HEADS}`,
  r.document_mass AS `document mass`,
  r.documents_found AS `documents found`,
  r.documents AS `documents named`,
  r.prompt_tokens AS `prompt tokens`,
  arrayStringConcat(r.errors, ', ') AS errors,
  r.trace_id AS trace
FROM {REQUESTS} AS r
WHERE {evidence("r")}
  AND r.state = 'measured'
ORDER BY coalesce(r.grounding_ratio_retrieval_heads, r.grounding_ratio)
LIMIT 20"""
