"""Incidents, evidence, effect sizes, canary runs and releases read back from the store, also of sidecars that are long gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.aggregate.histogram import slot_middles
from headwatch.drift.effects.sizes import effect_sizes
from headwatch.findings import Incident
from headwatch.incident.trail import named_heads, span_of
from headwatch_exporters.clickhouse.reading.head_counts import bounded, read_head_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.drift.effects.sizes import HeadCounts
    from headwatch.findings import NamedHead
    from headwatch_exporters.clickhouse.connection import Connection


class FindingsReader:
    """Reads what was found.  All methods may raise ``StoreError``; those that the API asks return plain values."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stored_incidents(self, state: str = "", limit: int = 200) -> list[Incident]:
        """Return the latest incidents as they last were, newest first; an empty *state* means any."""
        rows = self._connection.query(
            """
            SELECT document FROM headwatch_incidents FINAL
            WHERE {state:String} = '' OR state = {state:String}
            ORDER BY opened DESC, id LIMIT {limit:UInt32}
            """,
            {"state": state, "limit": limit},
        )
        return [msgspec.json.decode(row["document"], type=Incident) for row in rows]

    def evidence(self, since_ns: int = 0, name: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the evidence of the latest windows, newest and largest first; an empty *name* means any."""
        return self._connection.query(
            """
            SELECT toUnixTimestamp64Nano(time) AS time_ns, toUnixTimestamp64Nano(since) AS since_ns, * EXCEPT (time, since)
            FROM headwatch_drift_evidence
            WHERE time >= fromUnixTimestamp64Nano({since:Int64}) AND ({name:String} = '' OR name = {name:String})
            ORDER BY time DESC, log10_evidence DESC LIMIT {limit:UInt32}
            """,
            {"since": since_ns, "name": name, "limit": limit},
        )

    def head_counts(self, heads: Sequence[NamedHead], *, since_ns: int, first_ns: int, last_ns: int) -> list[HeadCounts]:
        """Return the requests of *heads* by bucket: see :mod:`headwatch_exporters.clickhouse.reading.head_counts`."""
        return read_head_counts(self._connection, heads, since_ns=since_ns, first_ns=first_ns, last_ns=last_ns)

    def effects(self, incident: Incident, /) -> dict[str, Any]:
        """Return how far the distributions of the heads that *incident* names lie apart, before and since it began."""
        event = incident.event
        first_ns, last_ns = bounded(event.since_ns, *span_of(incident))
        counts = self.head_counts(named_heads(incident), since_ns=event.since_ns, first_ns=first_ns, last_ns=last_ns)
        sizes: list[dict[str, Any]] = msgspec.to_builtins(effect_sizes(counts, slot_middles()))
        return {
            "incident": incident.id, "model": event.model, "since_ns": event.since_ns, "first_ns": first_ns,
            "last_ns": last_ns, "heads": sizes,
        }  # fmt: skip

    def canaries(self, prompt: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the latest canary runs, newest first; an empty *prompt* means any."""
        return self._connection.query(
            """
            SELECT toUnixTimestamp64Nano(time) AS time_ns, * EXCEPT (time)
            FROM headwatch_canaries
            WHERE {prompt:String} = '' OR prompt = {prompt:String}
            ORDER BY time DESC, prompt LIMIT {limit:UInt32}
            """,
            {"prompt": prompt, "limit": limit},
        )

    def deploys(self, limit: int = 200) -> list[dict[str, Any]]:
        """Return the latest releases, newest first."""
        return self._connection.query(
            """
            SELECT toUnixTimestamp64Nano(time) AS time_ns, * EXCEPT (time)
            FROM headwatch_deploys ORDER BY time DESC LIMIT {limit:UInt32}
            """,
            {"limit": limit},
        )
