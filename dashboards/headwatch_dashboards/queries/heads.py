"""What single heads say of grounding."""

from __future__ import annotations

from typing import Literal

from headwatch_dashboards.names import (
    FEATURE_VARIABLE,
    HEAD_WINDOWS,
    MODEL_VARIABLE,
    PHASE_VARIABLE,
    REQUEST_HEADS,
    REQUESTS,
    ROUTE_VARIABLE,
    UNNAMED_ROUTE,
)
from headwatch_dashboards.queries.scope import chosen, evidence, named

_NO_MODEL = ", ''"
"""Windows of earlier versions name none."""


def head_grounding() -> str:
    """Return the mean lookback of each layer and head, weighted."""
    return f"""SELECT
  h.layer AS layer,
  concat('H', toString(h.head)) AS head,
  sum(h.total) / sum(h.weight) AS lookback
FROM {HEAD_WINDOWS} AS h
WHERE {_windows("'lookback'")}
GROUP BY layer, h.head, head
ORDER BY layer, h.head"""


def feature_of_heads(side: Literal["<", ">="]) -> str:
    """Return the mean of the chosen feature of each layer and head, weighted, on one *side* of the middle of what is there."""
    feature = f"${{{FEATURE_VARIABLE}:singlequote}}"
    return f"""WITH (
  SELECT toDateTime(intDiv(toUInt32(min(h.time)) + toUInt32(max(h.time)) + 1, 2), 'UTC')
  FROM {HEAD_WINDOWS} AS h
  WHERE {_windows(feature)}
) AS middle
SELECT
  h.layer AS layer,
  concat('H', toString(h.head)) AS head,
  sum(h.total) / sum(h.weight) AS mean
FROM {HEAD_WINDOWS} AS h
WHERE {_windows(feature)}
  AND h.time {side} middle
GROUP BY layer, h.head, head
ORDER BY layer, h.head"""


def _windows(feature: str) -> str:
    """Return the condition on windows ``h`` of heads: feature, time, model, route and phase as chosen."""
    return (
        f"h.feature = {feature}\n"
        "  AND $__timeFilter(h.time)\n"
        f"  AND {chosen('h.model', MODEL_VARIABLE, also=_NO_MODEL)}\n"
        f"  AND {chosen(named('h.route', UNNAMED_ROUTE), ROUTE_VARIABLE)}\n"
        f"  AND h.phase = ${{{PHASE_VARIABLE}:singlequote}}"
    )


def feature_by_layer() -> str:
    """Return the chosen feature of each layer over time, weighted."""
    return f"""SELECT
  $__timeInterval(h.time) AS time,
  concat('layer ', leftPad(toString(h.layer), 3)) AS layer,
  sum(h.total) / sum(h.weight) AS mean
FROM {HEAD_WINDOWS} AS h
WHERE {_windows(f"${{{FEATURE_VARIABLE}:singlequote}}")}
GROUP BY time, layer
ORDER BY time, layer"""


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
