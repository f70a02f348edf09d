"""The nouns behind the wire: strata, windows, requests that ended, single rows, and what an exporter is handed.

Frozen dataclasses over numpy arrays; they stay in the sidecar.  What crosses the process border is in
:mod:`headwatch.model`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headwatch.findings import (
        BaselineInForce,
        CanaryExhibit,
        DeployEvent,
        DriftStatus,
        FingerprintInForce,
        Incident,
    )
    from headwatch.health import Health
    from headwatch.model import GroundingState, Phase, RequestContext, TextKind, WorkerIdentity


@dataclass(frozen=True, slots=True)
class Stratum:
    """What must be held equal before two numbers may be compared."""

    model: str
    revision: str
    adapter: str
    route: str
    context_band: str
    """Length of the visible context: ``<512 512-1k 1k-2k 2k-4k …``."""
    phase: Phase
    language: str = ""
    """As the client names it; empty where it does not."""
    template: str = ""
    """Version of the client's prompt template, likewise."""

    @property
    def label(self) -> str:
        """Return one string for attributes: the fields joined by ``|``; language and template only where one is known."""
        label = f"{self.model}|{self.revision}|{self.adapter}|{self.route}|{self.context_band}|{self.phase}"
        return f"{label}|{self.language}|{self.template}" if self.language or self.template else label


@dataclass(frozen=True, slots=True)
class Selection:
    """Which requests or strata are meant: those that match every field that is not None.  Empty is a value: no adapter."""

    model: str | None = None
    revision: str | None = None
    adapter: str | None = None
    arm: str | None = None
    """Arm of an experiment; strata have none."""

    def given(self) -> dict[str, str]:
        """Return the fields that are set, by name."""
        fields = {"model": self.model, "revision": self.revision, "adapter": self.adapter, "arm": self.arm}
        return {name: value for name, value in fields.items() if value is not None}

    def takes(self, stratum: Stratum) -> bool:
        """Return whether *stratum* is meant."""
        return all(getattr(stratum, name) == value for name, value in self.given().items() if name != "arm")


@dataclass(frozen=True, slots=True)
class HeadScope:
    """Which windows of heads are meant: those that match every field that is not None."""

    feature: str
    first: int
    """Seconds since 1970; included."""
    last: int
    """Seconds since 1970; not included."""
    service: str | None = None
    instance: str | None = None
    model: str | None = None
    stratum: str | None = None
    route: str | None = None
    phase: str | None = None
    layer: int | None = None
    head: int | None = None
    layers_below: int | None = None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A sampled request that has ended: its context and the means over its sampled rows."""

    context: RequestContext
    worker: WorkerIdentity
    started_ns: int
    ended_ns: int
    rows_prefill: int
    rows_decode: int
    state: GroundingState
    grounding_ratio: float | None
    """Lookback averaged over generated rows and all heads; None where no row defines it."""
    grounding_ratio_retrieval_heads: float | None
    """The same over the calibrated retrieval heads; None also where the model has no head map."""
    document_mass: float | None
    document_share: tuple[float | None, ...]
    """For each document of the context: its share of the mass of all documents."""
    undefined: int
    """Head summaries of generated rows that define no lookback."""
    head_means: NDArray[np.float32] = field(repr=False)
    """[len(REQUEST_FEATURES), layers, heads] over generated rows; NaN where undefined."""
    value_means: NDArray[np.float32] | None = field(default=None, repr=False)
    """[len(REQUEST_VALUES), layers, heads] over generated rows; None where no frame carried value masses."""
    alignment: Alignment | None = None
    """None where the model has no cross-attention."""
    window: int = -1
    """Number of the window in which it ended; -1 where nobody numbers them."""
    reading: Reading | None = None
    """Where all heads looked; None where no frame carried span masses."""
    reading_retrieval_heads: Reading | None = None
    """The same of the calibrated retrieval heads; None also where the model has no head map."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a group of heads looked while one request was answered: means over its sampled rows and the group's heads.

    Masses are parts of what does not lie on the sink (position 0), so those of all kinds sum to 1.  NaN where undefined: a kind
    that the prompt does not have, or no row.
    """

    prompt_end: NDArray[np.float32]  # [len(SPAN_KINDS)] at the last row of the prompt, before anything is generated
    generated: NDArray[np.float32]  # [len(SPAN_KINDS)] over generated rows
    history: NDArray[np.float32]  # [HISTORY_AGES] over generated rows: earlier turns by age, the last one everything older
    document_share: NDArray[np.float32]  # [documents] over generated rows, of the mass of all documents
    instruction_focus: float | None
    """Mass on system and user text over that on system, user, document and tool, at the last row of the prompt."""
    prompt_end_share: NDArray[np.float32] | None = None
    """[documents] at the last row of the prompt, of the mass of all documents."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the heads of cross-attention walked through the encoder's input while one request was generated.

    Heads of self-attention have no rows.
    """

    rows: NDArray[np.uint32]  # [L, H] generated rows
    breaks: NDArray[np.uint32]  # [L, H] steps back from one row to the next
    progress: NDArray[np.float32]  # [L, H] centroid of the last row minus that of the first; NaN without rows


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """One closed window of one engine: a histogram for each stratum, feature, layer and head, as columns.

    Axes: S strata, F features, L layers, H heads, B buckets.  Bucket b holds values in
    ``(base**(offset+b), base**(offset+b+1)]`` with ``base = 2**2**-scale`` (OpenTelemetry exponential histograms);
    values below the first bucket are counted in ``zero_count``.  Sums and histograms are weighted: a value counts as often
    as its row's weight says, so a mean is ``total / weight``, unbiased also where rows were sampled unequally.
    """

    start_ns: int
    end_ns: int
    worker: WorkerIdentity
    """The engine (rank 0 stands for all its ranks)."""
    strata: tuple[Stratum, ...]
    features: tuple[str, ...]
    layers: NDArray[np.int32]  # [L] global layer numbers
    count: NDArray[np.uint32]  # [S, F, L, H] values seen, which is what a standard error needs
    weight: NDArray[np.uint64]  # [S, F, L, H] values that they stand for: ``zero_count`` and all ``buckets`` together
    total: NDArray[np.float64]  # [S, F, L, H] weighted sum of values
    minimum: NDArray[np.float32]  # [S, F, L, H]; NaN where count is 0
    maximum: NDArray[np.float32]  # [S, F, L, H]
    zero_count: NDArray[np.uint32]  # [S, F, L, H] weights
    buckets: NDArray[np.uint32]  # [S, F, L, H, B] weights
    scale: int
    offset: int
    rows: NDArray[np.uint32]  # [S] sampled rows
    output_norm: NDArray[np.float32] | None = None
    """[S, L, H] mean norm of the head's output, NaN where no row carried it; None where no frame did."""
    number: int = -1
    """Ascending: start over length by the clock, a count where windows close by count; -1 where nobody numbers them."""
    log_length: NDArray[np.float64] | None = None
    """[S] weighted mean of log2 of the visible tokens of the rows."""


@dataclass(frozen=True, slots=True)
class RowEvidence:
    """One sampled row of detail 2 or more, as it came: what a viewer needs to draw it token by token.

    Columns are little-endian bytes of the shapes below, for L layers and H heads; positions become spans through the context.
    A rank that has only some of the heads sends a row of its own.
    """

    context: RequestContext
    worker: WorkerIdentity
    time_ns: int
    position: int
    detail: int
    layers: tuple[int, ...]
    heads: int
    head_offset: int
    features: bytes  # float32 [L, H, len(FEATURES)]
    span_mass: bytes  # float32 [spans + 1, L, H]
    value_mass: bytes  # float32 [spans + 1, L, H], or empty
    output_norm: bytes  # float32 [L, H], or empty
    block_tokens: int
    block_profile: bytes  # uint8 [blocks, L, H], codes of headwatch.wire.mass_code
    top_k: int
    top_position: bytes  # int32 [L, H, top_k], or empty
    top_weight: bytes  # float32 [L, H, top_k], or empty
    full_weight: bytes  # float16 [position + 1, L, H], or empty

    @property
    def size_bytes(self) -> int:
        """Return what the columns take."""
        columns = (
            self.features, self.span_mass, self.value_mass, self.output_norm, self.block_profile, self.top_position,
            self.top_weight, self.full_weight,
        )  # fmt: skip
        return sum(map(len, columns))


@dataclass(frozen=True, slots=True)
class TextRow:
    """The text of one request, redacted and sealed."""

    context: RequestContext
    """Without spans; identifiers hashed where that is configured."""
    time_ns: int
    model: str
    kind: TextKind
    chars: int
    """Of the whole text, as far as it is known."""
    kept_chars: int
    redactions: dict[str, int]
    """How often each pattern found something, by its name."""
    key: str
    """Name of the key that it is sealed with."""
    body: bytes
    """See :mod:`headwatch.text.seal`."""
    expires_ns: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the pipeline hands to every exporter, about once a second: what closed and ended, and health."""

    time_ns: int
    service: str
    """``service.name``."""
    windows: tuple[WindowBatch, ...]
    requests: tuple[RequestRecord, ...]
    health: Health
    rows: tuple[RowEvidence, ...] = ()
    """Single rows of detail 2 and more."""
    texts: tuple[TextRow, ...] = ()
    """Texts of requests, where they are kept."""
    drift: DriftStatus | None = None
    """Where detection stood after the latest window; the same again until the next one."""
    incidents: tuple[Incident, ...] = ()
    """Those that changed since the last delivery, as they are now."""
    open_incidents: tuple[Incident, ...] = ()
    """All that are open or acknowledged."""
    canaries: tuple[CanaryExhibit, ...] = ()
    """Runs that ended since the last delivery."""
    deploys: tuple[DeployEvent, ...] = ()
    """Releases that were marked since the last delivery."""
    baselines: tuple[BaselineInForce, ...] = ()
    """Baselines that came into force since the last delivery, and the one that is at the start."""
    fingerprints: tuple[FingerprintInForce, ...] = ()
    """Fingerprints likewise."""
    precision: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By class: pages ruled true, and all that were ruled."""
    page_route: str = ""
    """``incident.route``: who pages for these incidents, so that whoever reads the store does not page as well.  Empty: drift
    detection is off."""
