"""The requests of an arm as units for ``headwatch compare``: means over some consecutive requests, by stratum.

The database makes the units, so what crosses the network is bounded by units, strata and heads, however many requests there
were.  A unit is the same stretch of requests in every stratum, figure and head, because they are compared together.

Means weigh a request by how many it stands for; what is undefined is left out and counted.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.bands import context_band
from headwatch.errors import StoreError
from headwatch.model import HEAD_FEATURES

if TYPE_CHECKING:
    from headwatch_exporters.clickhouse.connection import Connection

MOST_REQUESTS = 50_000
MOST_VALUE_BYTES = 11 * 1024 * 1024
_KEY = "unit, adapter, route, band, language, template"
_FIGURES = {
    "documents_absent": "toFloat64(state = 'absent')",
    "documents_unresolved": "toFloat64(state = 'unresolved')",
    "document_count": "toFloat64(documents)",
    "grounding_ratio": "grounding_ratio",
    "grounding_ratio_retrieval": "grounding_ratio_retrieval_heads",
    "document_mass": "document_mass",
    "instruction_focus": "instruction_focus",
    "history_mass": "history_mass",
}
"""Signal to what it is of one request."""
_CHOSEN = """
    SELECT *, intDiv(row_number() OVER (ORDER BY time, engine_id) - 1, {length:UInt32}) AS unit,
           toInt32(floor(log2(greatest(prompt_tokens, 1)))) AS band
    FROM (
        SELECT * FROM headwatch_requests
        WHERE arm = {arm:String} AND rows_decode > 0
          AND time >= fromUnixTimestamp64Nano({since:Int64}) AND time < fromUnixTimestamp64Nano({until:Int64})
        ORDER BY time DESC, engine_id DESC LIMIT {most:UInt32}
    )
"""


def read_units(
    connection: Connection, arm: str, *, feature: str, length: int, limit: int, since_ns: int, until_ns: int
) -> dict[str, Any]:
    """Return the latest *limit* units of *length* requests of *arm* from *since_ns* to before *until_ns*.

    Without a *feature*: for each unit and stratum its requests, mean log2 of the prompt's tokens, templates and figures as
    ``[mean, requests]``.  With one: the mean of each head as well, little-endian float32, layer by layer, in base64.

    Raises:
        StoreError: The store refuses, *feature* is unknown, or the answer would be too large.
    """
    given = {"arm": arm, "length": length, "most": min(limit * length, MOST_REQUESTS), "since": since_ns, "until": until_ns}
    if feature:
        return {"feature": feature, "units": _heads(connection, feature, given)}
    (total,) = connection.query(
        """
        SELECT count() AS requests, groupUniqArray(16)(model) AS models, groupUniqArray(16)(revision) AS revisions
        FROM headwatch_requests
        WHERE arm = {arm:String} AND rows_decode > 0
          AND time >= fromUnixTimestamp64Nano({since:Int64}) AND time < fromUnixTimestamp64Nano({until:Int64})
        """,
        given,
    )
    (shape,) = connection.query(
        "SELECT max(layer) + 1 AS layers, max(head) + 1 AS heads FROM headwatch_request_heads WHERE arm = {arm:String}", given
    )
    return {
        "requests": int(total["requests"]),
        "models": sorted(total["models"]),
        "revisions": sorted(total["revisions"]),
        "layers": int(shape["layers"]) if total["requests"] else 0,
        "heads": int(shape["heads"]) if total["requests"] else 0,
        "units": _figures(connection, given),
    }


def _figures(connection: Connection, given: dict[str, Any]) -> list[dict[str, Any]]:
    columns = ", ".join(
        f"avgWeightedIf(assumeNotNull({of}), weight, isNotNull({of})) AS mean_{name}, countIf(isNotNull({of})) AS count_{name}"
        for name, of in _FIGURES.items()
    )
    rows = connection.query(
        f"""
        SELECT {_KEY}, count() AS requests, avg(log2(greatest(prompt_tokens, 1))) AS length,
               sumMap(map(toString(prompt_digest), toUInt64(1))) AS templates,
               toUnixTimestamp64Nano(min(time)) AS first_ns, toUnixTimestamp64Nano(max(time)) AS last_ns, {columns}
        FROM ({_CHOSEN}) GROUP BY {_KEY} ORDER BY {_KEY}
        """,  # noqa: S608 - put together from our own constants
        given,
    )
    return [
        {
            **_key(row),
            "requests": int(row["requests"]),
            "length": float(row["length"]),
            "first_ns": int(row["first_ns"]),
            "last_ns": int(row["last_ns"]),
            "templates": {digest: int(count) for digest, count in row["templates"].items() if digest},
            "figures": {
                name: [float(row[f"mean_{name}"]), int(row[f"count_{name}"])] for name in _FIGURES if row[f"count_{name}"]
            },
        }
        for row in rows
    ]


def _heads(connection: Connection, feature: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    if feature not in HEAD_FEATURES:
        raise StoreError(f"unknown feature {feature!r}; known: {', '.join(HEAD_FEATURES)}")
    rows = connection.query(
        f"""
        SELECT {_KEY}, max(requests) AS requests, arrayMap(x -> x.3, arraySort(groupArray((layer, head, mean)))) AS means
        FROM (
            SELECT {_KEY}, layer, head, uniqExact(engine_id) AS requests,
                   avgWeightedIf({feature}, part, NOT isNaN({feature})) AS mean
            FROM (SELECT engine_id, request_id, layer, head, {feature}, weight AS part
                  FROM headwatch_request_heads WHERE arm = {{arm:String}}) AS head
            INNER JOIN ({_CHOSEN}) AS chosen USING (engine_id, request_id)
            GROUP BY {_KEY}, layer, head
        )
        GROUP BY {_KEY} ORDER BY {_KEY}
        """,  # noqa: S608 - the feature is one of our own column names
        given,
    )
    size = sum(4 * len(row["means"]) for row in rows)
    if size > MOST_VALUE_BYTES:
        raise StoreError(f"{len(rows)} units and strata take {size} bytes, more than {MOST_VALUE_BYTES}: ask for fewer units")
    return [
        {**_key(row), "requests": int(row["requests"]),
         "values": base64.b64encode(np.asarray(row["means"], "<f4").tobytes()).decode()}
        for row in rows
    ]  # fmt: skip


def _key(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "unit": int(row["unit"]), "adapter": row["adapter"], "route": row["route"], "band": context_band(1 << int(row["band"])),
        "language": row["language"], "template": row["template"],
    }  # fmt: skip
