"""Conditions that the queries share: the time range of the dashboard and what is chosen in its variables.

Each table is read under an alias and each column through it: ClickHouse puts an alias of the SELECT list in place of a
column of the same name in WHERE, so that ``$__timeInterval(time) AS time`` would silently move the bounds of the range.
Every table is bounded by ``$__timeFilter``; :mod:`headwatch_dashboards.lint` refuses a query in which one is not.
"""

from __future__ import annotations

from headwatch.metrics import ATTR_MODEL, ATTR_RANK, metric
from headwatch_dashboards.names import MODEL_VARIABLE, ROUTE_VARIABLE, UNNAMED_ROUTE

WORKER = f"concat(m.ResourceAttributes['service.instance.id'], ' rank ', m.Attributes['{ATTR_RANK}'])"
"""One worker of one engine, as a label."""
SERIES = "cityHash64(m.MetricName, toString(m.ResourceAttributes), toString(m.Attributes), m.StartTimeUnix)"
"""One series of one life of its process."""


def named(expression: str, otherwise: str) -> str:
    """Return the expression as a string, with *otherwise* in place of the empty one."""
    return f"if({expression} = '', '{otherwise}', toString({expression}))"


def chosen(expression: str, variable: str, *, also: str = "") -> str:
    """Return a condition that holds where the dashboard's *variable* is "All" or contains *expression*."""
    return f"$__conditionalAll({expression} IN (${{{variable}:singlequote}}{also}), ${variable})"


def evidence(alias: str) -> str:
    """Return the condition on a table of evidence: time, route and model as chosen."""
    return (
        f"$__timeFilter({alias}.time)\n"
        f"  AND {chosen(named(f'{alias}.route', UNNAMED_ROUTE), ROUTE_VARIABLE)}\n"
        f"  AND {chosen(f'{alias}.model', MODEL_VARIABLE)}"
    )


def metrics(*names: str) -> str:
    """Return the condition on a table of metrics ``m``: time, names, and the model where the metric has one."""
    listed = ", ".join(f"'{metric(name).name}'" for name in names)
    model = chosen(f"m.Attributes['{ATTR_MODEL}']", MODEL_VARIABLE, also=", ''")
    return f"m.MetricName IN ({listed})\n  AND $__timeFilter(m.TimeUnix)\n  AND {model}"
