"""Removing rows from the store for good: by a user, a tenant or a document, or everything before a moment.

Rows go by mutations, which write parts anew.  What would still name them goes too: the parts as they were before, which
ClickHouse keeps for some minutes, and the text of the mutation, which is kept as a file, and so names a table of keys that only
ever was in memory.  Each purge has one of its own, so that several of one store go on beside each other.  Rollups and series of
heads name nobody.  A cluster is not served: give each server's URL.
"""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import msgspec

from headwatch.errors import StoreError
from headwatch.findings import Incident
from headwatch_exporters.clickhouse.columns.findings import incident_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from headwatch_exporters.clickhouse.connection import Connection

Kind = Literal["user", "tenant", "document"]

_KEYS = "headwatch_purge_keys"
"""How names of tables of keys begin; then come the seconds since 1970 when it was made, and what makes it one of a kind."""
_LEFT_SECONDS = 86_400
"""Age at which a table of keys on a server is that of a purge that was killed."""
_OF_REQUESTS = ("headwatch_request_heads", "headwatch_rows", "headwatch_documents", "headwatch_requests")
"""The last one says whose a request was: it goes last, so that a purge that was cut short finds the others again."""
_TEXTS = "headwatch_texts"
"""Its rows say themselves whose they are, and which documents the text contains."""
IDENTIFYING = frozenset({*_OF_REQUESTS, _TEXTS, "headwatch_incidents"})
"""Tables whose rows may name a user, a tenant, a document or a request."""
_TIMES = ("time", "updated", "TimeUnix")
"""What a table calls the time of a row; the first that it has."""
_SPANS = {
    "headwatch_heads_1m": 60, "headwatch_heads_10m": 600, "headwatch_heads_1h": 3600, "headwatch_heads_1d": 86_400,
}  # fmt: skip
"""Seconds that a row of a rung stands for, from its time on."""
_MUTATION_SECONDS = 3600.0
_CLEANUP = ("old_parts_lifetime", "cleanup_delay_period", "cleanup_delay_period_random_add", "max_cleanup_delay_period")
_OLD_PARTS_SECONDS = 180.0
_POLL_SECONDS = 0.5
_BATCH = 10_000


def requests_of(connection: Connection, kind: Kind, forms: Collection[str]) -> set[str]:
    """Return the engine ids of the requests of a user or tenant, in whatever form it is stored.

    Raises:
        StoreError: The store refuses, or cannot be reached.
    """
    if kind == "document":
        return set()
    rows = connection.query(
        f"SELECT DISTINCT engine_id FROM headwatch_requests WHERE {kind} IN {{forms:Array(String)}}",  # noqa: S608 - one of two
        {"forms": sorted(forms)},
    )
    return {row["engine_id"] for row in rows}


def others_of(connection: Connection, service: str) -> dict[str, list[str]]:
    """Return who else writes to a store that is a server: instances of other services, and of *service* where it has several.

    The latest twenty of each; an embedded store has one writer.

    Raises:
        StoreError: The store refuses, or cannot be reached.
    """
    if connection.url.startswith("chdb://"):
        return {}
    rows = connection.query(
        "SELECT service, groupArray(20)(instance) AS instances FROM (SELECT service, instance, max(time) AS latest FROM "
        "headwatch_requests GROUP BY service, instance ORDER BY latest DESC) GROUP BY service ORDER BY service "
        "UNION ALL SELECT DISTINCT service, [] AS instances FROM headwatch_incidents "
        "WHERE service NOT IN (SELECT DISTINCT service FROM headwatch_requests)"
    )
    return {
        row["service"]: sorted(row["instances"]) for row in rows if row["service"] != service or len(row["instances"]) > 1
    }


def purge_rows(
    connection: Connection, kind: Kind | None, forms: Collection[str], engine_ids: Collection[str], before_ns: int = 0,
    without: Callable[[Incident], Incident] = lambda incident: incident,
) -> dict[str, int]:  # fmt: skip
    """Remove the rows of an identifier and of requests, or all from before a moment; return how many by table.

    An incident that showed what goes stays, whichever service it is of, as *without* returns it.  When this returns, no part,
    old or new, holds any of the rows.  Cut short, it may be called again: what tells which requests are meant goes last.

    Raises:
        StoreError: The store refuses, cannot be reached, or did not let go of old parts in three minutes.
    """
    removed: dict[str, int] = {}
    with _keys(connection, forms, engine_ids) as keys:
        conditions = list(_conditions(connection, kind, before_ns, keys))
        for table, condition in conditions:
            count = _count(connection, table, condition)
            if not count:
                continue
            if table == "headwatch_incidents" and kind is not None:
                _tell_again(connection, condition, without)
            _delete(connection, table, condition)
            removed[table] = count
    _forget_old_parts(connection, [table for table, _ in conditions])
    return removed


def _tell_again(connection: Connection, condition: str, without: Callable[[Incident], Incident]) -> None:
    """Write incidents anew that go on without what goes; of two rows that are equally late the second one stands."""
    rows = connection.query(
        f"SELECT service, page_route, document FROM headwatch_incidents FINAL WHERE {condition}"  # noqa: S608 - our own
    )
    for number, row in enumerate(rows):
        try:
            told = without(msgspec.json.decode(row["document"], type=Incident))
        except msgspec.MsgspecError:
            continue  # of a newer headwatch: it goes as a whole
        columns = incident_columns((told,), row["service"], row["page_route"])
        connection.insert("headwatch_incidents", columns, f"purge:{time.time_ns()}:{number}")


def _delete(connection: Connection, table: str, condition: str) -> None:
    """Remove rows and return once it is done; a server may take longer than an answer may."""
    connection.require_space()
    connection.command(f"ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 0")
    deadline = time.monotonic() + _MUTATION_SECONDS
    while True:
        rows = connection.query(
            "SELECT latest_fail_reason FROM system.mutations WHERE database = currentDatabase() AND table = {table:String} "
            "AND NOT is_done", {"table": table},
        )  # fmt: skip
        if not rows:
            break
        if reason := next((row["latest_fail_reason"] for row in rows if row["latest_fail_reason"]), ""):
            raise StoreError(f"rows of {table} cannot be deleted: {reason.splitlines()[0]}")
        if time.monotonic() > deadline:
            raise StoreError(f"rows of {table} are still being deleted after {_MUTATION_SECONDS:.0f} s; run the purge again")
        time.sleep(_POLL_SECONDS)
    if left := _count(connection, table, condition):
        raise StoreError(f"{left} rows of {table} are still there after they were deleted")


def _conditions(connection: Connection, kind: Kind | None, before_ns: int, table_of_keys: str) -> Iterator[tuple[str, str]]:
    """Yield the tables that may hold what is to go, and what tells those rows; names and numbers are our own."""
    columns = _columns(connection)
    if kind is None:
        for table, names in columns.items():
            name = next((name for name in _TIMES if name in names), None)
            if name is not None:
                ended = f"toDateTime64({name}, 9, 'UTC') + toIntervalSecond({_SPANS.get(table, 0)})"
                resolved = " AND isNotNull(resolved)" if table == "headwatch_incidents" else ""  # one that is open goes on
                yield table, f"{ended} <= fromUnixTimestamp64Nano({before_ns}, 'UTC'){resolved}"
        return
    requests = f"(SELECT key FROM {table_of_keys} WHERE kind = 'request')"  # noqa: S608
    named = f"(SELECT key FROM {table_of_keys} WHERE kind = 'name')"  # noqa: S608
    sort = "name" if kind == "document" else "request"
    where = "documents.id" if kind == "document" else "requests.engine_id"
    keys = f"(SELECT groupArray(key) FROM {table_of_keys} WHERE kind = '{sort}')"  # noqa: S608
    shown = [f"hasAny(`{where}`, {keys})"]
    for exhibits in {"user": ("requests",), "tenant": ("requests", "documents"), "document": ()}[kind]:
        one = f"JSONExtractArrayRaw(document, 'exhibits', '{exhibits}')"
        shown.append(f"arrayExists(one -> JSONExtractString(one, '{kind}') IN {named}, {one})")
    yield "headwatch_incidents", " OR ".join(shown)
    if kind == "document":
        yield _TEXTS, f"hasAny(documents, {keys})"
    else:
        of_tenant = f" OR arrayExists(one -> one IN {named}, document_tenants)" if kind == "tenant" else ""
        yield _TEXTS, f"{kind} IN {named}{of_tenant}"
    for table in _OF_REQUESTS:
        asked = [f"engine_id IN {requests}"]
        if table == "headwatch_documents" and kind == "document":
            asked = [f"document_id IN {named}"]
        elif table == "headwatch_documents" and kind == "tenant":
            asked.append(f"labels['tenant'] IN {named}")
        elif kind == "document":
            continue
        yield table, " OR ".join(asked)


def _columns(connection: Connection) -> dict[str, set[str]]:
    """Return the columns of each of our tables that holds rows."""
    rows = connection.query(
        "SELECT table, groupArray(name) AS names FROM system.columns WHERE database = currentDatabase() AND table IN "
        "(SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree%') "
        "AND (table LIKE 'headwatch%' OR table LIKE 'otel%') AND table NOT IN ('headwatch_schema', 'headwatch_audit') "
        "GROUP BY table ORDER BY table"
    )
    return {row["table"]: set(row["names"]) for row in rows}


def _count(connection: Connection, table: str, condition: str) -> int:
    (row,) = connection.query(f"SELECT count() AS rows FROM {table} WHERE {condition}")  # noqa: S608 - both are our own
    return int(row["rows"])


@contextmanager
def _keys(connection: Connection, forms: Collection[str], engine_ids: Collection[str]) -> Iterator[str]:
    """Have the keys in a table that is never on disk, and of which the name is nobody else's; yield the name."""
    _drop_left(connection)
    table = f"{_KEYS}_{int(time.time())}_{secrets.token_hex(8)}"
    try:
        connection.command(f"CREATE TABLE {table} (kind String, key String) ENGINE = Memory")
        for kind, keys in (("name", sorted(forms)), ("request", sorted(engine_ids))):
            for start in range(0, len(keys), _BATCH):
                connection.command(
                    f"INSERT INTO {table} SELECT {{kind:String}}, arrayJoin({{keys:Array(String)}})",
                    {"kind": kind, "keys": keys[start : start + _BATCH]},
                )
        yield table
    finally:
        _drop(connection, table)


def _drop_left(connection: Connection) -> None:
    """Drop the tables of keys of purges that were killed; an embedded store has no other purge at work."""
    latest = int(time.time()) - (0 if connection.url.startswith("chdb://") else _LEFT_SECONDS)
    rows = connection.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, {begins:String})",
        {"begins": _KEYS},
    )
    for row in rows:
        made = row["name"].removeprefix(_KEYS).split("_")[1:2]  # not every kind of database tells when a table was made
        if not made or int(made[0]) <= latest:
            _drop(connection, row["name"])


def _drop(connection: Connection, table: str) -> None:
    """Drop a table of keys, and the mutations that ask it: without it they fail for ever, and hold up those that follow."""
    connection.command(
        f"KILL MUTATION WHERE database = currentDatabase() AND NOT is_done AND position(command, '{table}') > 0 SYNC"
    )
    connection.command(f"DROP TABLE IF EXISTS {table} SYNC")


def _forget_old_parts(connection: Connection, among: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
    """Wait until tables have no parts but those in use; ClickHouse would keep the others for minutes.

    How long they are kept is set anew when the store is opened next.
    """
    tables = [table for table in among if _old_parts(connection, [table])]
    changed = ", ".join(f"{name} = 1" for name in _CLEANUP)
    for table in tables:
        connection.command(f"ALTER TABLE {table} MODIFY SETTING {changed}")
        if connection.url.startswith("chdb://"):  # nobody else is in it; the clean-up begins at once, and not at its next turn
            connection.command(f"DETACH TABLE {table}")
            connection.command(f"ATTACH TABLE {table}")
    try:
        deadline = clock() + _OLD_PARTS_SECONDS
        while left := _old_parts(connection, tables):
            if clock() > deadline:
                raise StoreError(f"{left} old parts are still on disk; run the purge again")
            time.sleep(_POLL_SECONDS)
    finally:
        for table in tables:
            connection.command(f"ALTER TABLE {table} RESET SETTING {', '.join(_CLEANUP)}")


def _old_parts(connection: Connection, tables: Collection[str]) -> int:
    (row,) = connection.query(
        "SELECT count() AS parts FROM system.parts WHERE database = currentDatabase() AND table IN {tables:Array(String)} "
        "AND NOT active", {"tables": sorted(tables)},
    )  # fmt: skip
    return int(row["parts"])
