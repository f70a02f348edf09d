"""Signals of retrieval of units, by the same definitions and the same code as those of windows.

What detection remembers from window to window (versions, usual lengths, sources, the newest document of each) is asked of the
whole store, whatever the arm, so that both sides are held against the same: a source that one arm never gets is missed in it,
and a document is behind where any request has been given a newer one before.

Cost: about 0.6 ms a request, in answers of ``PAGE_REQUESTS`` at most; one look through the documents of the store for each.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from headwatch.drift.signals.read import ReadRequest
from headwatch.drift.signals.scopes import DocumentBook, RunningMean, values_of
from headwatch.drift.signals.sources import MAX_SOURCES
from headwatch.model import Document
from headwatch_exporters.clickhouse.reading.stored_requests import read_requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headwatch.observed import SignalValue
    from headwatch_exporters.clickhouse.connection import Connection

PAGE_REQUESTS = 2_000
_FOUND = "kind = 'document' AND tokens > 0"
_Group = tuple[int, str, str, str]
"""Unit, adapter, route and language."""


def read_signals(connection: Connection, chosen: str, given: dict[str, Any], first: int) -> dict[str, Any]:
    """Return for each unit, adapter, route and language the signals of its requests as ``[mean, requests]``.

    *chosen* is the query that gives each request its unit, ``given["length"]`` to one.  Units from *first* on are read, as many
    as an answer may cost; ``next`` is the first that was not, None where there are no more.

    Raises:
        StoreError: The store refuses.
    """
    after = first + max(PAGE_REQUESTS // given["length"], 1)
    chosen = f"SELECT * FROM ({chosen}) WHERE unit >= {first} AND unit < {after}"  # noqa: S608 - ours, and numbers
    book = DocumentBook()
    _learn_lengths(connection, chosen, given, book)
    sources = _sources(connection, book.sources.needed)
    sightings = deque(_sightings(connection, chosen, given))
    newest = deque(_newest(connection, chosen, given))
    means: dict[_Group, dict[str, RunningMean]] = defaultdict(dict)
    for unit, record in read_requests(connection, chosen, given):
        for one in _until(record.ended_ns, sightings):
            book.versions.learn(one["source"], one["document_id"], one["version"], one["retrieved"])
        for one in _until(record.ended_ns, newest):
            book.freshness.learn(one["source"], float(one["newest"]), int(one["last_ns"]) / 1e9)
        request = ReadRequest(record)
        scope = request.scope
        book.sources.watched.setdefault(scope.label, sources.get(scope.route, []))
        group = means[unit, scope.adapter, scope.route, scope.language]
        for name, value in values_of(request, book).items():
            group.setdefault(name, RunningMean()).add(value, request.weight)
    signals = [
        {"unit": unit, "adapter": adapter, "route": route, "language": language,
         "values": {name: [value.mean, value.requests] for name, value in _values(by_name)}}
        for (unit, adapter, route, language), by_name in sorted(means.items())
    ]  # fmt: skip
    return {"signals": signals, "next": after if signals else None}


def _values(means: Mapping[str, RunningMean]) -> Iterator[tuple[str, SignalValue]]:
    for name in sorted(means):
        yield name, means[name].value(name)


def _read_by(chosen: str, columns: str) -> str:
    """Return the query for *columns* of the documents that the requests of *chosen* were given."""
    return f"""
        SELECT {columns} FROM headwatch_documents
        WHERE {_FOUND} AND (engine_id, request_id) IN (SELECT engine_id, request_id FROM ({chosen}))
    """  # noqa: S608 - put together from our own constants


def _sightings(connection: Connection, chosen: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return when each version of the documents of *chosen* that have several was first given to any request, in order."""
    return connection.query(
        f"""
        SELECT source, document_id, version, retrieved, first_ns
        FROM (
            SELECT source, document_id, version, argMin(retrieved_at, time) AS retrieved,
                   toUnixTimestamp64Nano(min(time)) AS first_ns,
                   uniqExact(version) OVER (PARTITION BY source, document_id) AS versions
            FROM headwatch_documents
            WHERE {_FOUND} AND version != '' AND (source, document_id) IN ({_read_by(chosen, "source, document_id")})
            GROUP BY source, document_id, version, retrieved_at = ''
        )
        WHERE versions > 1 ORDER BY first_ns
        """,  # noqa: S608 - likewise
        given,
    )


def _newest(connection: Connection, chosen: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return hour by hour the newest document that any request was given of each source of *chosen*, in order."""
    retrieved = "toUnixTimestamp64Milli(parseDateTime64BestEffortOrNull(retrieved_at, 3, 'UTC')) / 1000"
    return connection.query(
        f"""
        SELECT source, toUnixTimestamp64Nano(min(time)) AS first_ns, toUnixTimestamp64Nano(max(time)) AS last_ns,
               max({retrieved}) AS newest
        FROM headwatch_documents
        WHERE {_FOUND} AND isNotNull({retrieved}) AND source IN ({_read_by(chosen, "source")})
        GROUP BY source, toStartOfHour(time) ORDER BY first_ns
        """,  # noqa: S608 - likewise
        given,
    )


def _until(time_ns: int, rows: deque[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Take from *rows* those that had happened by then."""
    while rows and int(rows[0]["first_ns"]) <= time_ns:
        yield rows.popleft()


def _learn_lengths(connection: Connection, chosen: str, given: dict[str, Any], book: DocumentBook) -> None:
    """Teach *book* the usual length of the documents of *chosen*, where they came in several."""
    names = "source, document_id, version"
    rows = connection.query(
        f"""
        SELECT {names}, argMax(tokens, (seen, tokens)) AS usual
        FROM (
            SELECT {names}, tokens, count() AS seen FROM headwatch_documents
            WHERE {_FOUND} AND ({names}) IN ({_read_by(chosen, names)})
            GROUP BY {names}, tokens
        )
        GROUP BY {names} HAVING count() > 1
        """,  # noqa: S608 - likewise
        given,
    )
    for row in rows:
        book.lengths.learn(Document(row["document_id"], source=row["source"], version=row["version"]), int(row["usual"]))


def _sources(connection: Connection, needed: int) -> dict[str, list[str]]:
    """Return by route the sources that most requests are given, of those that *needed* of them are."""
    rows = connection.query(
        f"""
        SELECT route, source, uniq(engine_id, request_id) AS requests FROM headwatch_documents
        WHERE {_FOUND} AND source != ''
        GROUP BY route, source HAVING requests >= {needed}
        ORDER BY route, requests DESC, source LIMIT {MAX_SOURCES} BY route
        """  # noqa: S608 - likewise, and numbers of ours
    )
    sources: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        sources[row["route"]].append(row["source"])
    return sources
