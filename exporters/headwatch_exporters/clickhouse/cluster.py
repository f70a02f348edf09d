"""The schema for a cluster, made from the same files as every other store.

Each table has its rows in ``<name>_local``, replicated within a shard; ``<name>`` is Distributed over them, so whoever reads
or writes uses the names that he knows.  Rows are sharded by service instance: all windows of an engine lie on one shard,
where the views turn them into rungs, and a delivery that is repeated meets its own tokens.  What has no instance is sharded
by service.

The same statements bring a cluster of an earlier version up to date.  What a migration adds to a table is added to the
Distributed one as well, after the rows have a place for it; codecs and settings are of the rows alone.

``{shard}`` and ``{replica}`` are the servers' own macros.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headwatch_exporters.clickhouse.schema_files import LEDGER, ledger, migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.config import StoreConfig
    from headwatch_exporters.clickhouse.schema_files import Step

_ENGINE = re.compile(r"^ENGINE = (\w*MergeTree)(?:\((.*)\))?$", re.MULTILINE)
_COLLECTOR = "otel_metrics_"
_WINDOW = "non_replicated_deduplication_window = 1000"
_REPLICATED_WINDOW = "replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = 604800"
_ADDED = re.compile(r"^ALTER TABLE (\w+)\s+ADD COLUMN\b", re.MULTILINE)
_DATA = re.compile(r"^(?:TRUNCATE|INSERT)\b", re.MULTILINE)


def server_ddl(config: StoreConfig, database: str) -> Iterator[str]:
    """Yield the statements that make an empty store on one server."""
    yield f"CREATE DATABASE IF NOT EXISTS {_identifier(database)}"
    for step in _steps():
        for statement in step.statements(config):
            yield _qualified(statement, database, "", "")
    yield from _recorded(config, database)


def cluster_ddl(config: StoreConfig, cluster: str, database: str) -> Iterator[str]:
    """Yield the statements that make an empty store on *cluster*, or bring one that is there to this version.

    They may be run again.  Nothing that is there is filled into tables that are new.
    """
    on = f" ON CLUSTER {_identifier(cluster)}"
    yield f"CREATE DATABASE IF NOT EXISTS {_identifier(database)}{on}"
    for step in _steps():
        for statement in step.statements(config):
            yield _replicated(_qualified(statement, database, on, "_local"), database)
    for step in _steps():
        if step.table and _kept(step):
            name, local = f"{_identifier(database)}.{step.table}", f"{step.table}_local"
            engine = f"Distributed({_string(cluster)}, {_string(database)}, {_string(local)}, {_shard(step)})"
            yield f"CREATE TABLE IF NOT EXISTS {name}{on} AS {name}_local\nENGINE = {engine}"
    for step in _steps():
        for statement in step.statements(config):
            if _ADDED.search(statement):
                yield _qualified(statement, database, on, "")
    yield from _recorded(config, database, on)


def _steps() -> Iterator[Step]:
    """Yield what makes tables and views: an empty store has nothing to fill them with."""
    for migration in migrations():
        yield from (step for step in migration.steps if not _DATA.search(step.text))


def _kept(step: Step) -> bool:
    return "ENGINE = Null" not in step.text


def _qualified(statement: str, database: str, on: str, suffix: str) -> str:
    """Return *statement* with every table of ours named in full; those that keep rows end in *suffix*."""
    tables = [step for step in _steps() if step.table]
    for step in sorted(tables, key=lambda one: -len(one.table)):
        name = f"{_identifier(database)}.{step.table}{suffix if _kept(step) else ''}"
        statement = re.sub(rf"((?:CREATE TABLE IF NOT EXISTS|ALTER TABLE) ){step.table}\b", rf"\1{name}{on}", statement)
        statement = re.sub(rf"( TO | FROM |^FROM ){step.table}\b(?!\.)", rf"\1{name}", statement, flags=re.MULTILINE)
    return re.sub(
        r"(CREATE MATERIALIZED VIEW IF NOT EXISTS )(\w+)", rf"\1{_identifier(database)}.\2{on}", statement
    )


def _replicated(statement: str, database: str) -> str:
    """Return *statement* with a replicated engine in place of a plain one."""
    name = re.search(rf"EXISTS {re.escape(_identifier(database))}\.(\w+)", statement)

    def engine(found: re.Match[str]) -> str:
        more = f", {found[2]}" if found[2] else ""
        path = f"/clickhouse/tables/{{shard}}/{database}/{name[1] if name else ''}"
        return f"ENGINE = Replicated{found[1]}({_string(path)}, '{{replica}}'{more})"

    return _ENGINE.sub(engine, statement).replace(_WINDOW, _REPLICATED_WINDOW)


def _shard(step: Step) -> str:
    if step.table.startswith(_COLLECTOR):
        return "cityHash64(ResourceAttributes['service.instance.id'])"
    columns = re.findall(r"^    (instance|engine_id) ", step.text, re.MULTILINE)
    if not columns and not re.search(r"^    service ", step.text, re.MULTILINE):
        return "rand()"
    return f"cityHash64({'instance' if 'instance' in columns else columns[0] if columns else 'service'})"


def _recorded(config: StoreConfig, database: str, on: str = "") -> Iterator[str]:
    """Yield the table of what was applied, the same on every server of a cluster, and its rows."""
    name = f"{_identifier(database)}.{LEDGER}"
    (statement,) = ledger().statements(config)
    statement = statement.replace(f"EXISTS {LEDGER}", f"EXISTS {name}{on}")
    if on:
        path = _string(f"/clickhouse/tables/{database}/{LEDGER}")
        engine = f"ENGINE = ReplicatedMergeTree({path}, '{{shard}}-{{replica}}')"
        statement = statement.replace("ENGINE = MergeTree", engine).replace(_WINDOW, _REPLICATED_WINDOW)
    yield statement
    rows = ",\n".join(
        f"({one.version}, {_string(one.name)}, '', {_string(one.checksum)}, now64(3))" for one in migrations()
    )
    yield f"INSERT INTO {name} (version, name, step, checksum, applied_at) VALUES\n{rows}"


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
