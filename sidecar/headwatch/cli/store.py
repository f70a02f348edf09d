"""``headwatch store``: what the store holds, whether it is whole, and what keeps it so."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwatch.cli.store_aside import add_aside_arguments, run_aside
from headwatch.cli.store_purge import add_purge_arguments, run_purge

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from headwatch.config import Config, StoreConfig
    from headwatch_exporters.clickhouse.connection import Connection
    from headwatch_exporters.clickhouse.upkeep.status import StoreStatus

    _Result = tuple[Any, list[str], int]
    """For JSON, for people, exit code."""

ACTIONS = {
    "status": "version, tables, rows, bytes, how far back they go and how long they are kept",
    "check": "read every part against its checksums, the schema against ours, the rungs against each other",
    "migrate": "bring the schema to this version; a sidecar does it as well when it starts",
    "backup": "write an embedded store to a folder, from which any machine restores it",
    "restore": "write a backup into an empty store",
    "compact": "merge parts, and give back what has outlived its time",
    "aside": "what was set aside in front of the store and why; give it to the store once more, or drop it",
    "purge": "remove what is kept of a user, a tenant or a document, or everything before a time",
    "ddl": "print the schema for a cluster, or for one server",
}
_MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = (
        "An embedded store belongs to one process: stop the sidecar first, or look at it through its HTTP port.  A store by "
        "URL may be in use."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="{" + ",".join(ACTIONS) + "}")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--config", metavar="FILE", help="TOML file (default: $HEADWATCH_CONFIG)")
        action.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        if name != "ddl":
            action.add_argument("--url", help="the store (default: store.url of the configuration)")
        if name == "backup":
            action.add_argument("folder", type=Path, help="where to; empty, or made")
        if name == "aside":
            add_aside_arguments(action)
        if name == "purge":
            add_purge_arguments(action)
        if name == "restore":
            action.add_argument("folder", type=Path, help="a folder that `headwatch store backup` wrote")
    ddl = actions.choices["ddl"]
    ddl.add_argument("--cluster", metavar="NAME", help="for this cluster, as the servers' configuration names it")
    ddl.add_argument("--database", default="headwatch", help="database (default: headwatch)")


def run(namespace: argparse.Namespace) -> int:
    """Do what was asked; return 1 where a check found a problem, else 0.

    Raises:
        ConfigError: The configuration is wrong.
        CommandError: There is no store to look at.
        StoreError: The store is in use, cannot be reached, refuses, or is of a newer version.
    """
    import msgspec

    from headwatch.config_file import load

    whole = load(path=namespace.config).config
    config = whole.store
    if namespace.action == "ddl":
        return _ddl(namespace, config)

    from headwatch.cli.output import stdout_to_stderr
    from headwatch_exporters.clickhouse.connection import connect

    if namespace.url:
        config = msgspec.structs.replace(config, url=namespace.url)
    if namespace.action == "purge":
        return run_purge(namespace, msgspec.structs.replace(whole, store=config))
    if namespace.action == "aside":
        return run_aside(namespace, msgspec.structs.replace(whole, store=config))
    if namespace.action not in {"migrate", "restore"}:
        _require_store(config)
    with stdout_to_stderr():
        if namespace.action == "restore":
            document, lines, code = _restore(config, namespace)
        else:
            connection = connect(config)
            try:
                document, lines, code = _ACTIONS[namespace.action](connection, config, namespace)
            finally:
                connection.close()
    if namespace.action == "status":
        document, lines = _with_aside(document, lines, msgspec.structs.replace(whole, store=config))
    _print(namespace, document, lines)
    return code


def _with_aside(status: StoreStatus, lines: list[str], config: Config) -> tuple[StoreStatus, list[str]]:
    """Return *status* with what lies aside in front of the store, and the lines with a line on it."""
    from dataclasses import replace

    from headwatch.places import spool_folder
    from headwatch_exporters.clickhouse.upkeep.aside import entries

    found = entries(spool_folder(config))
    said = [f"set aside in front of the store: {len(found)} (`headwatch store aside` says why)"] if found else []
    return replace(status, set_aside=len(found)), lines + said


def _status(connection: Connection, _config: StoreConfig, _namespace: argparse.Namespace) -> _Result:
    from headwatch_exporters.clickhouse.upkeep.status import read_status

    status = read_status(connection)
    return status, _status_lines(status), 0


def _check(connection: Connection, config: StoreConfig, _namespace: argparse.Namespace) -> _Result:
    from headwatch_exporters.clickhouse.upkeep.check import check

    found = check(connection, config)
    compared = f"the rungs agree on {found.hour} UTC" if found.hour else "no hour has closed that could be compared"
    lines = [f"problem: {problem}" for problem in found.problems] or [f"store: {found.tables} tables in order; {compared}"]
    return found, lines, 1 if found.problems else 0


def _migrate(connection: Connection, config: StoreConfig, _namespace: argparse.Namespace) -> _Result:
    from headwatch_exporters.clickhouse.schema import create_tables, newest, version_of

    before = version_of(connection)
    done = create_tables(connection, config, _say)
    document = {"from": before, "to": newest(), "applied": done}
    return document, [f"store: version {newest()}, from {before}" if done else f"store: version {newest()} already"], 0


def _backup(connection: Connection, _config: StoreConfig, namespace: argparse.Namespace) -> _Result:
    from headwatch_exporters.clickhouse.upkeep.backup import backup

    manifest = backup(connection, namespace.folder, _say)
    size = sum(file.bytes for file in manifest.files) / _MIB
    return manifest, [f"store: {len(manifest.files)} files, {size:.1f} MiB in {namespace.folder}"], 0


def _restore(config: StoreConfig, namespace: argparse.Namespace) -> _Result:
    from headwatch_exporters.clickhouse.upkeep.backup import restore

    manifest = restore(config, namespace.folder, _say)
    rows = sum(file.rows for file in manifest.files)
    return manifest, [f"store: {rows} rows restored, written by headwatch {manifest.headwatch}"], 0


def _compact(connection: Connection, _config: StoreConfig, _namespace: argparse.Namespace) -> _Result:
    from headwatch_exporters.clickhouse.upkeep.compact import compact
    from headwatch_exporters.clickhouse.upkeep.status import read_status

    before = read_status(connection).bytes_on_disk
    names = compact(connection, _say)
    after = read_status(connection).bytes_on_disk
    document = {"tables": names, "bytes_before": before, "bytes_after": after}
    return document, [f"store: {len(names)} tables merged, {before / _MIB:.1f} → {after / _MIB:.1f} MiB"], 0


_ACTIONS: dict[str, Callable[[Connection, StoreConfig, argparse.Namespace], _Result]] = {
    "status": _status, "check": _check, "migrate": _migrate, "backup": _backup, "compact": _compact,
}  # fmt: skip


def _ddl(namespace: argparse.Namespace, config: StoreConfig) -> int:
    from headwatch_exporters.clickhouse.cluster import cluster_ddl, server_ddl

    database = namespace.database
    made = cluster_ddl(config, namespace.cluster, database) if namespace.cluster else server_ddl(config, database)
    statements = list(made)
    _print(namespace, {"statements": statements}, [f"{statement};\n" for statement in statements])
    return 0


def _status_lines(status: StoreStatus) -> list[str]:
    version = f"schema version {status.version} (this headwatch writes {status.known_version})"
    lines = [f"{status.url}: {version}, {status.bytes_on_disk / _MIB:.1f} MiB", ""]
    heads = ("table", "rows", "MiB", "parts", "kept", "from", "to")
    rows = [heads, *(
        (table.name, str(table.rows), f"{table.bytes_on_disk / _MIB:.1f}", str(table.parts),
         _kept(table.kept_days), _time(table.oldest), _time(table.newest))
        for table in status.tables
    )]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return lines + ["  ".join(cells).rstrip() for cells in padded]


def _kept(days: int | None) -> str:
    return "for ever" if days is None else f"{days} d"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _require_store(config: StoreConfig) -> None:
    """See that an embedded store is there: a look must not make one."""
    from headwatch.errors import CommandError
    from headwatch.places import store_url

    url = store_url(config)
    if url.startswith("chdb://") and not Path(url.removeprefix("chdb://")).is_dir():
        raise CommandError(f"{url}: no store there (store.url)")


def _print(namespace: argparse.Namespace, document: Any, lines: list[str]) -> None:
    from headwatch.cli.output import print_json

    if namespace.json:
        print_json(document)
    else:
        print("\n".join(lines))


def _say(message: str) -> None:
    print(f"store: {message}", file=sys.stderr, flush=True)
