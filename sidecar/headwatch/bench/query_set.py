"""The queries of ``headwatch bench query``: what the API, the dashboards and the alert rules ask, as they ask it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwatch.bench.query_data import FEATURE, MINUTE_REPLICAS
from headwatch.records import HeadScope

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.bench.query_data import Fleet
    from headwatch_exporters.clickhouse.connection import Connection

_DAY, _HOUR = 86_400, 3600


@dataclass(frozen=True, slots=True)
class Query:
    """One query: what it asks, and how it is asked."""

    name: str
    asks: str
    ask: Callable[[], Any]


def queries(connection: Connection, fleet: Fleet) -> list[Query]:
    """Return all of them."""
    return [*_heads(connection, fleet), *_evidence(connection, fleet), *_dashboard(connection, fleet)]


def _heads(connection: Connection, fleet: Fleet) -> list[Query]:
    from headwatch_exporters.clickhouse.reading.head_history import HeadHistory  # noqa: PLC0415

    history, last, month, week = HeadHistory(connection), fleet.last, fleet.first, fleet.last - 7 * _DAY
    one = f"engine-{fleet.replicas - MINUTE_REPLICAS:04d}"
    layer, head = fleet.layers // 2, fleet.heads // 3

    def scope(first: int, **fields: Any) -> HeadScope:
        return HeadScope(FEATURE, first, last, **fields)

    return [
        Query("map, month", "mean of every head, 30 days, all replicas", lambda: history.map(scope(month))),
        Query("map, day", "the same of the last day", lambda: history.map(scope(last - _DAY))),
        Query("map, hour, replica", "mean of every head of one replica, last hour by the minute",
              lambda: history.map(scope(last - _HOUR, instance=one))),
        Query("quantile map, month", "p10, p50, p90 of every head, 30 days, all replicas",
              lambda: history.quantile_map(scope(month), (0.1, 0.5, 0.9))),
        Query("quantile map, replica", "the same of one replica",
              lambda: history.quantile_map(scope(month, instance=one), (0.5,))),
        Query("quantile map, layer, day", "p10, p50, p90 of one layer's heads, last day, all replicas",
              lambda: history.quantile_map(scope(last - _DAY, layer=layer), (0.1, 0.5, 0.9))),
        Query("course, month, hourly", "mean of all heads hour by hour, 30 days, all replicas",
              lambda: history.course(scope(month), _HOUR)),
        Query("course by layer, month, hourly", "the same for each layer",
              lambda: history.course(scope(month), _HOUR, "layer")),
        Query("course by replica, month, daily", "mean of each replica day by day",
              lambda: history.course(scope(month), _DAY, "instance")),
        Query("course of a head, month, hourly", "mean of one head hour by hour, all replicas",
              lambda: history.course(scope(month, layer=layer, head=head), _HOUR)),
        Query("course of a head, day, minutes", "mean of one head minute by minute, last day",
              lambda: history.course(scope(last - _DAY, layer=layer, head=head, instance=one), 60)),
        Query("quantile course of a head, month, hourly", "p10, p50, p90 of one head hour by hour, all replicas",
              lambda: history.quantile_course(scope(month, layer=layer, head=head), _HOUR, (0.1, 0.5, 0.9))),
        Query("quantile course, month, daily", "p10, p50, p90 of all heads day by day, all replicas",
              lambda: history.quantile_course(scope(month), _DAY, (0.1, 0.5, 0.9))),
        Query("replicas, month", "mean of each replica, 30 days", lambda: history.groups(scope(month), "instance")),
        Query("replicas, week", "mean of each replica, 7 days", lambda: history.groups(scope(week), "instance")),
        Query("strata, week", "mean of each stratum, 7 days", lambda: history.groups(scope(week), "stratum")),
        Query("distribution of a head, month", "its whole histogram, 30 days, all replicas",
              lambda: history.distribution(scope(month, layer=layer, head=head))),
        Query("distribution, month", "the histogram of all heads, 30 days, all replicas",
              lambda: history.distribution(scope(month))),
        Query("moved heads, month", "which heads moved most between two halves of 30 days",
              lambda: history.moved(scope(month), month + 15 * _DAY)),
        Query("moved heads, replica, day", "the same of one replica within the last day",
              lambda: history.moved(scope(last - _DAY, instance=one), last - 12 * _HOUR)),
    ]  # fmt: skip


def _evidence(connection: Connection, fleet: Fleet) -> list[Query]:
    from headwatch_exporters.clickhouse.reading.queries import StoreReader  # noqa: PLC0415

    reader = StoreReader(connection)
    return [
        Query("API arms", "/api/v1/arms of 30 days", lambda: reader.arms(fleet.first * 10**9)),
        Query("API requests", "/api/v1/requests, latest 200", lambda: reader.requests(route="route-1")),
        Query("API heads", "/api/v1/heads of one arm", lambda: reader.heads("a")),
        Query("API documents", "/api/v1/documents", reader.documents),
    ]


def _dashboard(connection: Connection, fleet: Fleet) -> list[Query]:
    from headwatch_dashboards.macros import ALL, QueryRange, expand  # noqa: PLC0415
    from headwatch_dashboards.names import MODEL_VARIABLE, PHASE_VARIABLE, ROUTE_VARIABLE  # noqa: PLC0415
    from headwatch_dashboards.queries import alert, grounding, heads  # noqa: PLC0415

    variables = {ROUTE_VARIABLE: ALL, MODEL_VARIABLE: ALL, PHASE_VARIABLE: ("decode",)}
    month = QueryRange(fleet.first, fleet.last)
    panels = {
        "grounding over time": grounding.grounding_over_time(),
        "states over time": grounding.states_over_time(),
        "share of documents": grounding.document_share(),
        "least grounded requests": grounding.least_grounded_requests(),
        "worst heads": heads.worst_heads(),
    }

    def asked(sql: str, query_range: QueryRange) -> Callable[[], Any]:
        text = expand(sql, query_range, variables)
        return lambda: connection.query(text)

    found = [
        Query("panel grounding of heads, day", "the dashboard's map of heads, last day by the minute",
              asked(heads.head_grounding(), QueryRange(fleet.last - _DAY, fleet.last))),
    ]  # fmt: skip
    found += [Query(f"panel {name}", "the dashboard's panel, 30 days", asked(sql, month)) for name, sql in panels.items()]
    recent = QueryRange(fleet.last - alert.RANGE_SECONDS, fleet.last)
    return [*found, Query("alert grounding drop", "the alert rule, every minute", asked(alert.grounding_drop(), recent))]
