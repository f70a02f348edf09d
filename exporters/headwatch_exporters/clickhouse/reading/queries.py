"""What the console and the demo ask of the store.  Parameters are bound by the server, never pasted into SQL."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from headwatch.errors import StoreError
from headwatch.model import HEAD_FEATURES
from headwatch_exporters.clickhouse.reading.findings import FindingsReader
from headwatch_exporters.clickhouse.reading.head_history import HeadHistory
from headwatch_exporters.clickhouse.reading.units import read_unit_signals, read_units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.records import HeadScope, Selection

_NORMAL_95 = 1.96


class StoreReader(FindingsReader):
    """Reads results back.  Every method returns plain values and may raise :class:`StoreError`."""

    def arms(self, since_ns: int = 0) -> list[dict[str, Any]]:
        """Return one row for each arm, in order of time: requests by state, mean ratios, 95 % intervals of the means.

        Each request counts as much as it stands for.  An interval is mean ± 1.96 · sd / √n over requests, with n the number of
        equally weighted requests that would tell as much, null below two; a mean is null where none defines it.
        """
        rows = self._connection.query(
            """
            SELECT arm, count() AS requests, countIf(state = 'measured') AS measured, countIf(state = 'absent') AS absent,
                   countIf(state = 'unresolved') AS unresolved, sum(rows_prefill + rows_decode) AS sampled_rows,
                   avgWeighted(grounding_ratio, weight) AS ratio, stddevSamp(grounding_ratio) AS ratio_sd,
                   pow(sumIf(weight, isNotNull(grounding_ratio)), 2)
                     / sumIf(weight * weight, isNotNull(grounding_ratio)) AS ratio_n,
                   avgWeighted(grounding_ratio_retrieval_heads, weight) AS retrieval,
                   stddevSamp(grounding_ratio_retrieval_heads) AS retrieval_sd,
                   pow(sumIf(weight, isNotNull(grounding_ratio_retrieval_heads)), 2)
                     / sumIf(weight * weight, isNotNull(grounding_ratio_retrieval_heads)) AS retrieval_n,
                   avgWeighted(document_mass, weight) AS document_mass_mean,
                   toUnixTimestamp64Nano(min(time)) AS first_time_ns, toUnixTimestamp64Nano(max(time)) AS last_time_ns
            FROM headwatch_requests
            WHERE time >= fromUnixTimestamp64Nano({since:Int64})
            GROUP BY arm ORDER BY first_time_ns
            """,
            {"since": since_ns},
        )
        return [
            {
                "arm": row["arm"],
                "requests": row["requests"],
                "measured": row["measured"],
                "absent": row["absent"],
                "unresolved": row["unresolved"],
                "sampled_rows": row["sampled_rows"],
                "grounding_ratio_mean": _defined(row["ratio"]),
                "grounding_ratio_ci95": _interval(row["ratio"], row["ratio_sd"], row["ratio_n"]),
                "grounding_ratio_retrieval_heads_mean": _defined(row["retrieval"]),
                "grounding_ratio_retrieval_heads_ci95": _interval(
                    row["retrieval"], row["retrieval_sd"], row["retrieval_n"]
                ),
                "document_mass_mean": _defined(row["document_mass_mean"]),
                "first_time_ns": row["first_time_ns"],
                "last_time_ns": row["last_time_ns"],
            }
            for row in rows
        ]

    def requests(self, arm: str = "", route: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the latest *limit* requests, newest first; an empty *arm* or *route* means any."""
        return self._connection.query(
            """
            SELECT toUnixTimestamp64Nano(time) AS time_ns, * EXCEPT (time)
            FROM headwatch_requests
            WHERE ({arm:String} = '' OR arm = {arm:String}) AND ({route:String} = '' OR route = {route:String})
            ORDER BY time DESC LIMIT {limit:UInt32}
            """,
            {"arm": arm, "route": route, "limit": limit},
        )

    def texts(self, request_id: str, limit: int = 200, /) -> list[dict[str, Any]]:
        """Return the texts of a request that have not expired, newest first; ``body`` is ciphertext in base64.

        Of completions the client sees ``cmpl-…``, and vLLM makes ``cmpl-…-0``, ``-1`` of it, one for each prompt: they are
        found too.
        """
        return self._connection.query(
            """
            SELECT toUnixTimestamp64Nano(time) AS time_ns, toUnixTimestamp64Nano(expires) AS expires_ns,
                   * EXCEPT (time, expires, body), base64Encode(body) AS body
            FROM headwatch_texts
            WHERE startsWith(request_id, {request_id:String}) AND expires > now64(9)
                  AND match(substring(request_id, length({request_id:String}) + 1), '^(-[0-9]+)?$')
            ORDER BY time DESC LIMIT {limit:UInt32}
            """,
            {"request_id": request_id, "limit": limit},
        )

    def heads(self, arm: str = "", feature: str = "lookback") -> dict[str, Any]:
        """Return mean and standard deviation of *feature* over requests, as [layers][heads]; null where undefined.

        Raises:
            StoreError: *feature* is none of ``HEAD_FEATURES``, or the store refuses.
        """
        if feature not in HEAD_FEATURES:
            raise StoreError(f"unknown feature {feature!r}; known: {', '.join(HEAD_FEATURES)}")
        rows = self._connection.query(
            f"""
            SELECT layer, head, avgWeightedIf({feature}, weight, NOT isNaN({feature})) AS mean,
                   stddevSampIf({feature}, NOT isNaN({feature})) AS sd, count() AS requests
            FROM headwatch_request_heads
            WHERE {{arm:String}} = '' OR arm = {{arm:String}}
            GROUP BY layer, head ORDER BY layer, head
            """,  # noqa: S608 - the feature is one of our own column names
            {"arm": arm},
        )
        layers = sorted({row["layer"] for row in rows})
        width = max((row["head"] for row in rows), default=-1) + 1
        place = {layer: number for number, layer in enumerate(layers)}
        mean: list[list[float | None]] = [[None] * width for _ in layers]
        deviation: list[list[float | None]] = [[None] * width for _ in layers]
        for row in rows:
            mean[place[row["layer"]]][row["head"]] = _defined(row["mean"])
            deviation[place[row["layer"]]][row["head"]] = _defined(row["sd"])
        return {
            "feature": feature,
            "layers": layers,
            "heads": width,
            "mean": mean,
            "sd": deviation,
            "requests": max((row["requests"] for row in rows), default=0),
        }

    def head_history(self, scope: HeadScope, step_seconds: int = 0, quantiles: Sequence[float] = ()) -> list[dict[str, Any]]:
        """Return the mean of each layer and head of *scope*, or its course in steps where *step_seconds* are given.

        With *quantiles*, those in place of the mean: of values within a bucket, see :mod:`.head_history`.
        """
        history = HeadHistory(self._connection)
        if step_seconds:
            return history.quantile_course(scope, step_seconds, quantiles) if quantiles else history.course(scope, step_seconds)
        return history.quantile_map(scope, quantiles) if quantiles else history.map(scope)

    def documents(self, arm: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the documents given most often: how often, how often found in the prompt, mean share drawn."""
        rows = self._connection.query(
            """
            SELECT document_id, any(source) AS source, count() AS requests, countIf(found) AS found,
                   avgWeighted(share, weight) AS share_mean
            FROM headwatch_documents
            WHERE {arm:String} = '' OR arm = {arm:String}
            GROUP BY document_id ORDER BY requests DESC, document_id LIMIT {limit:UInt32}
            """,
            {"arm": arm, "limit": limit},
        )
        return [{**row, "share_mean": _defined(row["share_mean"])} for row in rows]

    def units(
        self, selection: Selection, feature: str = "", length: int = 1, limit: int = 96, since_ns: int = 0,
        until_ns: int = 2**63 - 1,
    ) -> dict[str, Any]:  # fmt: skip
        """Return *selection* as units of *length* requests: see :mod:`headwatch_exporters.clickhouse.reading.units`."""
        return read_units(self._connection, selection, feature=feature, length=length, limit=limit, since_ns=since_ns,
                          until_ns=until_ns)  # fmt: skip

    def signals(
        self, selection: Selection, length: int = 1, limit: int = 96, since_ns: int = 0, until_ns: int = 2**63 - 1,
        first: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the signals of the same units from *first* on: see :mod:`.unit_signals`."""
        return read_unit_signals(self._connection, selection, length=length, limit=limit, since_ns=since_ns,
                                 until_ns=until_ns, first=first)  # fmt: skip

    def counts(self) -> dict[str, int]:
        """Return how many rows the store holds."""
        (row,) = self._connection.query(
            """
            SELECT (SELECT count() FROM otel_metrics_gauge) + (SELECT count() FROM otel_metrics_sum)
                   + (SELECT count() FROM otel_metrics_histogram) + (SELECT count() FROM otel_metrics_exp_histogram)
                   AS otel_rows,
                   (SELECT count() FROM headwatch_requests) AS requests,
                   (SELECT count() FROM headwatch_documents) AS documents,
                   (SELECT count() FROM headwatch_request_heads) AS request_heads,
                   (SELECT sum(rows_prefill + rows_decode) FROM headwatch_requests) AS sampled_rows
            """
        )
        return {name: int(value or 0) for name, value in row.items()}


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _interval(mean: float | None, deviation: float | None, count: float) -> list[float] | None:
    if not count >= 2 or mean is None or deviation is None or math.isnan(deviation):  # noqa: PLR2004 - no spread of one value
        return None
    half = _NORMAL_95 * deviation / math.sqrt(count)
    return [mean - half, mean + half]
