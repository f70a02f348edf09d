"""Incidents, evidence, canary runs and releases read back from the store, also of sidecars that are long gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.findings import Incident

if TYPE_CHECKING:
    from headwatch_exporters.clickhouse.connection import Connection


class FindingsReader:
    """Reads what was found.  Every method but :meth:`stored_incidents` returns plain values; all may raise ``StoreError``."""

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
