"""One window of everything that drift detection looks at, all engines together: the unit of its history.

An :class:`ObservedWindow` is what a closed window comes to once engines are merged: strata with the means of their heads,
figures of retrieval for each scope, counts of traffic, headwatch's own state, and the requests that a page may show as
examples.  It is kept (history), replayed (backtest, recordings) and compared; nothing else enters detection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headwatch.findings import CanaryExhibit, DeployEvent
    from headwatch.records import Stratum

DRIFT_FEATURES = ("entropy", "max_weight", "sink_mass", "local_mass", "distance", "lookback")
"""The features of a head that are watched for drift, in the order of ``StratumWindow.values``."""


@dataclass(frozen=True, slots=True)
class StratumWindow:
    """One stratum in one window.  F features, K = layers x heads streams (layer by layer), C covariates."""

    values: NDArray[np.float64]  # [F, K] mean of the rows; NaN where no row defines it
    rows: NDArray[np.float64]  # [F] rows that define the feature in at least one head
    covariates: NDArray[np.float64]  # [C] mean log2 of the visible tokens of the rows, ...; NaN where unknown
    heads: int
    """Heads in one layer: stream k is head ``k % heads`` of layer ``k // heads``."""


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Whose retrieval a signal is about."""

    model: str
    adapter: str
    route: str
    language: str = ""
    band: str = ""
    """Band of the prompt's tokens that are no document's, for signals that move with it; empty for the others."""

    @property
    def label(self) -> str:
        """Return one string: the fields joined by ``|``, the band only where there is one."""
        label = f"{self.model}|{self.adapter}|{self.route}|{self.language}"
        return f"{label}|{self.band}" if self.band else label


class SignalValue(msgspec.Struct, frozen=True, array_like=True):
    """The mean of a signal over the requests of a window that define it, and how many they are."""

    mean: float
    requests: float


class ObservedDocument(msgspec.Struct, frozen=True):
    """A document of an example request."""

    id: str
    source: str = ""
    version: str = ""
    retrieved_at: str = ""
    share: float | None = None
    labels: dict[str, str] = {}


class ObservedRequest(msgspec.Struct, frozen=True):
    """A request that may be shown as an example: enough to find its rows in the store."""

    request_id: str
    engine_id: str
    trace_id: str
    time_ns: int
    model: str
    route: str
    state: str
    grounding_ratio: float | None
    documents: tuple[ObservedDocument, ...] = ()
    flags: tuple[str, ...] = ()
    """Signals in which this request stands out, for example ``instruction_focus``."""
    kind: str = ""
    """Kind of the prompt by its shape, for example ``1k-4k docs:3-4 turns:0``."""
    user: str = ""
    """Whose request it was, hashed where that is configured: what a purge finds it by, however old it is."""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class ObservedWindow:
    """A window of all engines that report to one sidecar."""

    number: int
    """Ascending; a gap is a window of which nothing is known.  Start over length, or a count where windows close by count."""
    start_ns: int
    end_ns: int
    strata: dict[Stratum, StratumWindow] = field(default_factory=dict)
    signals: dict[Scope, dict[str, SignalValue]] = field(default_factory=dict)
    """By scope and name; names are defined in :mod:`headwatch.drift.signals`."""
    traffic: dict[str, float] = field(default_factory=dict)
    """Counts, for example ``requests route:hr language:de``; names are defined in :mod:`headwatch.drift.traffic_baseline`."""
    telemetry: dict[str, float] = field(default_factory=dict)
    """headwatch's own state; names are defined in :mod:`headwatch.drift.telemetry`."""
    requests: tuple[ObservedRequest, ...] = ()
    """Bounded; examples for a page."""
    canaries: tuple[CanaryExhibit, ...] = ()
    """Canary runs that ended in the window."""
    deploys: tuple[DeployEvent, ...] = ()
    """Releases that were marked in the window."""


def closed_by_count(window: ObservedWindow, nominal_seconds: float) -> bool:
    """Return whether *window* was closed by a count of requests: its number then tells neither its time nor its length."""
    return window.number != window.start_ns // int(nominal_seconds * 1e9)
