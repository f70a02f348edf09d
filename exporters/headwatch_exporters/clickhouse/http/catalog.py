"""What of the engine a client may use: functions, table functions, system tables and formats, by name.

The engine has some 1,800 functions, of which a few read files, ask other servers, or run programs, and a new version brings
others.  So what is allowed is listed, not what is forbidden: whole categories of functions that only compute, and single names
of the category "Other".  A name that no list has is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.http.names import names

if TYPE_CHECKING:
    from headwatch_exporters.clickhouse.http.engine import Handle

_CATEGORIES = frozenset({
    "Aggregate Functions", "Arithmetic", "Arrays", "Bit", "Bitmap", "Comparison", "Conditional", "Dates and Times", "Distance",
    "Encoding", "Encryption", "Financial", "Geo", "Geo Polygon", "Hash", "IP Address", "JSON", "Logical", "Map", "Mathematical",
    "Null", "Nullable", "NumericIndexedVector", "QBit", "Random Number", "Rounding", "String", "String Replacement",
    "String Search", "String Splitting", "Time Window", "Tuple", "Type Conversion", "URL", "UUID",
})  # fmt: skip
_SINGLE = names("""
    bar blockNumber blockSize byteSize connectionId countDigits currentDatabase currentQueryID currentSchemas currentUser
    defaultValueOfArgumentType defaultValueOfTypeName displayName dumpColumnStructure errorCodeToName finalizeAggregation
    flipCoordinates formatQuery formatQueryOrNull formatQuerySingleLine formatQuerySingleLineOrNull formatReadableDecimalSize
    formatReadableQuantity formatReadableSize formatReadableTimeDelta getSetting getSizeOfEnumType getSubcolumn globalVariable
    hostName identity ignore indexHint initialQueryID initializeAggregation isConstant isDecimalOverflow lowCardinalityIndices
    lowCardinalityKeys materialize minSampleSizeContinuous minSampleSizeConversion neighbor normalizeQuery
    normalizeQueryKeepNames normalizedQueryHash normalizedQueryHashKeepNames parseReadableSize parseReadableSizeOrNull
    parseReadableSizeOrZero parseTimeDelta queryID revision rowNumberInAllBlocks rowNumberInBlock runningAccumulate
    runningDifference runningDifferenceStartingWithFirstValue throwIf toColumnTypeName toTypeName transform uptime
    variantElement variantType version visibleWidth
""")
_SYNTAX = frozenset({"lambda", "exists", "grouping", "untuple", "caseWithExpression"})
"""What the parser makes of syntax; some are no functions of the engine."""
_REFUSED_FUNCTIONS = frozenset({"flameGraph", "formatRow", "formatRowNoNewline"})
"""Of allowed categories, and yet more than a computation: formats may want files, others look into the process."""
TABLE_FUNCTIONS = frozenset(
    {"numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "view"}
)
"""In lower case.  What they read is in their arguments.  Not ``values``: a structure may say ``a String ALIAS file('…')``."""
SYSTEM_TABLES = names("""
    aggregate_function_combinators build_options collations columns contributors data_skipping_indices data_type_families
    databases formats functions keywords licenses merge_tree_settings numbers numbers_mt one parts parts_columns settings
    table_engines table_functions tables time_zones zeros zeros_mt
""")
ABOUT_EVERY_ROW = frozenset({"parts", "parts_columns", "data_skipping_indices"})
"""Of those, what says something of rows that a row policy hides."""
INFORMATION_SCHEMA = frozenset(
    {"columns", "schemata", "tables", "views", "key_column_usage", "referential_constraints"}
)
_REFUSED_FORMATS = frozenset({
    "AvroConfluent", "MySQLWire", "ODBCDriver2", "PNG", "PostgreSQLWire", "Protobuf", "ProtobufList", "ProtobufSingle",
    "Template",
})  # fmt: skip
"""They need a schema file or a registry, or are no answers to an HTTP request."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the engine has, as far as a client may use it."""

    version: str
    timezone: str
    database: str
    functions: frozenset[str]
    any_case: frozenset[str]
    """In lower case: functions of which the case does not matter."""
    aggregates: frozenset[str]
    combinators: tuple[str, ...]
    known: frozenset[str]
    """Every function of the engine, allowed or not, in lower case."""
    table_functions: frozenset[str]
    """Every one of the engine, allowed or not, in lower case."""
    formats: dict[str, str]
    """Name to content type."""

    def allows(self, name: str) -> bool:
        """Return whether *name* is a function that only computes, be it an aggregate with combinators (``sumIfState``)."""
        if name in self.functions or name.lower() in self.any_case or name in _SYNTAX:
            return True
        base, shortened = name, True
        while shortened:
            shortened = False
            for combinator in self.combinators:
                if base.endswith(combinator) and base != combinator:
                    base, shortened = base.removesuffix(combinator), True
                    if base in self.aggregates or base.lower() in self.any_case:
                        return True
                    break
        return False


def read_catalog(handle: Handle) -> Catalog:
    """Return what the engine behind *handle* offers."""

    def rows(sql: str) -> list[list[str]]:
        text = handle.ask(f"{sql} FORMAT JSONCompactEachRow").decode()
        return [[str(field) for field in json.loads(line)] for line in text.splitlines()]

    ((version, timezone, database),) = rows("SELECT version(), timezone(), currentDatabase()")
    found = rows("SELECT name, alias_to, categories, case_insensitive, is_aggregate, origin FROM system.functions")
    own = {
        name for name, _, categories, _, _, origin in found
        if origin == "System" and (categories in _CATEGORIES or name in _SINGLE) and name not in _REFUSED_FUNCTIONS
    }  # fmt: skip
    allowed = [row for row in found if row[5] == "System" and (row[1] or row[0]) in own]
    return Catalog(
        version=version,
        timezone=timezone,
        database=database,
        functions=frozenset(row[0] for row in allowed),
        any_case=frozenset(row[0].lower() for row in allowed if row[3] == "1"),
        aggregates=frozenset(row[0] for row in allowed if row[4] == "1"),
        combinators=tuple(sorted((name for (name,) in rows(
            "SELECT name FROM system.aggregate_function_combinators WHERE NOT is_internal")), key=len, reverse=True)),
        known=frozenset(row[0].lower() for row in found),
        table_functions=frozenset(name.lower() for (name,) in rows("SELECT name FROM system.table_functions")),
        formats={
            name: kind for name, kind in rows("SELECT name, content_type FROM system.formats WHERE is_output")
            if name not in _REFUSED_FORMATS
        },
    )  # fmt: skip
