"""What a client asks: one statement, parsed by the engine itself, without its FORMAT and SETTINGS.

The engine gives its syntax tree as JSON (``parseQueryToJSON``), takes it back (``formatQueryFromJSON``), and refuses a second
statement.  What is checked is the tree of the text that runs, comments and tricks of quoting gone.  Parameters of type
Identifier, which may name a table, are put into the tree first; all others stay with the engine.

DESCRIBE, EXISTS and a few SHOW have no JSON: they are known by the text that the engine's formatter makes of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch_exporters.clickhouse.http.refusal import QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headwatch_exporters.clickhouse.http.engine import Handle

Node = dict[str, Any]

_NAME = r"(?:[A-Za-z_][A-Za-z0-9_]*|`[^`\\]+`)"
_TAIL = rf"(?: FORMAT (?P<format>{_NAME}))?(?: SETTINGS (?P<settings>.+))?"
_TABLE = rf"(?:(?P<database>{_NAME})\.)?(?P<table>{_NAME})"
_ABOUT_TABLE = re.compile(rf"(?s)(?P<what>(?:DESCRIBE|EXISTS|SHOW CREATE) (?:TABLE|VIEW)) {_TABLE}{_TAIL}")
_ABOUT_DATABASE = re.compile(rf"(?s)(?P<what>(?:EXISTS|SHOW CREATE) DATABASE) (?P<database>{_NAME}){_TAIL}")
_DESCRIBE_QUERY = re.compile(r"(?s)DESCRIBE TABLE \((?P<query>.+)\)")
_SHOW_LIST = re.compile(rf"(?s)(?P<what>SHOW (?:ENGINES|FUNCTIONS)(?: I?LIKE '(?:[^'\\]|\\.)*')?){_TAIL}")
_ROOM_FOR_TREES = f"SET max_query_size = {64 << 20}"
"""The engine holds its JSON to the size of a query, and a tree has some forty times as much text as its query."""
_SCOPE = re.compile(r"(?s): In scope SELECT (?:parseQueryToJSON|formatQuery).*$")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement that can be run, once it is checked."""

    sql: str
    kind: str
    """Type of the tree's root, ``Describe`` and so on where there is no tree."""
    tree: Node
    """Of *sql*; empty where there is none."""
    format: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    tables: tuple[tuple[str, ...], ...] = ()
    """Tables that are named where there is no tree, as database and table, or table."""
    databases: tuple[str, ...] = ()


def parse(handle: Handle, text: str, parameters: Mapping[str, str]) -> Statement:
    """Return the statement in *text*.

    Raises:
        QueryError: It has an error of syntax, is more than one, or is of a kind that is not read only.
    """
    try:
        handle.ask(_ROOM_FOR_TREES)
        tree = _tree(handle, text)
        if tree is None:
            return _without_tree(handle, text, parameters)
        formatted = _lift_format(tree)
        settings = _lift_settings(tree)
        _put_identifiers(tree, parameters)
        sql = handle.ask("SELECT formatQueryFromJSON({text:String})", text=msgspec.json.encode(tree).decode()).decode()
        sql = sql.removesuffix("\n")
        final = _tree(handle, sql)
    except QueryError as error:
        raise QueryError(error.name, _SCOPE.sub("", error.text), error.code) from None
    except (RecursionError, msgspec.DecodeError) as error:
        raise QueryError("TOO_DEEP_RECURSION", "the query is nested too deeply") from error
    except UnicodeError as error:
        raise QueryError("BAD_ARGUMENTS", "the query is not UTF-8; write other bytes with unhex()") from error
    if final is None:
        raise QueryError("SYNTAX_ERROR", "the query cannot be read back")
    return Statement(sql, final["type"], final, formatted, settings)


def nodes(tree: Any) -> Iterator[Node]:
    """Yield every node of *tree*: each dictionary with a type, its parents before it."""
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "type" in item:
                yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _tree(handle: Handle, text: str) -> Node | None:
    """Return the tree of *text*, or None where the engine has no JSON for it."""
    try:
        return msgspec.json.decode(handle.ask("SELECT parseQueryToJSON({text:String})", text=text), type=Node)
    except QueryError as error:
        if "does not support JSON serialization" in error.text:
            return None
        if "INSERT with inline data" in error.text:
            raise QueryError("READONLY", "Cannot execute query in readonly mode.") from None
        raise


def _lift_format(tree: Node) -> str:
    """Take FORMAT out of *tree* and return its name; empty where there is none."""
    if "out_file" in tree:
        raise QueryError("INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
    chosen: Node | None = tree.pop("format_ast", None)
    return str(chosen["name"]) if chosen is not None else ""


def _lift_settings(tree: Node) -> dict[str, str]:
    """Take the outermost SETTINGS out of *tree*; those of a subquery stay, for the guard to refuse."""
    places = [tree.pop("settings_ast", None)]
    if tree["type"] == "SelectWithUnionQuery":
        selects = tree["list_of_selects"]["children"]
        if len(selects) == 1 and selects[0]["type"] == "SelectQuery":
            places.append(selects[0].pop("settings", None))
    elif tree["type"] == "SetQuery":
        places.append(tree)
    return {name: value for place in places if place is not None for name, value in _changes(place)}


def _changes(place: Node) -> Iterator[tuple[str, str]]:
    if place.keys() - {"type", "is_standalone", "changes"}:  # x = DEFAULT, and parameters
        raise QueryError("READONLY", "Cannot reset settings or set parameters in readonly mode.")
    for change in place.get("changes", ()):
        yield change["name"], _plain(change["name"], change["value"])


def _plain(name: str, value: Node) -> str:
    kind, held = value.get("field_type"), value.get("value")
    if kind == "Bool":
        return "1" if held else "0"
    if isinstance(held, str | int | float) and not isinstance(held, bool):
        return str(held)
    raise QueryError("READONLY", f"Cannot modify '{name}' setting in readonly mode.")


def _put_identifiers(tree: Node, parameters: Mapping[str, str]) -> None:
    """Replace parameters that stand for names by the names."""
    for node in nodes(tree):
        if node["type"] not in {"Identifier", "TableIdentifier"} or not node.get("children"):
            continue
        given = [_identifier(child, parameters) for child in node.pop("children")]
        parts = [part or given.pop(0) for part in node.get("name_parts") or [node.get("name", "")]]
        node["name"] = ".".join(parts)
        if len(parts) > 1:
            node["name_parts"] = parts


def _identifier(child: Node, parameters: Mapping[str, str]) -> str:
    name = child.get("name", "")
    if name not in parameters:
        raise QueryError("UNKNOWN_QUERY_PARAMETER", f"Substitution `{name}` is not set.")
    value = parameters[name]
    if not value or "\\" in value or not value.isprintable():
        raise QueryError("BAD_ARGUMENTS", f"the value of substitution `{name}` is no identifier")
    return value


def _without_tree(handle: Handle, text: str, parameters: Mapping[str, str]) -> Statement:
    """Return a statement that has no tree, by the text that the engine makes of it."""
    sql = handle.ask("SELECT formatQuerySingleLine({text:String})", text=text).decode().removesuffix("\n")
    if found := _ABOUT_TABLE.fullmatch(sql):
        named = tuple(_bare(found[part]) for part in ("database", "table") if found[part])
        run = f"{found['what']} {'.'.join(_quoted(name) for name in named)}"
        return Statement(run, found["what"], {}, *_tail(handle, found), tables=(named,))
    if found := _ABOUT_DATABASE.fullmatch(sql):
        name = _bare(found["database"])
        return Statement(
            f"{found['what']} {_quoted(name)}", found["what"], {}, *_tail(handle, found), databases=(name,)
        )
    if found := _SHOW_LIST.fullmatch(sql):
        return Statement(found["what"], found["what"], {}, *_tail(handle, found))
    head, chosen, tail = _cut(sql)
    if found := _DESCRIBE_QUERY.fullmatch(head):
        inner = parse(handle, found["query"], parameters)
        if inner.kind == "SelectWithUnionQuery" and not inner.format:
            settings = {**inner.settings, **_settings(handle, tail)}
            return Statement(f"DESCRIBE TABLE ({inner.sql})", "SelectWithUnionQuery", inner.tree, chosen, settings)
    raise QueryError("READONLY", "Cannot execute query in readonly mode.")


def _cut(sql: str) -> tuple[str, str, str]:
    """Return *sql* up to its last closing bracket, and the FORMAT and SETTINGS behind it."""
    found = re.fullmatch(rf"(?s)(?P<head>.+\)){_TAIL}", sql)
    return (found["head"], _bare(found["format"] or ""), found["settings"] or "") if found else (sql, "", "")


def _tail(handle: Handle, found: re.Match[str]) -> tuple[str, dict[str, str]]:
    return _bare(found["format"] or ""), _settings(handle, found["settings"] or "")


def _settings(handle: Handle, text: str) -> dict[str, str]:
    tree = _tree(handle, f"SET {text}") if text else None
    return _lift_settings(tree) if tree is not None else {}


def _bare(name: str) -> str:
    return name.strip("`")


def _quoted(name: str) -> str:
    return f"`{name}`"
