"""The types of our columns, from the statements that create them: a delivery is encoded also while no store answers.

A store whose column has another type converts what it reads (``input_format_native_allow_types_conversion``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headwatch.config import StoreConfig
from headwatch_exporters.clickhouse.schema import statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_COLUMN = re.compile(r"^    (?:`([^`]+)`|(\w+)) (\w+)(?=[ (,]|$)", re.MULTILINE)
"""A column in our own files: a line of its own, indented by four spaces.  The name, and the first word of its type."""


def column_types() -> Mapping[str, Mapping[str, str]]:
    """Return for each table its columns and their types."""
    return {table: dict(_columns(statement)) for table, statement in statements(StoreConfig())}


def _columns(statement: str) -> Iterator[tuple[str, str]]:
    for found in _COLUMN.finditer(statement):
        name = found[1] or found[2]
        if name != "INDEX" and found[3] != "Nested":  # we write none of these
            yield name, found[3] + _parenthesis(statement[found.end() :])


def _parenthesis(text: str) -> str:
    """Return the parenthesis that *text* begins with, up to where it closes; empty where there is none."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: place + 1] if character == ")" else ""
    return ""
