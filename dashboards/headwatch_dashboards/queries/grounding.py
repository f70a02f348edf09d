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
