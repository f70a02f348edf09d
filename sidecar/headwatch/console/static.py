"""A sidecar that does not change: the HTTP surface over values given once, for previews, probes and tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.console.view import Control, IncidentView, Reader
    from headwatch.findings import DriftStatus, Incident
    from headwatch.health import Health
    from headwatch.records import HeadScope, Selection


@dataclass(frozen=True, slots=True)
class StaticReader:
    """Answers every read with what it was given; *limit* is kept, filters by arm and route are."""

    arm_rows: list[dict[str, Any]] = field(default_factory=list)
    request_rows: list[dict[str, Any]] = field(default_factory=list)
    head_table: dict[str, Any] = field(default_factory=dict)
    document_rows: list[dict[str, Any]] = field(default_factory=list)
    history_rows: list[dict[str, Any]] = field(default_factory=list)
    row_counts: dict[str, int] = field(default_factory=dict)
    unit_table: dict[str, Any] = field(default_factory=dict)
    signal_table: dict[str, Any] = field(default_factory=dict)
    evidence_rows: list[dict[str, Any]] = field(default_factory=list)
    canary_rows: list[dict[str, Any]] = field(default_factory=list)
    deploy_rows: list[dict[str, Any]] = field(default_factory=list)
    effect_table: dict[str, Any] = field(default_factory=dict)
    text_rows: list[dict[str, Any]] = field(default_factory=list)

    def arms(self, since_ns: int = 0) -> list[dict[str, Any]]:
        """Return the rows of arms that were seen at or after *since_ns*."""
        return [row for row in self.arm_rows if row.get("last_time_ns", since_ns) >= since_ns]

    def requests(self, arm: str = "", route: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the requests of *arm* and *route*; an empty one stands for all."""
        rows = (row for row in self.request_rows if arm in {"", row.get("arm")} and route in {"", row.get("route")})
        return list(rows)[:limit]

    def heads(self, arm: str = "", feature: str = "lookback") -> dict[str, Any]:
        """Return the head table under the name *feature*."""
        return {**self.head_table, "feature": feature, "arm": arm}

    def head_history(self, scope: HeadScope, step_seconds: int = 0, quantiles: Sequence[float] = ()) -> list[dict[str, Any]]:
        """Return the rows of the layer that *scope* names, or all, with what was asked for."""
        asked = {"step_seconds": step_seconds, "quantiles": list(quantiles)}
        return [{**row, **asked} for row in self.history_rows if scope.layer in {None, row.get("layer")}]

    def documents(self, arm: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the documents of *arm*; an empty one stands for all."""
        return [row for row in self.document_rows if arm in {"", row.get("arm")}][:limit]

    def evidence(self, since_ns: int = 0, name: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the evidence of *name* at or after *since_ns*; an empty one stands for all."""
        rows = (row for row in self.evidence_rows if row["time_ns"] >= since_ns and name in {"", row.get("name")})
        return list(rows)[:limit]

    def canaries(self, prompt: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the runs of *prompt*; an empty one stands for all."""
        return [row for row in self.canary_rows if prompt in {"", row.get("prompt")}][:limit]

    def deploys(self, limit: int = 200) -> list[dict[str, Any]]:
        """Return the releases."""
        return self.deploy_rows[:limit]

    def texts(self, request_id: str, limit: int = 200, /) -> list[dict[str, Any]]:
        """Return the texts of the request."""
        return [row for row in self.text_rows if row.get("request_id") == request_id][:limit]

    def effects(self, incident: Incident, /) -> dict[str, Any]:
        """Return the given effects, under the id of *incident*."""
        return {"incident": incident.id, **self.effect_table}

    def units(
        self, selection: Selection, feature: str = "", length: int = 1, limit: int = 96, since_ns: int = 0,
        until_ns: int = 2**63 - 1,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the given units, with what was asked for."""
        asked = {**selection.given(), "feature": feature, "length": length, "limit": limit, "since_ns": since_ns,
                 "until_ns": until_ns}  # fmt: skip
        return {**self.unit_table, "asked": asked}

    def signals(
        self, selection: Selection, length: int = 1, limit: int = 96, since_ns: int = 0, until_ns: int = 2**63 - 1,
        first: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the given signals, with what was asked for."""
        asked = {**selection.given(), "length": length, "limit": limit, "since_ns": since_ns, "until_ns": until_ns,
                 "first": first}  # fmt: skip
        return {**self.signal_table, "asked": asked}

    def counts(self) -> dict[str, int]:
        """Return the counts."""
        return self.row_counts


@dataclass(frozen=True, slots=True)
class StaticView:
    """A ``SidecarView`` over fixed values."""

    state: Health
    reasons: tuple[str, ...] = ()
    exposition: bytes = b""
    reader: Reader | None = None
    control: Control | None = None
    incidents: IncidentView | None = None
    drift_status: DriftStatus | None = None

    def health(self) -> Health:
        """Return the state."""
        return self.state

    def readiness(self) -> list[str]:
        """Return the reasons."""
        return list(self.reasons)

    def drift(self) -> DriftStatus | None:
        """Return the drift status."""
        return self.drift_status

    def render_metrics(self, accept: str | None) -> tuple[bytes, str]:
        """Return the exposition as Prometheus text, whatever is *accept*-ed."""
        del accept
        return self.exposition, "text/plain; version=0.0.4; charset=utf-8"
