"""What a client may run: statements that only read the store's own tables, and functions that only compute.

``readonly = 1`` alone is not enough on chDB 26.9: ``file('/etc/passwd')`` as a function reads, ``INTO OUTFILE`` writes,
``DESCRIBE TABLE file(…)`` opens the file, ``KILL QUERY`` kills, and SETTINGS of a subquery are not looked at.  So the whole
tree is checked against lists of what is allowed before the engine gets it, and readonly comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.http.catalog import (
    ABOUT_EVERY_ROW,
    INFORMATION_SCHEMA,
    SYSTEM_TABLES,
    TABLE_FUNCTIONS,
)
from headwatch_exporters.clickhouse.http.names import names
from headwatch_exporters.clickhouse.http.refusal import QueryError
from headwatch_exporters.clickhouse.http.statement import nodes

if TYPE_CHECKING:
    from headwatch_exporters.clickhouse.http.catalog import Catalog
    from headwatch_exporters.clickhouse.http.statement import Node, Statement

_READS = frozenset({"SelectWithUnionQuery", "ShowTablesQuery", "ShowColumnsQuery", "ShowIndexesQuery"})
_SETS = frozenset({"SetQuery", "UseQuery"})
_NODES = names("""
    ArrayJoin Asterisk ColumnsApplyTransformer ColumnsExceptTransformer ColumnsListMatcher ColumnsRegexpMatcher
    ColumnsReplaceTransformer ColumnsReplaceTransformerReplacement ColumnsTransformerList ExpressionList Function Identifier
    InterpolateElement Literal OrderByElement QualifiedAsterisk QualifiedColumnsListMatcher
    QualifiedColumnsRegexpMatcher QueryParameter SampleRatio SelectIntersectExceptQuery SelectQuery SelectWithUnionQuery
    ShowColumnsQuery ShowIndexesQuery ShowTablesQuery StorageOrderByElement Subquery TableExpression TableIdentifier TableJoin
    TablesInSelectQuery TablesInSelectQueryElement WindowDefinition WindowListElement WithElement
""")
_EXPLAINS = frozenset({
    "EXPLAIN", "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE", "EXPLAIN PIPELINE", "EXPLAIN ESTIMATE",
})  # fmt: skip
_IN = frozenset({
    "in", "notIn", "globalIn", "globalNotIn", "nullIn", "notNullIn", "globalNullIn", "globalNotNullIn", "inIgnoreSet",
    "notInIgnoreSet", "nullInIgnoreSet", "notNullInIgnoreSet", "globalInIgnoreSet", "globalNotInIgnoreSet",
    "globalNullInIgnoreSet", "globalNotNullInIgnoreSet",
})  # fmt: skip
_OTHER_LISTS = frozenset({"clusters", "cluster", "caches"})
_SEES_BEFORE_THE_POLICY = frozenset({"throwif"})


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks statements."""

    catalog: Catalog
    hidden: frozenset[str] | None = None
    """Where a row policy holds, the tables that it cannot filter; None: there is no policy."""

    def check(self, statement: Statement) -> None:
        """Return where *statement* may run.

        Raises:
            QueryError: It may not.
        """
        for table in statement.tables:
            self._check_table(list(table))
        for database in statement.databases:
            self._check_database(database)
        tree = statement.tree
        if not tree:
            return
        if tree["type"] == "UseQuery":
            self._check_database(_last_name(tree.get("database", {})))
        elif tree["type"] == "ExplainQuery":
            self._check_explain(tree)
        elif tree["type"] in _READS:
            self._check_nodes(tree)
        elif tree["type"] not in _SETS:
            raise _read_only()

    def _check_nodes(self, tree: Node) -> None:
        for node in nodes(tree):
            self._check_node(node)

    def _check_node(self, node: Node) -> None:
        kind = node["type"]
        if kind == "SetQuery":
            raise QueryError("READONLY", "SETTINGS of a subquery cannot be changed in readonly mode.")
        if kind not in _NODES:
            raise _read_only()
        _check_tail(node)
        if kind == "Function":
            self._check_function(node)
        elif kind == "ColumnsApplyTransformer" and node.get("func_name"):
            self._check_name(node["func_name"])
        elif kind == "SelectQuery" and "prewhere" in node and self.hidden is not None:
            raise QueryError("ACCESS_DENIED", "PREWHERE sees rows before the row policy does; write WHERE")
        else:
            self._check_source(node)

    def _check_source(self, node: Node) -> None:
        """Check what *node* reads from."""
        kind = node["type"]
        if kind == "TableIdentifier":
            self._check_table(_parts(node))
        elif kind == "TableExpression" and "table_function" in node:
            self._check_table_function(node["table_function"]["name"])
        elif kind == "ShowTablesQuery":
            self._check_show(node)
        elif kind in {"ShowColumnsQuery", "ShowIndexesQuery"}:
            self._check_table([part for part in (node.get("database"), node.get("table")) if part])

    def _check_function(self, node: Node) -> None:
        name = node["name"]
        if name.lower() in TABLE_FUNCTIONS and not self.catalog.allows(name):
            return  # as a function of columns the engine does not know it
        self._check_name(name)
        arguments = node.get("arguments", {}).get("children", ())
        if name in _IN and len(arguments) > 1:
            self._check_in(arguments[1])

    def _check_name(self, name: str) -> None:
        if self.hidden is not None and name.lower() in _SEES_BEFORE_THE_POLICY:
            raise QueryError("ACCESS_DENIED", f"function {name} cannot be used under a row policy")
        if self.catalog.allows(name):
            return
        if name.lower() not in self.catalog.known and name.lower() not in TABLE_FUNCTIONS:
            raise QueryError("UNKNOWN_FUNCTION", f"Function with name `{name[:256]}` does not exist.")
        raise QueryError("ACCESS_DENIED", f"function {name[:256]} is not allowed here")

    def _check_table_function(self, name: str) -> None:
        if name.lower() not in TABLE_FUNCTIONS:
            raise QueryError("READONLY", f"table function {name[:256]} cannot be used in readonly mode.")

    def _check_in(self, right: Node) -> None:
        """Check what stands right of IN: a table or a table function may stand there by its name."""
        if right["type"] == "Function" and right["name"].lower() in self.catalog.table_functions:
            self._check_table_function(right["name"])
        elif right["type"] == "Identifier":
            parts = _parts(right)
            if len(parts) == 1 or self._is_database(parts[0]):  # else a column: there is no other database
                self._check_table(parts)

    def _check_table(self, parts: list[str]) -> None:
        shown = ".".join(parts)[:256]
        if not 0 < len(parts) <= 2 or any(not part or part.startswith(".") for part in parts):  # noqa: PLR2004 - database, table
            raise QueryError("ACCESS_DENIED", f"table {shown} cannot be read")
        database, table = parts if len(parts) > 1 else (self.catalog.database, parts[0])
        if database == "system":
            if table not in SYSTEM_TABLES or (self.hidden is not None and table in ABOUT_EVERY_ROW):
                raise QueryError("ACCESS_DENIED", f"system table {shown} cannot be read")
        elif database.lower() == "information_schema":
            if table.lower() not in INFORMATION_SCHEMA:
                raise QueryError("ACCESS_DENIED", f"table {shown} cannot be read")
        elif database != self.catalog.database:
            raise QueryError("UNKNOWN_DATABASE", f"Database {database[:256]} does not exist")
        elif table in (self.hidden or ()):
            raise QueryError("ACCESS_DENIED", f"table {shown} has nothing that the row policy could filter by")

    def _check_explain(self, tree: Node) -> None:
        if self.hidden is not None:
            raise QueryError("ACCESS_DENIED", "EXPLAIN says something of rows that the row policy hides")
        _check_tail(tree)
        if tree["kind"] not in _EXPLAINS or tree.get("query", {}).get("type") != "SelectWithUnionQuery":
            raise _read_only()
        self._check_nodes(tree["query"])

    def _check_show(self, node: Node) -> None:
        if any(node.get(what) for what in _OTHER_LISTS):
            raise QueryError("ACCESS_DENIED", "this list cannot be shown")
        if "from" in node:
            self._check_database(_last_name(node["from"]))

    def _check_database(self, name: str) -> None:
        if not self._is_database(name):
            raise QueryError("UNKNOWN_DATABASE", f"Database {name[:256]} does not exist")

    def _is_database(self, name: str) -> bool:
        return name == self.catalog.database or name.lower() in {"system", "information_schema"}


def _check_tail(node: Node) -> None:
    if node.keys() & {"out_file", "format_ast", "settings_ast"}:
        raise QueryError("INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE, FORMAT and SETTINGS stand at the end of a query")


def _parts(node: Node) -> list[str]:
    return list(node.get("name_parts") or [node.get("name", "")])


def _last_name(node: Node) -> str:
    return _parts(node)[-1]


def _read_only() -> QueryError:
    return QueryError("READONLY", "Cannot execute query in readonly mode.")
