"""One side of a comparison: units that could as well be the other side's, if nothing differed.

A unit is a run of consecutive windows, or of consecutive requests of an arm.  Everything of one unit (heads, features, strata,
signals, traffic) moves together when units are exchanged, so whatever depends on each other within a unit may do so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Unit = Literal["windows", "requests"]


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What is held equal: a stratum without the model and its revision, which are what is compared."""

    adapter: str
    route: str
    context_band: str
    phase: str
    language: str = ""
    template: str = ""

    @property
    def label(self) -> str:
        """Return one string: the fields that say something, joined by ``|``."""
        fields = (self.adapter, self.route, self.context_band, self.phase, self.language, self.template)
        return "|".join(filter(None, fields)) or "all"


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """Whose requests a signal is about: the same for both sides."""

    adapter: str
    route: str
    language: str = ""

    @property
    def label(self) -> str:
        """Return one string: the fields that say something, joined by ``|``."""
        return "|".join(filter(None, (self.adapter, self.route, self.language))) or "all"


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one cell over U units.  F features, K streams (layer by layer), C covariates."""

    values: NDArray[np.float32]  # [U, F, K]; NaN where nothing defines it
    rows: NDArray[np.float64]  # [U, F]; 0 where the unit has none
    covariates: NDArray[np.float64]  # [U, C]; NaN where unknown


@dataclass(frozen=True, slots=True)
class Series:
    """One figure over U units, and how many requests it is the mean of."""

    values: NDArray[np.float64]  # [U]; NaN where nothing defines it
    requests: NDArray[np.float64]  # [U]


@dataclass(frozen=True, slots=True)
class CanaryTally:
    """What the runs of one canary prompt came to."""

    prompt: str
    runs: int
    failed: int
    deviation: float
    """The largest seen."""
    threshold: float
    hint: str
    """The one given most often by runs that failed."""
    earliest_layer: int | None
    last_failed: bool
    """Whether the latest run failed."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Windows of a selection in which the sidecar saw other models, revisions or adapters as well."""

    shared: int = 0
    """Windows whose traffic, templates and canaries are of all of them, and not compared."""
    signals: int = 0
    """Of these, windows with signals of requests of several revisions, which are not compared either."""


@dataclass(frozen=True, slots=True)
class Side:
    """Everything of one side that is compared."""

    name: str
    unit: Unit
    models: tuple[str, ...]
    revisions: tuple[str, ...]
    features: tuple[str, ...]
    heads: int
    """Heads in a layer: stream k is head ``k % heads`` of layer ``k // heads``."""
    length: int
    """Windows or requests in a unit."""
    runs: NDArray[np.int64]  # [U] units of the same run follow each other in time
    members: int
    """Windows or requests that were read."""
    first_ns: int
    last_ns: int
    cells: dict[Cell, Heads]
    signals: dict[tuple[Group, str], Series] = field(default_factory=dict)
    traffic: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Counts a unit [U]."""
    telemetry: dict[str, float] = field(default_factory=dict)
    """Means over the windows."""
    canaries: tuple[CanaryTally, ...] = ()
    adapter: str | None = None
    """The adapter that was chosen; it is what is compared then, and stands in no cell and group."""
    left_out: LeftOut = LeftOut()

    @property
    def streams(self) -> int:
        """Return how many heads there are in all layers."""
        return int(next(iter(self.cells.values())).values.shape[2])

    @property
    def units(self) -> int:
        """Return how many units there are."""
        return len(self.runs)


class Source(Protocol):
    """Where a side comes from."""

    @property
    def name(self) -> str:
        """Return what the user called it."""
        ...

    @property
    def unit(self) -> Unit:
        """Return what it consists of."""
        ...

    def size(self) -> int:
        """Return how many windows or requests there are."""
        ...

    def read(self, length: int, most: int) -> Side:
        """Return the side in at most *most* units of *length*.

        Raises:
            CommandError: There is nothing that could be compared.
        """
        ...
