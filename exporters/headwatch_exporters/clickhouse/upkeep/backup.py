"""A backup of an embedded store: a Native file for each table and partition, and a manifest.

It needs nothing of the machine that it came from, and a backup of an earlier schema is restored at its own version and then
migrated.  The manifest is written last and holds a checksum of each file, so a backup that was cut short is none.  What goes
in is what comes out: views are taken away while rows are written, so that what they derived comes from the backup and not a
second time from the base tables.  Until a restore is through nobody opens the store: see
:mod:`headwatch_exporters.clickhouse.unfinished`.

A server backs itself up (``BACKUP DATABASE``, docs/store.md): it knows its disks, and can do it without a pause.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headwatch import __version__
from headwatch.errors import StoreError
from headwatch_exporters.clickhouse.connection import unconnected
from headwatch_exporters.clickhouse.schema import applied, create_tables, newest, version_of
from headwatch_exporters.clickhouse.schema_files import LEDGER, views
from headwatch_exporters.clickhouse.unfinished import Restoring
from headwatch_exporters.clickhouse.upkeep.status import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwatch.config import StoreConfig
    from headwatch_exporters.clickhouse.connection import Connection
    from headwatch_exporters.clickhouse.schema import Progress

MANIFEST = "manifest.json"
FORMAT = 1


class BackupFile(msgspec.Struct, frozen=True):
    """One table's rows of one partition."""

    table: str
    file: str
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds."""

    format: int
    schema_version: int
    headwatch: str
    created: int
    """Seconds since 1970."""
    files: list[BackupFile]


def backup(connection: Connection, folder: Path, progress: Progress) -> Manifest:
    """Write the store to *folder*, which must be empty or not exist, and return what was written.

    Raises:
        StoreError: The store cannot be read, its migration is not finished, or the folder cannot be written.
    """
    _require_embedded(connection)
    version = version_of(connection)
    if not 0 < version <= newest():
        raise StoreError(f"the store {connection.url} has schema version {version}; 1 to {newest()} can be backed up")
    if any(not seen.whole for seen in applied(connection)):
        raise StoreError(f"a migration of the store {connection.url} was cut short: `headwatch store migrate` goes on with it")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StoreError(f"{folder}: a backup goes to an empty folder")
        files = []
        for table, partition in _partitions(connection):
            progress(f"{table} {partition}")
            path = folder / f"{table}.{partition}.native.zst"
            rows = _write(connection, table, partition, path)
            files.append(BackupFile(table, path.name, rows, path.stat().st_size, _digest(path)))
        manifest = Manifest(FORMAT, version, __version__, int(time.time()), files)
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}") from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in *folder*, of which each file was held against its checksum.

    Raises:
        StoreError: There is none, it is of another format or version, or a file is missing or differs.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        for file in manifest.files:
            if Path(file.file).name != file.file or _digest(folder / file.file) != file.sha256:
                raise StoreError(f"{folder / file.file}: not what was backed up")
    except FileNotFoundError as error:
        raise StoreError(f"{folder}: no backup there, or one that was cut short: {error.filename} is missing") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"{folder}: cannot be read as a backup: {error}") from error
    if manifest.format != FORMAT or not 0 < manifest.schema_version <= newest():
        raise StoreError(
            f"{folder}: a backup of format {manifest.format} and schema version {manifest.schema_version}; this headwatch "
            f"reads format {FORMAT} up to version {newest()}"
        )
    return manifest


def restore(config: StoreConfig, folder: Path, progress: Progress) -> Manifest:
    """Write the backup in *folder* into the empty store of *config*, bring it up to date, and return what was written.

    Killed anywhere it leaves a store that nobody opens, and the next restore begins it anew.

    Raises:
        StoreError: The backup is not whole, the store holds rows, or it refuses.
    """
    connection = unconnected(config, restoring=True)
    path = _require_embedded(connection)
    manifest = read_manifest(folder)
    with Restoring(path) as restoring:
        try:
            _require_empty(connection)
            restoring.begin()
            _fill(connection, config, manifest, folder, progress)
        finally:
            connection.close()
        restoring.done()
    return manifest


def _require_empty(connection: Connection) -> None:
    held = [table.name for table in read_status(connection).tables if table.rows and table.name != LEDGER]
    if held:
        raise StoreError(f"the store {connection.url} holds rows ({held[0]}): a backup goes into an empty store")


def _fill(connection: Connection, config: StoreConfig, manifest: Manifest, folder: Path, progress: Progress) -> None:
    create_tables(connection, config, progress, upto=manifest.schema_version)
    made = [step for step in views() if _has_view(connection, step.view)]
    for step in reversed(made):
        connection.command(f"DROP TABLE {step.view}")
    for file in manifest.files:
        progress(file.file)
        connection.require_space()
        _read(connection, file.table, folder / file.file)
    for step in made:
        for statement in step.statements(config):
            connection.command(statement)
    create_tables(connection, config, progress)


def _partitions(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield each table that holds rows with each of its partitions."""
    for row in connection.query(
        """
        SELECT table, partition_id FROM system.parts WHERE database = currentDatabase() AND active AND rows > 0
        GROUP BY table, partition_id ORDER BY table, partition_id
        """
    ):
        if row["table"] != LEDGER and row["table"].startswith(("otel_metrics_", "headwatch_")):
            yield row["table"], row["partition_id"]


def _write(connection: Connection, table: str, partition: str, path: Path) -> int:
    """Write the rows of one *partition* of *table* to *path*, and return how many there were."""
    names, where = _columns(connection, table), f"FROM {table} WHERE _partition_id = '{partition}'"
    (row,) = connection.query(f"SELECT count() AS rows {where}")
    connection.command(f"INSERT INTO FUNCTION file({_quoted(path)}, 'Native') SELECT {names} {where}")
    return int(row["rows"])


def _read(connection: Connection, table: str, path: Path) -> None:
    """Insert the rows of *path* into *table*, blocks that equal others too."""
    names = _columns(connection, table)
    connection.command(
        f"INSERT INTO {table} ({names}) SETTINGS insert_deduplicate = 0 "  # noqa: S608 - our own names
        f"SELECT {names} FROM file({_quoted(path)}, 'Native')"
    )


def _columns(connection: Connection, table: str) -> str:
    rows = connection.query(
        """
        SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String}
          AND default_kind NOT IN ('ALIAS', 'MATERIALIZED') ORDER BY position
        """,
        {"table": table},
    )
    return ", ".join(f"`{row['name']}`" for row in rows)


def _quoted(path: Path) -> str:
    text = str(path.absolute()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _require_embedded(connection: Connection) -> Path:
    """Return the store's folder."""
    if connection.folder is None:
        raise StoreError(f"{connection.url} is a server, which backs itself up: BACKUP DATABASE (docs/store.md)")
    return connection.folder


def _has_view(connection: Connection, name: str) -> bool:
    return bool(connection.query(
        "SELECT 1 FROM system.tables WHERE database = currentDatabase() AND name = {name:String}", {"name": name}
    ))  # fmt: skip


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
