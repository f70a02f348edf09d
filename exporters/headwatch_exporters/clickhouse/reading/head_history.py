"""What heads did over hours and months: maps, courses, quantiles and distributions, from the rung that fits what is asked.

Means are exact to the rung's stated error.  A quantile is read off the summed buckets, which are a fifth of their value wide;
within one the values are taken to lie evenly on a log scale, so it errs by a percent or two where there are many, and never
by more than the bucket.

The rung is the coarsest whose steps fit: for a course those that divide *step_seconds*, so that each of its steps has what is
its own; for everything else those that are no longer than a thirtieth of the range.  Ranges are rounded outwards to its steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.errors import StoreError
from headwatch.model import VALUE_FEATURES, WINDOW_FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.records import HeadScope
    from headwatch_exporters.clickhouse.connection import Connection

RUNGS = {60: "headwatch_heads_1m", 600: "headwatch_heads_10m", 3600: "headwatch_heads_1h", 86400: "headwatch_heads_1d"}
"""Seconds in a step of each rung, and its table."""
STEPS = 30
"""Steps of a range that is not asked for step by step."""
BUCKETS = 64
_COUNTS = f"[sum(zero_count), {', '.join(f'sum(b{number:02d})' for number in range(BUCKETS))}] AS counts"
GROUPS = ("instance", "stratum", "route", "layer", "service", "model")
"""Columns by which means can be asked."""


def condition_of(scope: HeadScope, step_seconds: int) -> tuple[str, dict[str, Any]]:
    """Return what stands behind WHERE, and its parameters.

    Raises:
        StoreError: The feature is none that windows have, or the range is empty.
    """
    if scope.feature not in {*WINDOW_FEATURES, *VALUE_FEATURES}:
        raise StoreError(f"unknown feature {scope.feature!r}; known: {', '.join((*WINDOW_FEATURES, *VALUE_FEATURES))}")
    if not scope.first < scope.last:
        raise StoreError(f"the range from {scope.first} to {scope.last} is empty")
    given: dict[str, Any] = {
        "feature": scope.feature,
        "first": scope.first // step_seconds * step_seconds,
        "last": -(-scope.last // step_seconds) * step_seconds,
    }
    words = [
        "feature = {feature:String}",
        "time >= toDateTime({first:Int64}, 'UTC')",
        "time < toDateTime({last:Int64}, 'UTC')",
    ]
    for name in ("service", "instance", "model", "stratum", "route", "phase"):
        if getattr(scope, name) is not None:
            given[name] = getattr(scope, name)
            words.append(f"{name} = {{{name}:String}}")
    for name in ("layer", "head"):
        if getattr(scope, name) is not None:
            given[name] = getattr(scope, name)
            words.append(f"{name} = {{{name}:UInt16}}")
    if scope.layers_below is not None:
        given["layers_below"] = scope.layers_below
        words.append("layer < {layers_below:UInt16}")
    return " AND ".join(words), given


def step_of(scope: HeadScope, wanted_seconds: int | None = None) -> int:
    """Return the seconds in a step of the rung that answers *scope*; of a course in steps of *wanted_seconds*."""
    if wanted_seconds is None:
        longest = (scope.last - scope.first) // STEPS
        return max((step for step in RUNGS if step <= longest), default=min(RUNGS))
    return max((step for step in RUNGS if wanted_seconds % step == 0), default=min(RUNGS))


class HeadHistory:
    """Reads windows of heads back.  Every method may raise :class:`StoreError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def map(self, scope: HeadScope) -> list[dict[str, Any]]:
        """Return the mean of each layer and head, and how many values it is of."""
        return self._rows(scope, None, "layer, head, sum(total) / sum(weight) AS mean, sum(weight) AS values", "layer, head")

    def quantile_map(self, scope: HeadScope, quantiles: Sequence[float]) -> list[dict[str, Any]]:
        """Return the *quantiles* of each layer and head."""
        return _counted(self._rows(scope, None, f"layer, head, {_COUNTS}", "layer, head"), quantiles)

    def course(self, scope: HeadScope, step_seconds: int, by: str = "") -> list[dict[str, Any]]:
        """Return the mean in each step, of all heads of *scope* or for each value of the column *by*."""
        return self._rows(scope, step_seconds, f"{_at(step_seconds)} AS at{_also(by)}, sum(total) / sum(weight) AS mean, "
                          "sum(weight) AS values", f"at{_also(by)}")  # fmt: skip

    def quantile_course(self, scope: HeadScope, step_seconds: int, quantiles: Sequence[float]) -> list[dict[str, Any]]:
        """Return the *quantiles* in each step, of all heads of *scope* together."""
        return _counted(self._rows(scope, step_seconds, f"{_at(step_seconds)} AS at, {_COUNTS}", "at"), quantiles)

    def groups(self, scope: HeadScope, by: str) -> list[dict[str, Any]]:
        """Return the mean for each value of the column *by*, one of :data:`GROUPS`."""
        column = _group(by)
        return self._rows(scope, None, f"{column}, sum(total) / sum(weight) AS mean, sum(weight) AS values", column)

    def distribution(self, scope: HeadScope) -> list[int]:
        """Return how many values lie below 2^-16, and in each bucket."""
        rows = self._rows(scope, None, _COUNTS, "")
        return [int(count) for count in rows[0]["counts"]]

    def moved(self, scope: HeadScope, middle: int, limit: int = 20) -> list[dict[str, Any]]:
        """Return the heads whose mean moved most from before *middle* (seconds) to after, by the ratio of the two."""
        after = "time >= toDateTime({middle:Int64}, 'UTC')"
        return self._rows(
            scope, None,
            f"layer, head, sumIf(total, NOT {after}) / sumIf(weight, NOT {after}) AS before, "
            f"sumIf(total, {after}) / sumIf(weight, {after}) AS after, abs(log2(after / before)) AS octaves",
            "layer, head", f"HAVING isFinite(octaves) ORDER BY octaves DESC LIMIT {int(limit)}", {"middle": middle},
        )  # fmt: skip

    def _rows(
        self, scope: HeadScope, step_seconds: int | None, columns: str, group: str, end: str = "",
        more: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        step = step_of(scope, step_seconds)
        where, given = condition_of(scope, step)
        groups = f"GROUP BY {group} {end or f'ORDER BY {group}'}" if group else ""
        return self._connection.query(
            f"SELECT {columns} FROM {RUNGS[step]} WHERE {where} {groups}",  # noqa: S608 - the names are our own
            {**given, **(more or {})},
        )


def _at(step_seconds: int) -> str:
    return f"toUnixTimestamp(toStartOfInterval(time, INTERVAL {int(step_seconds)} SECOND, 'UTC'))"


def _also(by: str) -> str:
    return f", {_group(by)}" if by else ""


def _group(by: str) -> str:
    if by not in GROUPS:
        raise StoreError(f"unknown column {by!r}; known: {', '.join(GROUPS)}")
    return by


def _counted(rows: list[dict[str, Any]], quantiles: Sequence[float]) -> list[dict[str, Any]]:
    """Return *rows* with the *quantiles* of their ``counts`` in place of them."""
    return [
        {**{name: value for name, value in row.items() if name != "counts"},
         "quantiles": quantiles_of(row["counts"], quantiles)}
        for row in rows
    ]  # fmt: skip


def quantiles_of(counts: Sequence[int], quantiles: Sequence[float]) -> list[float]:
    """Return the *quantiles* of values of which ``counts[0]`` are zero and ``counts[n]`` lie in the n-th bucket; NaN of none.

    Raises:
        StoreError: A quantile is none.
    """
    if not all(0 <= quantile <= 1 for quantile in quantiles):
        raise StoreError(f"quantiles {list(quantiles)}: give numbers from 0 to 1")
    running = np.cumsum(np.asarray(counts, np.float64))
    if running[-1] == 0:
        return [math.nan] * len(quantiles)
    found = []
    for quantile in quantiles:
        wanted = max(quantile * running[-1], 0.5)
        slot = int(np.searchsorted(running, wanted))
        before = running[slot - 1] if slot else 0.0
        inside = (wanted - before) / (running[slot] - before)
        found.append(float(np.exp2((slot - 1 - BUCKETS + inside) / 4)) if slot else 0.0)
    return found
