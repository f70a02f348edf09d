"""What the HTTP surface may ask: the seam between the console and the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwatch.findings import DriftStatus, Incident, Ruling
    from headwatch.health import Health
    from headwatch.records import HeadScope, Selection


STORE_OFF = "the store is off (store.enabled = false)"
"""What is said where there is no reader."""


class Reader(Protocol):
    """Reads results back from the store.  Every method returns plain values, ready for JSON, and may block."""

    def arms(self, since_ns: int = 0) -> list[dict[str, Any]]:
        """Return one row for each arm: requests by state, mean ratios with 95 % intervals."""
        ...

    def requests(self, arm: str = "", route: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the latest requests, newest first."""
        ...

    def heads(self, arm: str = "", feature: str = "lookback") -> dict[str, Any]:
        """Return the mean and spread of *feature* for each layer and head over the requests of *arm*."""
        ...

    def head_history(self, scope: HeadScope, step_seconds: int = 0, quantiles: Sequence[float] = ()) -> list[dict[str, Any]]:
        """Return the mean, or the *quantiles*, of each layer and head of *scope*, or its course where a step is given."""
        ...

    def documents(self, arm: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return how often each document was given, and its mean share."""
        ...

    def evidence(self, since_ns: int = 0, name: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the evidence of drift of the latest windows, newest and largest first."""
        ...

    def canaries(self, prompt: str = "", limit: int = 200) -> list[dict[str, Any]]:
        """Return the latest canary runs, newest first."""
        ...

    def deploys(self, limit: int = 200) -> list[dict[str, Any]]:
        """Return the latest releases that were marked, newest first."""
        ...

    def texts(self, request_id: str, limit: int, /) -> list[dict[str, Any]]:
        """Return the texts of a request that have not expired, newest first, as ciphertext in base64."""
        ...

    def effects(self, incident: Incident, /) -> dict[str, Any]:
        """Return how far the distributions of the heads that *incident* names lie apart, before and since it began."""
        ...

    def units(
        self, selection: Selection, feature: str = "", length: int = 1, limit: int = 96, since_ns: int = 0,
        until_ns: int = 2**63 - 1,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the requests of *selection* as units of *length* requests, for ``headwatch compare``."""
        ...

    def signals(
        self, selection: Selection, length: int = 1, limit: int = 96, since_ns: int = 0, until_ns: int = 2**63 - 1,
        first: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the signals of retrieval of the same units from *first* on, and the ``next`` unit to ask for."""
        ...

    def counts(self) -> dict[str, int]:
        """Return how many rows the store holds."""
        ...


class Control(Protocol):
    """Live control.  Every method returns plain values, ready for JSON, and may block."""

    def show(self) -> dict[str, Any]:
        """Return what is ordered, until when, and which workers follow."""
        ...

    def audit(self, limit: int) -> list[dict[str, Any]]:
        """Return the last *limit* changes, newest first."""
        ...

    def change(self, body: bytes, peer: str) -> dict[str, Any]:
        """Make the change in the JSON *body*, which came from *peer*; return what :meth:`show` does.

        Raises:
            ControlError: It cannot be made.
        """
        ...


class IncidentView(Protocol):
    """The incidents.  Every method may block, and raises :class:`~headwatch.errors.IncidentError` where it cannot do it."""

    def list(self, state: str | None = None, limit: int = 100) -> Sequence[Incident]:
        """Return the latest *limit* incidents, newest first: all, those of a *state*, or ``live``: not resolved."""
        ...

    def get(self, incident_id: str, /) -> Incident:
        """Return one incident, by its id or an unambiguous beginning of it."""
        ...

    def ack(self, incident_id: str, who: str, note: str, ruling: Ruling | None, /) -> Incident:
        """Say that *who* looks after it, and what the page was where that is known; return it as it is then."""
        ...

    def resolve(self, incident_id: str, who: str, ruling: Ruling, note: str, /) -> Incident:
        """Close it with what *who* says of the page, and return it as it is then."""
        ...


class CanaryView(Protocol):
    """The canaries that the sidecar sends.  Methods raise :class:`~headwatch.errors.CanaryError` where they cannot do it."""

    def show(self) -> dict[str, Any]:
        """Return where they stand, the last comparison, and how far orders are done, as plain values."""
        ...

    def fingerprint(self) -> bytes:
        """Return the fingerprint in force, as its file holds it."""
        ...

    def order_run(self) -> dict[str, Any]:
        """Have a run sent now; return what :meth:`show` does."""
        ...

    def order_pin(self, runs: int | None, note: str, /) -> dict[str, Any]:
        """Have a fingerprint pinned anew; return what :meth:`show` does."""
        ...


class SidecarView(Protocol):
    """The running sidecar, as the console sees it."""

    @property
    def incidents(self) -> IncidentView | None:
        """Return its incidents, or None where drift detection is off."""
        ...

    def drift(self) -> DriftStatus | None:
        """Return where drift detection stands; None before the first window, and where it is off."""
        ...

    @property
    def control(self) -> Control | None:
        """Return its live control, or None where it has none."""
        ...

    @property
    def reader(self) -> Reader | None:
        """Return the store's reader, or None where the store is off."""
        ...

    def health(self) -> Health:
        """Return the state of the pair now."""
        ...

    def readiness(self) -> list[str]:
        """Return why the sidecar is not ready; empty where it is."""
        ...

    def render_metrics(self, accept: str | None) -> tuple[bytes, str]:
        """Return the Prometheus exposition and its content type."""
        ...
