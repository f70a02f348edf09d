"""The nouns of drift and incidents: what was found, what kind of thing it is, and what a person is shown of it.

Frozen msgspec structs, because they are kept, sent and shown as JSON.  Detectors make :class:`Evidence` and, when the clock
pages, a :class:`DriftEvent`; triage turns an event into a :class:`Verdict`; an :class:`Incident` is both, with the
:class:`Exhibits` frozen at its opening.  Times are nanoseconds since 1970, UTC.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

DriftClass = Literal["telemetry", "model", "injection", "retrieval", "traffic"]
CLASSES: tuple[DriftClass, ...] = get_args(DriftClass)
"""In the order in which they explain: an incident is of the first class that its evidence supports."""

EvidenceKind = Literal["heads", "signal", "canary", "telemetry", "traffic"]
"""``heads``: a feature of the attention heads of a stratum.  ``signal``: a figure of retrieval for the requests of a route.
``canary``: a fixed prompt.  ``telemetry``: headwatch's own state.  ``traffic``: what is asked."""

IncidentState = Literal["open", "acknowledged", "resolved"]
Severity = Literal["critical", "warning", "info"]
Ruling = Literal["true", "false_page", "known_change"]
RULINGS: tuple[Ruling, ...] = get_args(Ruling)
"""What a person says of a page when it is closed."""


class HeadFinding(msgspec.Struct, frozen=True):
    """One head of those that moved most.  Heads are ranked; no error is claimed for the ranking."""

    layer: int
    head: int
    feature: str
    log10_evidence: float
    before: float
    """Mean in the baseline."""
    after: float
    """Mean since the change began."""
    effect: float
    """(after - before) in standard deviations of a window of the baseline."""
    confident: bool = False
    """Whether the head is in the e-d-BH set."""


class NamedHead(msgspec.Struct, frozen=True):
    """A head of traffic that an incident names, and where its rows are."""

    layer: int
    head: int
    feature: str
    route: str
    """Empty where several routes are concerned."""
    phase: Literal["prefill", "decode"]
    """Of the rows that it is named for; ``decode`` where it is named for both."""
    model: str = ""
    """That of the evidence: one event may hold evidence of several.  Empty: every model."""


class Evidence(msgspec.Struct, frozen=True):
    """What speaks for a change in one place.  *name* is a feature, a signal, a prompt, a counter or a share."""

    kind: EvidenceKind
    name: str
    model: str
    route: str
    stratum: str
    """Label of the stratum; empty where the evidence is of all."""
    log10_evidence: float
    """Of its e-process; 0 where there is none (traffic, telemetry)."""
    before: float
    after: float
    effect: float
    """In standard deviations of the baseline's windows; of shares, the difference."""
    since_ns: int
    """When it began, as well as the evidence tells."""
    heads: tuple[HeadFinding, ...] = ()
    note: str = ""
    standard_error: float = 0.0
    """Of *effect*, in the same unit, of windows that follow each other as slowly as in the baseline; 0: not known."""
    seen_ns: int = 0
    """Of a canary: when its first failed run ended; the change lies between *since_ns*, when it passed last, and this.

    0 where the kind is another one."""


class DriftEvent(msgspec.Struct, frozen=True):
    """One page of the pager: evidence that starts together, most first."""

    time_ns: int
    """End of the window that paged."""
    since_ns: int
    model: str
    route: str
    """Empty where several routes are concerned."""
    evidence: tuple[Evidence, ...]
    log10_evidence: float
    """What the clock showed."""
    interval_windows: float
    """The mean number of windows between false alarms that is promised."""
    window_seconds: float
    windows_since: int
    """Windows from *since_ns* to *time_ns*."""
    shadow_families: tuple[str, ...] = ()
    """The families in shadow that found it, on the clock that pages nobody; empty: the pager's own."""


class Verdict(msgspec.Struct, frozen=True):
    """What kind of thing changed, how sure that is, and what would tell it from the next best explanation."""

    drift_class: DriftClass
    cause: str
    """A stable short name within the class: ``documents_absent``, ``documents_ignored``, ``weights``, …"""
    sentence: str
    confidence: float
    """0 to 1."""
    runner_up: DriftClass | None
    tells_apart: str
    """What would tell the class from the runner-up."""
    why: tuple[str, ...]
    """The rows of the decision table that spoke, in order."""


class DocumentExhibit(msgspec.Struct, frozen=True):
    """A document that the evidence is about."""

    id: str
    source: str
    version: str
    retrieved_at: str
    requests: int
    share_before: float | None
    share_after: float | None
    tenant: str = ""
    """Whose document its label says it is; for a purge."""


class RequestExhibit(msgspec.Struct, frozen=True):
    """An example request: enough to find its rows in the store."""

    request_id: str
    engine_id: str
    trace_id: str
    time_ns: int
    route: str
    state: str
    grounding_ratio: float | None
    kind: str = ""
    """Kind of the prompt by its shape, for example ``1k-4k docs:3-4 turns:0``; empty in incidents of earlier versions."""
    user: str = ""
    """Whose request it was, hashed where that is configured: what a purge finds it by.  Never in a page."""
    tenant: str = ""


class PromptExhibit(msgspec.Struct, frozen=True):
    """A kind of prompt that draws documents which should rather not be read."""

    kind: str
    route: str
    requests: int
    """Example requests of this kind and route that stand out."""


class DeployEvent(msgspec.Struct, frozen=True):
    """A release that an operator marked."""

    time_ns: int
    title: str
    revision: str = ""
    who: str = ""
    planned_seconds: float = 0.0
    """How long a maintenance window it opens; 0: none."""


class CanaryExhibit(msgspec.Struct, frozen=True):
    """The canary run nearest to an event."""

    time_ns: int
    prompt: str
    deviation: float
    """Largest absolute deviation from the fingerprint, in units of the features."""
    threshold: float
    failed: bool
    earliest_layer: int | None
    heads: tuple[HeadFinding, ...] = ()
    hint: str = ""
    """What the pattern of deviations looks like: ``weights template precision layer head``; empty where it tells nothing."""
    note: str = ""


class Case(msgspec.Struct, frozen=True):
    """Everything that triage may look at: the event and what else was seen around it."""

    event: DriftEvent
    canary: CanaryExhibit | None = None
    """The latest run, whether it failed or not; None where no canaries are sent or the last one is too old to tell."""
    telemetry: tuple[Evidence, ...] = ()
    """headwatch's own faults since the event began."""
    traffic: tuple[Evidence, ...] = ()
    """Changes of what is asked since the event began."""
    deploys: tuple[DeployEvent, ...] = ()
    """Near the start of the event."""


class DriftStatus(msgspec.Struct, frozen=True):
    """Where drift detection stands after a window, for exporters and the console."""

    time_ns: int
    window: int
    state: Literal["off", "warming_up", "watching", "shadow"]
    pages_from_ns: int
    """When the baseline will be long enough; 0 where it is, or cannot be told."""
    clock: float
    """log10 of what the clock shows."""
    threshold: float
    """log10 of the interval: the clock pages there."""
    evidence: tuple[Evidence, ...] = ()
    """The largest by stratum or scope and name, without their heads; bounded."""
    shadow_clock: float | None = None
    """log10 of what the clock of families in shadow shows; None where there are none."""


class BaselineInForce(msgspec.Struct, frozen=True):
    """The baseline that windows are held against from *time_ns* on."""

    time_ns: int
    version: int
    """0: none is, until one was learned (anew)."""
    origin: Literal["", "learned", "pinned", "imported"]
    """Empty where none is in force."""
    created_ns: int
    first_window: int
    last_window: int
    windows: int
    """Windows that it learned from."""
    note: str


class FingerprintInForce(msgspec.Struct, frozen=True):
    """The fingerprint that runs of the fixed prompts are held against from *time_ns* on."""

    time_ns: int
    created_ns: int
    model: str
    revision: str
    dtype: str
    prompt_set: str
    runs: int
    """Runs that it was pinned from."""
    exact: bool
    """Whether these were the same but for rounding."""
    note: str


class Exhibits(msgspec.Struct, frozen=True):
    """What a person can check, frozen when an incident opens."""

    documents: tuple[DocumentExhibit, ...] = ()
    requests: tuple[RequestExhibit, ...] = ()
    canary: CanaryExhibit | None = None
    deploys: tuple[DeployEvent, ...] = ()
    prompts: tuple[PromptExhibit, ...] = ()
    """Where documents labelled unreliable, forbidden or another tenant's are read: which kinds of prompts do, most first."""

    def unowned(self) -> Exhibits:
        """Return the exhibits without whose they are: what may leave this host."""
        return msgspec.structs.replace(
            self, documents=tuple(msgspec.structs.replace(one, tenant="") for one in self.documents),
            requests=tuple(msgspec.structs.replace(one, user="", tenant="") for one in self.requests),
        )  # fmt: skip


class Incident(msgspec.Struct, frozen=True):
    """One cause, from its opening until it is resolved."""

    id: str
    state: IncidentState
    severity: Severity
    opened_ns: int
    updated_ns: int
    event: DriftEvent
    verdict: Verdict
    exhibits: Exhibits
    acknowledged_ns: int = 0
    acknowledged_by: str = ""
    resolved_ns: int = 0
    resolved_by: str = ""
    """A person, or ``headwatch`` where it resolved by itself."""
    ruling: Ruling | None = None
    note: str = ""
    reopened: int = 0
    silenced: bool = False
    """Whether it was opened without sending a page: a silence, a maintenance window or shadow mode."""
    silenced_why: str = ""
    paged: bool = False
    """Whether the route that pages was handed a page since it was opened last; then it is told of the end as well."""
