"""The types of our columns, from the statements that make them: a delivery is encoded also while no store answers.

A store whose column has another type converts what it reads (``input_format_native_allow_types_conversion``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headwatch.config import StoreConfig
from headwatch_exporters.clickhouse.schema_files import migrations

if TYPE_CHECKING:
    from collections.abc import Mapping

_MADE = re.compile(r"^(?:CREATE TABLE IF NOT EXISTS|ALTER TABLE) (\w+)", re.MULTILINE)
_COLUMN = re.compile(
    r"^(?:    |ALTER TABLE \w+ (?=ADD|MODIFY))(?:(?:ADD|MODIFY) COLUMN (?:IF (?:NOT )?EXISTS )?)?(?:`([^`]+)`|(\w+)) (\w+)"
    r"(?=[ (,;]|$)", re.MULTILINE,
)  # fmt: skip
"""A column in our own files, a line of its own or behind ALTER TABLE: its name, and the first word of its type."""


def column_types() -> Mapping[str, Mapping[str, str]]:
    """Return for each table its columns and their types, as the newest version of the schema has them."""
    types: dict[str, dict[str, str]] = {}
    for migration in migrations():
        for step in migration.steps:
            for statement in step.statements(StoreConfig()):
                if made := _MADE.search(statement):
                    types.setdefault(made[1], {}).update(_columns(statement))
    return types


def _columns(statement: str) -> dict[str, str]:
    found = {}
    for column in _COLUMN.finditer(statement):
        name = column[1] or column[2]
        if name not in {"INDEX", "MODIFY"} and column[3] != "Nested":  # we write none of these
            found[name] = column[3] + _parenthesis(statement[column.end() :])
    return found


def _parenthesis(text: str) -> str:
    """Return the parenthesis that *text* begins with, up to where it closes; empty where there is none."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: place + 1] if character == ")" else ""
    return ""
