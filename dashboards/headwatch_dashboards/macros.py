"""Expand a query as Grafana and its ClickHouse plugin do, so that it can be run without either.

Three steps in the order of plugin 4.20: ``$__conditionalAll`` (in the browser, the last one first), dashboard variables
(Grafana's template service), then the time macros (in the plugin's backend).  The plugin leaves an unknown macro as it
is, for the server to refuse; here it is an error at once, since no query of ours may hold one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALL: tuple[str, ...] = ()
"""Value of a variable on which "All" is chosen."""

_CONDITIONAL_ALL = "$__conditionalAll("
_VARIABLE = re.compile(r"\$\{(?P<braced>[a-zA-Z]\w*)(?::(?P<format>\w+))?\}|\$(?P<bare>[a-zA-Z]\w*)")
_MACRO = re.compile(r"\$__(?P<name>\w+)")


@dataclass(frozen=True, slots=True)
class QueryRange:
    """The time range and interval of a query."""

    from_seconds: int
    to_seconds: int
    interval_seconds: int = 60


def expand(sql: str, query_range: QueryRange, variables: Mapping[str, tuple[str, ...]] | None = None) -> str:
    """Return *sql* as the server receives it.  *variables* maps a name to the chosen values (:data:`ALL`: "All").

    Raises:
        CommandError: A macro or variable that does not exist, wrong arguments, or a variable with "All" chosen that is
            used outside of ``$__conditionalAll``.
    """
    values = variables or {}
    return _expand_macros(_replace_variables(_apply_conditions(sql, values), values), query_range)


def _apply_conditions(sql: str, variables: Mapping[str, tuple[str, ...]]) -> str:
    while (start := sql.rfind(_CONDITIONAL_ALL)) != -1:
        arguments, end = _arguments(sql, start + len(_CONDITIONAL_ALL) - 1)
        if len(arguments) != 2:  # noqa: PLR2004 - a condition and a variable
            raise CommandError(f"$__conditionalAll takes a condition and a variable, not {arguments}")
        condition, variable = arguments
        found = _VARIABLE.fullmatch(variable.strip())
        if found is None:
            raise CommandError(f"$__conditionalAll: {variable.strip()!r} is no variable")
        chosen = _chosen(found, variables)
        sql = sql[:start] + (condition if chosen else "1=1") + sql[end:]
    return sql


def _replace_variables(sql: str, variables: Mapping[str, tuple[str, ...]]) -> str:
    def value(found: re.Match[str]) -> str:
        chosen = _chosen(found, variables)
        if not chosen:
            raise CommandError(f"{found[0]}: 'All' is chosen, and the variable stands outside of $__conditionalAll")
        if found["format"] == "singlequote":
            return ",".join("'" + item.replace("'", "\\'") + "'" for item in chosen)
        raise CommandError(f"{found[0]}: write ${{{found['braced'] or found['bare']}:singlequote}}, so that values are quoted")

    return _VARIABLE.sub(value, sql)


def _chosen(found: re.Match[str], variables: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    name = found["braced"] or found["bare"]
    if name not in variables:
        raise CommandError(f"unknown variable ${name}; known: {', '.join(sorted(variables)) or 'none'}")
    return variables[name]


def _expand_macros(sql: str, query_range: QueryRange) -> str:
    expanded, position = [], 0
    while (found := _MACRO.search(sql, position)) is not None:
        name = found["name"]
        expanded.append(sql[position : found.start()])
        if name in _CONSTANTS:
            position = found.end()
            expanded.append(_CONSTANTS[name](query_range))
        elif name in _FUNCTIONS:
            if not sql.startswith("(", found.end()):
                raise CommandError(f"$__{name} takes one argument")
            arguments, position = _arguments(sql, found.end())
            if len(arguments) != 1:
                raise CommandError(f"$__{name} takes one argument, not {len(arguments)}")
            expanded.append(_FUNCTIONS[name](arguments[0].strip(), query_range))
        else:
            raise CommandError(f"unknown macro $__{name}")
    expanded.append(sql[position:])
    return "".join(expanded)


def _arguments(sql: str, opening: int) -> tuple[list[str], int]:
    """Return the arguments between the bracket at *opening* and its partner, and the position after that.

    As in the plugin, brackets inside string literals count.
    """
    arguments, depth, start = [], 0, opening + 1
    for position in range(opening, len(sql)):
        character = sql[position]
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        if (character == "," and depth == 1) or depth == 0:
            arguments.append(sql[start:position])
            start = position + 1
        if depth == 0:
            return arguments, position + 1
    raise CommandError(f"a bracket is not closed: {sql[opening : opening + 60]!r}")


def _from(query_range: QueryRange) -> str:
    return f"toDateTime({query_range.from_seconds})"


def _to(query_range: QueryRange) -> str:
    return f"toDateTime({query_range.to_seconds})"


_CONSTANTS: dict[str, Callable[[QueryRange], str]] = {
    "fromTime": _from,
    "toTime": _to,
    "interval_s": lambda query_range: str(max(query_range.interval_seconds, 1)),
}
_FUNCTIONS: dict[str, Callable[[str, QueryRange], str]] = {
    "timeFilter": lambda column, query_range: (
        f"{column} >= {_from(query_range)} AND {column} <= {_to(query_range)}"
    ),
    "timeInterval": lambda column, query_range: (
        f"toStartOfInterval(toDateTime({column}), INTERVAL {max(query_range.interval_seconds, 1)} second)"
    ),
}
