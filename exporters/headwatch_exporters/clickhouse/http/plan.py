"""From what is asked to what runs: parsed, checked, with its settings, format and row policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.http.encoding import choose
from headwatch_exporters.clickhouse.http.guard import Guard
from headwatch_exporters.clickhouse.http.policy import policy_of
from headwatch_exporters.clickhouse.http.refusal import QueryError
from headwatch_exporters.clickhouse.http.settings import check_settings, in_force
from headwatch_exporters.clickhouse.http.statement import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwatch_exporters.clickhouse.http.asked import Asked
    from headwatch_exporters.clickhouse.http.catalog import Catalog
    from headwatch_exporters.clickhouse.http.engine import Handle
    from headwatch_exporters.clickhouse.http.users import Reader

DEFAULT_FORMAT = "TabSeparated"
MAX_AUDITED_CHARACTERS = 4096
_FIRST_WORD = re.compile(r"\s*([A-Za-z]{1,16})\b")
_ANSWERED_WITH_NOTHING = frozenset({"SetQuery", "UseQuery"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs."""

    sql: str
    """Empty where there is nothing to run."""
    format: str
    content_type: str
    encoding: str
    """Of HTTP; empty: none."""
    settings: dict[str, str]
    kept: dict[str, str]
    """Settings that hold for the rest of the session."""


def make_plan(
    handle: Handle, catalog: Catalog, asked: Asked, reader: Reader, held: Mapping[str, str], ceilings: Mapping[str, float],
    mark: str,
) -> Plan:  # fmt: skip
    """Return what runs for *asked* in a session that holds *held*; *mark* is how the query can be found again.

    Raises:
        QueryError: It cannot be parsed, or is not allowed.
    """
    if asked.database and asked.database != catalog.database:
        raise QueryError("UNKNOWN_DATABASE", f"Database {asked.database[:256]} does not exist")
    given = check_settings(asked.settings, ceilings)
    statement = parse(handle, asked.query, asked.parameters)
    policy = policy_of(reader, handle, catalog.database)
    Guard(catalog, policy.hidden if policy is not None else None).check(statement)
    own = check_settings(statement.settings, ceilings)
    formatted = statement.format or asked.default_format or DEFAULT_FORMAT
    if formatted not in catalog.formats:
        raise QueryError("UNKNOWN_FORMAT", f"Unknown format {formatted[:256]}")
    nothing = statement.kind in _ANSWERED_WITH_NOTHING
    return Plan(
        sql="" if nothing else statement.sql,
        format=formatted,
        content_type=catalog.formats[formatted],
        encoding="" if asked.compress else choose(asked.accept_encoding),
        settings=in_force({**held, **given, **own}, ceilings, mark, policy.filters if policy is not None else ""),
        kept=own if statement.kind == "SetQuery" else {},
    )


def without_literals(handle: Handle, query: str, *, formatted: bool) -> str:
    """Return *query* as it is audited: literals replaced; *formatted* says that it is the engine's own text.

    Else it is formatted first, and of one that cannot be only the first word is left: data may follow an INSERT, or stand in a
    query that is none, and of what is not understood nothing is kept.
    """
    own = "{text:String}" if formatted else "formatQuerySingleLineOrNull({text:String})"
    try:
        text = handle.ask(f"SELECT normalizeQuery({own}) AS query WHERE isNotNull(query)", text=query)
    except (QueryError, UnicodeError):
        text = b""
    if text:
        return text.decode("utf-8", "replace").strip()[:MAX_AUDITED_CHARACTERS]
    word = _FIRST_WORD.match(query)
    return word[1].upper() if word else ""
