"""Requests as units for ``headwatch compare``: means over some consecutive requests, by stratum.

Units are made where the store is read, so what crosses the network is bounded by units, strata and heads, however many requests
there were.  A unit is the same stretch of requests in every stratum, figure and head, because they are compared together.

Means weigh a request by how many it stands for; what is undefined is left out and counted.  Signals of retrieval are in
:mod:`headwatch_exporters.clickhouse.reading.unit_signals`.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headwatch.bands import FIRST_BAND, context_band
from headwatch.errors import StoreError
from headwatch.model import HEAD_FEATURES
from headwatch_exporters.clickhouse.reading.unit_signals import read_signals

if TYPE_CHECKING:
    from headwatch.records import Selection
    from headwatch_exporters.clickhouse.connection import Connection

MOST_REQUESTS = 50_000
MOST_VALUE_BYTES = 11 * 1024 * 1024
_KEY = "unit, adapter, route, band, language, template"


def read_units(
    connection: Connection, selection: Selection, *, feature: str, length: int, limit: int, since_ns: int, until_ns: int
) -> dict[str, Any]:
    """Return the latest *limit* units of *length* requests of *selection* from *since_ns* to before *until_ns*.

    Without a *feature*: for each unit and stratum its requests, mean log2 of the prompt's tokens and templates.  With one: the
    mean of each head as well, little-endian float32, layer by layer, in base64.

    Raises:
        StoreError: The store refuses, *feature* is unknown, or the answer would be too large.
    """
    given = _given(selection, length, limit, since_ns, until_ns)
    where = _where(selection)
    if feature:
        return {"feature": feature, "units": _heads(connection, feature, selection, given)}
    (total,) = connection.query(
        f"""
        SELECT count() AS requests, groupUniqArray(16)(model) AS models, groupUniqArray(16)(revision) AS revisions
        FROM headwatch_requests WHERE {where}
        """,  # noqa: S608 - put together from our own constants
        given,
    )
    of_one = replace(selection, model=total["models"][0]) if len(total["models"]) == 1 else selection
    (shape,) = connection.query(
        f"SELECT max(layer) + 1 AS layers, max(head) + 1 AS heads FROM headwatch_request_heads WHERE {_of_heads(of_one)}",  # noqa: S608 - likewise
        of_one.given(),
    )
    return {
        "requests": int(total["requests"]),
        "models": sorted(total["models"]),
        "revisions": sorted(total["revisions"]),
        "layers": int(shape["layers"]) if total["requests"] else 0,
        "heads": int(shape["heads"]) if total["requests"] else 0,
        "units": _strata(connection, _chosen(where), given),
    }


def read_unit_signals(
    connection: Connection, selection: Selection, *, length: int, limit: int, since_ns: int, until_ns: int, first: int
) -> dict[str, Any]:
    """Return the signals of retrieval of the same units: see :func:`.unit_signals.read_signals`.

    Raises:
        StoreError: The store refuses.
    """
    return read_signals(connection, _chosen(_where(selection)), _given(selection, length, limit, since_ns, until_ns), first)


def _given(selection: Selection, length: int, limit: int, since_ns: int, until_ns: int) -> dict[str, Any]:
    return {**selection.given(), "length": length, "most": min(limit * length, MOST_REQUESTS), "since": since_ns,
            "until": until_ns, "shortest": FIRST_BAND // 2}  # fmt: skip


def _where(selection: Selection) -> str:
    """Return what holds of the requests that are meant."""
    return " AND ".join((
        "rows_decode > 0 AND time >= fromUnixTimestamp64Nano({since:Int64}) AND time < fromUnixTimestamp64Nano({until:Int64})",
        *(f"{name} = {{{name}:String}}" for name in selection.given()),
    ))  # fmt: skip


def _of_heads(selection: Selection) -> str:
    """Return what is known to hold of the heads of these requests, to look through fewer."""
    known = [f"{name} = {{{name}:String}}" for name in ("arm", "model") if name in selection.given()]
    return " AND ".join(known) or "true"


def _chosen(where: str) -> str:
    """Return the query for the latest requests of *where*, each with the unit that it belongs to."""
    return f"""
        SELECT *, intDiv(row_number() OVER (ORDER BY time, engine_id) - 1, {{length:UInt32}}) AS unit,
               toInt32(floor(log2(greatest(prompt_tokens, {{shortest:UInt32}})))) AS band
        FROM (
            SELECT * FROM headwatch_requests WHERE {where}
            ORDER BY time DESC, engine_id DESC LIMIT {{most:UInt32}}
        )
    """  # noqa: S608 - put together from our own constants


def _strata(connection: Connection, chosen: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    rows = connection.query(
        f"""
        SELECT {_KEY}, count() AS requests, avg(log2(greatest(prompt_tokens, 1))) AS length,
               sumMap(map(toString(prompt_digest), toUInt64(1))) AS templates,
               toUnixTimestamp64Nano(min(time)) AS first_ns, toUnixTimestamp64Nano(max(time)) AS last_ns
        FROM ({chosen}) GROUP BY {_KEY} ORDER BY {_KEY}
        """,  # noqa: S608 - likewise
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
        }
        for row in rows
    ]


def _heads(
    connection: Connection, feature: str, selection: Selection, given: dict[str, Any]
) -> list[dict[str, Any]]:
    if feature not in HEAD_FEATURES:
        raise StoreError(f"unknown feature {feature!r}; known: {', '.join(HEAD_FEATURES)}")
    rows = connection.query(
        f"""
        SELECT {_KEY}, max(requests) AS requests, arrayMap(x -> x.3, arraySort(groupArray((layer, head, mean)))) AS means
        FROM (
            SELECT {_KEY}, layer, head, uniqExact(engine_id) AS requests,
                   avgWeightedIf({feature}, part, NOT isNaN({feature})) AS mean
            FROM (SELECT engine_id, request_id, layer, head, {feature}, weight AS part
                  FROM headwatch_request_heads WHERE {_of_heads(selection)}) AS head
            INNER JOIN ({_chosen(_where(selection))}) AS chosen USING (engine_id, request_id)
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
