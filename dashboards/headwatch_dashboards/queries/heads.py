"""What single heads say of grounding."""

from __future__ import annotations

from headwatch_dashboards.names import (
    HEAD_WINDOWS,
    MODEL_VARIABLE,
    PHASE_VARIABLE,
    REQUEST_HEADS,
    REQUESTS,
    ROUTE_VARIABLE,
    UNNAMED_ROUTE,
)
from headwatch_dashboards.queries.scope import chosen, evidence, named


def head_grounding() -> str:
    """Return the mean lookback of each layer and head, weighted."""
    return f"""SELECT
  h.layer AS layer,
  concat('H', toString(h.head)) AS head,
  sum(h.total) / sum(h.weight) AS lookback
FROM {HEAD_WINDOWS} AS h
WHERE h.feature = 'lookback'
  AND $__timeFilter(h.time)
  AND {chosen("h.model", MODEL_VARIABLE, also=", ''")}
  AND {chosen(named("h.route", UNNAMED_ROUTE), ROUTE_VARIABLE)}
  AND h.phase = ${{{PHASE_VARIABLE}:singlequote}}
GROUP BY layer, h.head, head
ORDER BY layer, h.head"""


def worst_heads() -> str:
    """Return the heads whose lookback fell most from the earlier to the later half of the measured requests."""
    return f"""WITH (
  SELECT quantileExact(0.5)(r.time)
  FROM {REQUESTS} AS r
  WHERE {evidence("r")}
    AND r.state = 'measured'
) AS middle
SELECT
  layer,
  head,
  before,
  after,
  (after - before) / sqrt(((n_before - 1) * var_before + (n_after - 1) * var_after) / (n_before + n_after - 2)) AS effect,
  n_before + n_after AS requests
FROM (
  SELECT
    h.layer AS layer,
    h.head AS head,
    countIf(h.time < middle) AS n_before,
    countIf(h.time >= middle) AS n_after,
    avgWeightedIf(h.lookback, h.weight, h.time < middle) AS before,
    avgWeightedIf(h.lookback, h.weight, h.time >= middle) AS after,
    varSampIf(toFloat64(h.lookback), h.time < middle) AS var_before,
    varSampIf(toFloat64(h.lookback), h.time >= middle) AS var_after
  FROM {REQUEST_HEADS} AS h
  WHERE {evidence("h")}
    AND isFinite(h.lookback)
  GROUP BY layer, head
)
WHERE n_before >= 2 AND n_after >= 2
ORDER BY effect, layer, head
LIMIT 20"""
