"""``headwatch store aside``: what the store refused, why, and another try."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from headwatch.config import Config
    from headwatch_exporters.clickhouse.upkeep.aside import Entry, Retried


def add_aside_arguments(action: argparse.ArgumentParser) -> None:
    """Declare the arguments of the action."""
    action.description = (
        "Say what was set aside in front of the store and why.  With --retry it is given to the store once more, under the "
        "tokens that it had: after the cause is gone.  With --drop it is deleted.  The sidecar must be stopped for either."
    )
    action.add_argument("names", nargs="*", metavar="NAME", help="of what was set aside; none: all of it")
    what = action.add_mutually_exclusive_group()
    what.add_argument("--retry", action="store_true", help="give it to the store once more")
    what.add_argument("--drop", action="store_true", help="delete it for good")


def run_aside(namespace: argparse.Namespace, config: Config) -> int:
    """Do what was asked; return 1 where the store still refuses some of what was tried.

    Raises:
        CommandError: Nothing of a name that was given lies there.
        SpoolError: A sidecar uses the spool, or the disk does not let us.
        StoreError: The store is in use, cannot be reached, or is of a newer version.
    """
    from headwatch.cli.output import print_json, stdout_to_stderr
    from headwatch.places import spool_folder
    from headwatch_exporters.clickhouse.upkeep import aside

    spool = spool_folder(config)
    found = aside.entries(spool, namespace.names)
    if namespace.retry and any(entry.table for entry in found):
        with stdout_to_stderr():
            done = _retried(config, namespace.names)
    elif namespace.drop:
        done = aside.drop(spool, namespace.names)
    else:
        done = aside.Retried([], [], found)
    if namespace.json:
        print_json(done)
    else:
        print("\n".join(_lines(done)))
    tried = {entry.name for entry in found if entry.table}
    return 1 if namespace.retry and any(entry.name in tried for entry in done.left) else 0


def _retried(config: Config, names: list[str]) -> Retried:
    from headwatch.places import spool_folder
    from headwatch_exporters.clickhouse.connection import connect
    from headwatch_exporters.clickhouse.schema import create_tables
    from headwatch_exporters.clickhouse.upkeep.aside import retry

    connection = connect(config.store)
    try:
        create_tables(connection, config.store)
        return retry(connection, spool_folder(config), names)
    finally:
        connection.close()


def _lines(done: Retried) -> list[str]:
    lines = [f"{name}: the store has it now" for name in done.taken] + [f"{name}: dropped" for name in done.dropped]
    return lines + [_line(entry) for entry in done.left] or ["nothing was set aside"]


def _line(entry: Entry) -> str:
    what = f"{entry.rows} rows of {entry.table}" if entry.table else f"{entry.bytes} bytes that nobody can read"
    when = datetime.fromtimestamp(entry.time_ns / 1e9, UTC).strftime(" of %Y-%m-%d %H:%M") if entry.time_ns else ""
    return f"{entry.name}: {what}{when}: {entry.reason}"
