"""Queries are expanded as Grafana and its ClickHouse plugin expand them."""

from __future__ import annotations

import pytest

from headwatch.errors import CommandError
from headwatch_dashboards.macros import ALL, QueryRange, expand

RANGE = QueryRange(1000, 4600, 30)


@pytest.mark.parametrize(("sql", "expected"), [
    ("$__timeFilter(r.time)", "r.time >= toDateTime(1000) AND r.time <= toDateTime(4600)"),
    ("$__timeInterval(r.time)", "toStartOfInterval(toDateTime(r.time), INTERVAL 30 second)"),
    ("$__fromTime", "toDateTime(1000)"),
    ("$__toTime - INTERVAL 5 MINUTE", "toDateTime(4600) - INTERVAL 5 MINUTE"),
    ("count() / $__interval_s", "count() / 30"),
    ("$__timeFilter(toDateTime(a, 'UTC'))", None),
    ("SELECT 1", "SELECT 1"),
])
def test_macros(sql, expected):
    """Each macro becomes what the plugin's backend makes of it."""
    if expected is None:
        with pytest.raises(CommandError, match="one argument"):
            expand(sql.replace("(toDateTime(a, 'UTC'))", "(a, b)"), RANGE)
    else:
        assert expand(sql, RANGE) == expected


def test_all_removes_the_condition():
    """With All chosen a condition holds for every row; with values chosen it is kept."""
    sql = "WHERE $__conditionalAll(if(route = '', 'x', route) IN (${route:singlequote}), $route) AND 1"
    assert expand(sql, RANGE, {"route": ALL}) == "WHERE 1=1 AND 1"
    chosen = expand(sql, RANGE, {"route": ("qa", "chat")})
    assert chosen == "WHERE if(route = '', 'x', route) IN ('qa','chat') AND 1"


def test_quotes_in_a_value_cannot_end_the_literal():
    """A route named by a client cannot break out of its quotes."""
    assert expand("x = ${v:singlequote}", RANGE, {"v": ("a' OR 1",)}) == "x = 'a\\' OR 1'"


@pytest.mark.parametrize(("sql", "message"), [
    ("$__timeFiltre(a)", "unknown macro"),
    ("x = ${rout:singlequote}", "unknown variable"),
    ("x IN (${route:singlequote})", "outside of"),
    ("x = '$model'", "so that values are quoted"),
    ("$__conditionalAll(a = 1)", "a condition and a variable"),
    ("$__conditionalAll(a = 1, route)", "no variable"),
    ("$__timeFilter(a", "not closed"),
    ("$__timeFilter", "one argument"),
])
def test_what_would_fail_in_grafana_is_refused(sql, message):
    """A misspelt macro or variable, and a variable that All would leave without values, are errors that say so."""
    with pytest.raises(CommandError, match=message):
        expand(sql, RANGE, {"route": ALL, "model": ("m",)})
