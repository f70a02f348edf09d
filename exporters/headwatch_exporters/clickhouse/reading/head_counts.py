"""The requests of some heads as counts by bucket, before and since a moment.

The database counts, so at most 129 rows a head and side cross the network.  Buckets are those of
:mod:`headwatch.aggregate.histogram`.  A row of ``headwatch_request_heads`` is one sampled request and head, a mean over its
generated tokens, and counts once whatever it stands for: effect sizes deal requests anew, which weights would not allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.aggregate.histogram import BUCKETS, SCALE
from headwatch.drift.effects.sizes import HeadCounts
from headwatch.errors import StoreError
from headwatch.model import REQUEST_FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.findings import NamedHead
    from headwatch_exporters.clickhouse.connection import Connection

MOST_HEADS = 16
MOST_SPAN_NS = 24 * 3600 * 10**9
"""How far rows may lie before or after the moment; what lies further is left out."""


def read_head_counts(
    connection: Connection, heads: Sequence[NamedHead], *, since_ns: int, first_ns: int, last_ns: int
) -> list[HeadCounts]:
    """Return the counts of each of *heads* from *first_ns* to before *since_ns*, and from there to *last_ns*.

    One query for each model, feature and route.

    Raises:
        StoreError: There are too many heads, a feature is none that is kept for requests as a share, or the store refuses.
    """
    if len(heads) > MOST_HEADS:
        raise StoreError(f"{len(heads)} heads are asked for; at most {MOST_HEADS} are counted")
    if unknown := {one.feature for one in heads} - set(REQUEST_FEATURES):
        raise StoreError(f"unknown feature {min(unknown)!r}; known: {', '.join(REQUEST_FEATURES)}")
    first_ns, last_ns = bounded(since_ns, first_ns, last_ns)
    given = {"since": since_ns, "first": first_ns, "last": last_ns}
    counts = {_key(one): np.zeros((2, BUCKETS + 1), np.int64) for one in heads}
    totals = {key: [0.0, 0.0] for key in counts}
    for model, feature, route in sorted({key[2:] for key in counts}):
        places = [key[:2] for key in counts if key[2:] == (model, feature, route)]
        for row in _counted(connection, feature, {**given, "model": model, "route": route, "heads": places}):
            key, side = (row["layer"], row["head"], model, feature, route), int(row["side"])
            counts[key][side, row["slot"]] = row["requests"]
            totals[key][side] += row["total"]
    return [HeadCounts(one, *counts[_key(one)], *totals[_key(one)]) for one in heads]


def bounded(since_ns: int, first_ns: int, last_ns: int) -> tuple[int, int]:
    """Return the first and the last moment that are read, where *first_ns* and *last_ns* are asked for."""
    return max(first_ns, since_ns - MOST_SPAN_NS), min(last_ns, since_ns + MOST_SPAN_NS)


def _key(head: NamedHead) -> tuple[int, int, str, str, str]:
    return head.layer, head.head, head.model, head.feature, head.route


def _counted(connection: Connection, feature: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return requests and the sum of their values by layer, head, side (1: since) and slot of the histogram (0: zero)."""
    eighths = f"ceil(log2(least({feature}, 1)) * {1 << SCALE})"  # of an octave, from -127 in the first bucket to 0 in the last
    return connection.query(
        f"""
        SELECT layer, head, time >= fromUnixTimestamp64Nano({{since:Int64}}) AS side,
               toUInt8(if({feature} > 0, greatest({eighths} + {BUCKETS}, 0), 0)) AS slot,
               count() AS requests, sum(toFloat64({feature})) AS total
        FROM headwatch_request_heads
        WHERE (layer, head) IN {{heads:Array(Tuple(UInt16, UInt16))}} AND isFinite({feature})
          AND ({{model:String}} = '' OR model = {{model:String}}) AND ({{route:String}} = '' OR route = {{route:String}})
          AND time >= fromUnixTimestamp64Nano({{first:Int64}}) AND time <= fromUnixTimestamp64Nano({{last:Int64}})
        GROUP BY layer, head, side, slot
        """,  # noqa: S608 - the feature is one of our own column names
        given,
    )
