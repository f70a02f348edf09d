"""Builders for the parts of a Grafana dashboard: plain dictionaries with the keys that Grafana documents.

They hold no opinion beyond what every panel of ours has: a data source, a unit, a description and a text for when there
is nothing to show.  :mod:`headwatch_dashboards.schema_check` holds the result against Grafana's own types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from headwatch_dashboards.names import DATASOURCE_PLUGIN_VERSION, DATASOURCE_TYPE, DATASOURCE_UID, GRAFANA_VERSION

JsonValue: TypeAlias = "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
Json: TypeAlias = Mapping[str, JsonValue]

PanelKind = Literal["barchart", "stat", "table", "timeseries"]

DATASOURCE: Json = {"type": DATASOURCE_TYPE, "uid": DATASOURCE_UID}

_FORMATS = {"timeseries": 0, "table": 1}


def target(sql: str, *, query_type: Literal["timeseries", "table"], ref_id: str = "A") -> Json:
    """Return a query of a panel.  A time series needs a column ``time`` in ascending order; strings become labels."""
    return {
        "refId": ref_id,
        "datasource": DATASOURCE,
        "editorType": "sql",
        "queryType": query_type,
        "format": _FORMATS[query_type],
        "rawSql": sql,
        "pluginVersion": DATASOURCE_PLUGIN_VERSION,
    }


def panel(  # noqa: PLR0913 - a panel has so many parts; all but the first four by name
    kind: PanelKind,
    title: str,
    description: str,
    sql: str,
    *,
    unit: str,
    no_value: str,
    options: Json,
    defaults: Json | None = None,
    custom: Json | None = None,
    overrides: Sequence[Json] = (),
    transformations: Sequence[Json] = (),
) -> Json:
    """Return a panel without its id and place, which the dashboard gives it.

    *unit* is Grafana's name of it (``percentunit``, ``s``, ``short``).  *defaults* are further field settings,
    *custom* those of the panel type.
    """
    fields = {"unit": unit, "noValue": no_value, **(defaults or {})}
    if custom:
        fields["custom"] = custom
    built: dict[str, JsonValue] = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "pluginVersion": GRAFANA_VERSION,
        "targets": [target(sql, query_type="timeseries" if kind == "timeseries" else "table")],
        "fieldConfig": {"defaults": fields, "overrides": list(overrides)},
        "options": options,
    }
    if kind == "timeseries":
        built["interval"] = "1m"  # a point is a window; finer ones hold too few requests to mean anything
    if transformations:
        built["transformations"] = list(transformations)
    return built


def thresholds(base: str, *steps: tuple[float, str]) -> Json:
    """Return absolute thresholds: *base* colour from minus infinity, then each (value, colour)."""
    first: Json = {"color": base, "value": None}
    return {"mode": "absolute", "steps": [first, *({"color": color, "value": value} for value, color in steps)]}


def override(column: str, properties: Json) -> Json:
    """Return field settings for the column of that name."""
    return _override("byName", column, properties)


def override_matching(pattern: str, properties: Json) -> Json:
    """Return field settings for every field whose displayed name matches the regular expression."""
    return _override("byRegexp", f"/{pattern}/", properties)


def _override(matcher: str, argument: str, properties: Json) -> Json:
    settings: list[Json] = [{"id": key, "value": value} for key, value in properties.items()]
    return {"matcher": {"id": matcher, "options": argument}, "properties": settings}


def value_names(names: Mapping[str, tuple[str, str]]) -> Json:
    """Return a value mapping: value (as text) to (shown text, colour)."""
    return {
        "type": "value",
        "options": {
            value: {"text": text, "color": color, "index": index} for index, (value, (text, color)) in enumerate(names.items())
        },
    }


def stat_options(*, text_mode: str = "auto", color_mode: str = "value") -> Json:
    """Return options of a stat panel that shows the first row, one figure for each column."""
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": color_mode,
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "vertical",
        "percentChangeColorMode": "standard",
        "showPercentChange": False,
        "textMode": text_mode,
        "wideLayout": True,
    }


def timeseries_options(*, legend_calcs: Sequence[str] = ()) -> Json:
    """Return options of a time series with its legend as a list below, or as a table where it carries figures."""
    return {
        "legend": {
            "calcs": list(legend_calcs),
            "displayMode": "table" if legend_calcs else "list",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc", "hideZeros": False},
    }


def lines(*, width: float = 2, gap_seconds: int = 600) -> Json:
    """Return lines with points; a gap longer than *gap_seconds* stays a gap."""
    return {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": width,
        "fillOpacity": 0,
        "showPoints": "auto",
        "pointSize": 5,
        "spanNulls": gap_seconds * 1000,
    }


def stacked_bars() -> Json:
    """Return stacked bars, for counts that add up."""
    return {
        "drawStyle": "bars",
        "barAlignment": 1,
        "fillOpacity": 70,
        "lineWidth": 0,
        "showPoints": "never",
        "stacking": {"mode": "normal", "group": "A"},
    }


def table_options(*, sort_by: str = "", descending: bool = False) -> Json:
    """Return options of a table; rows keep the order of the query unless *sort_by* names a column."""
    options: dict[str, JsonValue] = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    if sort_by:
        options["sortBy"] = [{"displayName": sort_by, "desc": descending}]
    return options
