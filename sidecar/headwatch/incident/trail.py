"""From each name on a page to its rows in the store: one query for each head, document, request and fixed prompt that is shown.

Queries are given as they can be pasted into any ClickHouse client, so a page can be checked without headwatch.  Names are
quoted here, since a document's id is whatever a client sent.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from headwatch.findings import NamedHead

if TYPE_CHECKING:
    from headwatch.findings import Evidence, Incident

_BEFORE_NS = 3600 * 10**9
"""How far back "before" reaches in the queries."""
_AFTER_NS = 300 * 10**9
"""What the last window showed may be written with a later time."""
MAX_HEADS = 16
"""As many as a report shows."""


class Lead(msgspec.Struct, frozen=True):
    """One name, and where its rows are."""

    what: str
    """``head document request canary``."""
    name: str
    sql: str


def leads_of(incident: Incident) -> tuple[Lead, ...]:
    """Return where the rows of every head, document, request and fixed prompt of *incident* are."""
    return (*_heads(incident), *_documents(incident), *_requests(incident), *_canaries(incident))


def named_heads(incident: Incident) -> list[NamedHead]:
    """Return the heads of traffic that *incident* names, most evidence first; a fixed prompt's are in the row of its run."""
    found = [(one, head) for one in incident.event.evidence if one.kind == "heads" for head in one.heads]
    found.sort(key=lambda pair: (-pair[1].log10_evidence, -abs(pair[1].effect)))
    phases: dict[tuple[str, str, int, int, str], set[bool]] = {}
    for one, head in found:
        phases.setdefault((one.model, one.route, head.layer, head.head, head.feature), set()).add(_is_prefill(one))
    return [
        NamedHead(layer, head, feature, route, "prefill" if prefill == {True} else "decode", model)
        for (model, route, layer, head, feature), prefill in list(phases.items())[:MAX_HEADS]
    ]


def _is_prefill(one: Evidence) -> bool:
    """Return whether *one* is of rows of prompts, by the place of the phase in :attr:`headwatch.records.Stratum.label`.

    That is behind the context band, or in the label of a pool behind its mark.  Model and route are known, so either may hold
    the separator, or be named like a phase.
    """
    parts = one.stratum.removeprefix(f"{one.model}|").split("|", 2)  # revision, adapter, the rest
    return parts[-1].removeprefix(f"{one.route}|").split("|")[1:2] == ["prefill"]


def span_of(incident: Incident) -> tuple[int, int]:
    """Return the first and the last moment, ns, of the rows that *incident* leads to: before and since."""
    return incident.event.since_ns - _BEFORE_NS, incident.event.time_ns + _AFTER_NS


def _heads(incident: Incident) -> list[Lead]:
    """Return for the heads of traffic their means before and since."""
    return [
        Lead(
            "head", f"layer {one.layer} head {one.head} {one.feature}",
            f"SELECT time >= {_time(incident.event.since_ns)} AS since, count() AS requests, "  # noqa: S608 - quoted
            f"avgIf({one.feature}, isFinite({one.feature})) AS mean FROM headwatch_request_heads "
            f"WHERE layer = {one.layer} AND head = {one.head} AND {_scope(one.model, one.route)} AND {_span(incident)} "
            "GROUP BY since ORDER BY since",
        )
        for one in named_heads(incident)
    ]  # fmt: skip


def _documents(incident: Incident) -> list[Lead]:
    return [
        Lead(
            "document", one.id,
            f"SELECT time >= {_time(incident.event.since_ns)} AS since, count() AS requests, avg(share) AS mean_share "  # noqa: S608 - quoted
            f"FROM headwatch_documents WHERE document_id = {quoted(one.id)} AND {_scope(incident.event.model)} "
            f"AND {_span(incident)} GROUP BY since ORDER BY since",
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


def _scope(model: str, route: str = "") -> str:
    wanted = [f"{name} = {quoted(value)}" for name, value in (("model", model), ("route", route)) if value]
    return " AND ".join(wanted) or "true"


def _span(incident: Incident) -> str:
    first, last = span_of(incident)
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
