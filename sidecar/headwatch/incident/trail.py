"""From each name on a page to its rows in the store: one query for each head, document, request and fixed prompt that is shown.

Queries are given as they can be pasted into any ClickHouse client, so a page can be checked without headwatch.  Names are
quoted here, since a document's id is whatever a client sent.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from headwatch.findings import Incident

_BEFORE_NS = 3600 * 10**9
"""How far back "before" reaches in the queries."""
_AFTER_NS = 300 * 10**9
"""What the last window showed may be written with a later time."""
MAX_HEADS = 10


class Lead(msgspec.Struct, frozen=True):
    """One name, and where its rows are."""

    what: str
    """``head document request canary``."""
    name: str
    sql: str


def leads_of(incident: Incident) -> tuple[Lead, ...]:
    """Return where the rows of every head, document, request and fixed prompt of *incident* are."""
    return (*_heads(incident), *_documents(incident), *_requests(incident), *_canaries(incident))


def _heads(incident: Incident) -> list[Lead]:
    """Return for the heads of traffic their means before and since; those of a fixed prompt are in the row of its run."""
    found: dict[tuple[int, int, str, str], None] = {}
    for evidence in incident.event.evidence:
        for head in evidence.heads if evidence.kind == "heads" else ():
            found.setdefault((head.layer, head.head, head.feature, evidence.route))
    return [
        Lead(
            "head", f"layer {layer} head {head} {feature}",
            f"SELECT time >= {_time(incident.event.since_ns)} AS since, count() AS requests, "  # noqa: S608 - quoted
            f"avgIf({feature}, isFinite({feature})) AS mean FROM headwatch_request_heads "
            f"WHERE layer = {layer} AND head = {head} AND {_scope(incident, route)} AND {_span(incident)} "
            "GROUP BY since ORDER BY since",
        )
        for layer, head, feature, route in list(found)[:MAX_HEADS]
    ]  # fmt: skip


def _documents(incident: Incident) -> list[Lead]:
    return [
        Lead(
            "document", one.id,
            f"SELECT time >= {_time(incident.event.since_ns)} AS since, count() AS requests, avg(share) AS mean_share "  # noqa: S608 - quoted
            f"FROM headwatch_documents WHERE document_id = {quoted(one.id)} AND {_scope(incident, '')} AND {_span(incident)} "
            "GROUP BY since ORDER BY since",
        )
        for one in incident.exhibits.documents
    ]  # fmt: skip


def _requests(incident: Incident) -> list[Lead]:
    return [
        Lead(
            "request", one.request_id,
            f"SELECT * FROM headwatch_requests WHERE time = {_time(one.time_ns)} AND request_id = {quoted(one.request_id)} "  # noqa: S608 - quoted
            f"AND engine_id = {quoted(one.engine_id)}",
        )
        for one in incident.exhibits.requests
    ]  # fmt: skip


def _canaries(incident: Incident) -> list[Lead]:
    run = incident.exhibits.canary
    if run is None or not run.prompt:
        return []
    return [
        Lead(
            "canary", run.prompt,
            f"SELECT * FROM headwatch_canaries WHERE prompt = {quoted(run.prompt)} AND time = {_time(run.time_ns)}",  # noqa: S608
        )
    ]  # fmt: skip


def _scope(incident: Incident, route: str) -> str:
    model = f"model = {quoted(incident.event.model)}"
    return f"{model} AND route = {quoted(route)}" if route else model


def _span(incident: Incident) -> str:
    first, last = incident.event.since_ns - _BEFORE_NS, incident.event.time_ns + _AFTER_NS
    return f"time >= {_time(first)} AND time <= {_time(last)}"


def _time(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"toDateTime64('{text}.{rest:09d}', 9, 'UTC')"


def quoted(text: str) -> str:
    """Return *text* as a string of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def runbook_of(incident: Incident, base: str) -> str:
    """Return where the runbook of its class is read; *base* is ``[incident] runbook_url``."""
    return f"{base.rstrip('/')}/{incident.verdict.drift_class}.md"
