"""The one table that names every metric: OpenTelemetry name, instrument, unit, meaning.

Exporters, dashboards, alert rules and docs take names from here; docs/metrics.md is generated from it.
Prometheus names follow the OpenTelemetry translation: dots become underscores, counters end in ``_total``,
seconds in ``_seconds``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headwatch.model import FEATURES

NAMESPACE = "headwatch."

ATTR_MODEL = "gen_ai.request.model"
ATTR_LAYER = "headwatch.layer"
ATTR_HEAD = "headwatch.head"
ATTR_LAYER_BAND = "headwatch.layer_band"
ATTR_SPAN_KIND = "headwatch.span.kind"
ATTR_STRATUM = "headwatch.stratum"
ATTR_ROUTE = "headwatch.route"
ATTR_PHASE = "headwatch.phase"
ATTR_CONTEXT_BAND = "headwatch.context_band"
ATTR_STATE = "headwatch.state"
ATTR_HEADS = "headwatch.heads"
"""``all`` or ``retrieval``: over which heads a ratio was averaged."""
ATTR_ARM = "headwatch.arm"
ATTR_DOCUMENT_SOURCE = "headwatch.document.source"
ATTR_REASON = "headwatch.reason"
ATTR_EXPORTER = "headwatch.exporter"
ATTR_TABLE = "headwatch.table"
ATTR_RANK = "headwatch.rank"
ATTR_EVIDENCE = "headwatch.evidence"
"""What was looked at: a feature of heads, a signal of retrieval."""
ATTR_EVIDENCE_KIND = "headwatch.evidence.kind"
ATTR_CANARY = "headwatch.canary"
"""Name of a fixed prompt."""
ATTR_CLASS = "headwatch.incident.class"
ATTR_SEVERITY = "headwatch.incident.severity"
ATTR_INCIDENT = "headwatch.incident.id"
ATTR_INCIDENT_HEADS = "headwatch.incident.heads"
"""The heads that an incident names, ``L3.H4`` for the head 4 of layer 3, most evidence first."""
ATTR_PAGER = "headwatch.pager"
ATTR_ROLE = "headwatch.pager.role"
"""``page`` or ``mirror``."""

Instrument = Literal["gauge", "sum", "exp_histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.  ``unit`` is UCUM; a sum is cumulative and monotonic."""

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[str, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """Return the name that Prometheus sees."""
        name = self.name.replace(".", "_")
        if self.unit == "s":
            name += "_seconds"
        if self.unit == "By" and not name.endswith("_bytes"):
            name += "_bytes"
        return name + "_total" if self.instrument == "sum" else name


_HEAD = (ATTR_MODEL, ATTR_STRATUM, ATTR_ROUTE, ATTR_PHASE, ATTR_CONTEXT_BAND, ATTR_LAYER, ATTR_HEAD)
_REQUEST = (ATTR_MODEL, ATTR_ROUTE)
_EVIDENCE = (ATTR_MODEL, ATTR_ROUTE, ATTR_STRATUM, ATTR_EVIDENCE, ATTR_EVIDENCE_KIND)
_PAGER = (ATTR_PAGER, ATTR_ROLE)

_FEATURE_TEXT = {
    "entropy": "Entropy of a head's attention over the visible positions, divided by ln n.",
    "max_weight": "Largest attention weight of a head.",
    "sink_mass": "Attention on position 0 and on a learned sink.",
    "local_mass": "Attention on the last 32 positions.",
    "distance": "Mean distance that a head looks back, as a share of the context.",
    "lookback": "Mean weight per document token over that plus the mean weight per generated token.",
}
if set(_FEATURE_TEXT) != set(FEATURES):  # a feature without a meaning must not ship
    raise RuntimeError("metrics.py does not describe every feature of model.py")

METRICS: tuple[Metric, ...] = (
    *(Metric(f"headwatch.attention.{name}", "exp_histogram", "1", text, _HEAD) for name, text in _FEATURE_TEXT.items()),
    Metric("headwatch.attention.document_mass", "exp_histogram", "1",
           "Attention of a head on all documents, over 1 - sink mass.", _HEAD),
    Metric("headwatch.attention.span_mass", "exp_histogram", "1",
           "Attention of a head on the spans of one kind.", (*_HEAD, ATTR_SPAN_KIND)),
    Metric("headwatch.attention.value_share", "exp_histogram", "1",
           "Part of what a head moves that comes from the spans of one kind: attention weighted by the norms of the values. "
           "Only where capture.value_mass is on.", (*_HEAD, ATTR_SPAN_KIND)),
    Metric("headwatch.attention.output_norm", "gauge", "1",
           "Mean norm of the output of a head, in units of its values. Only where capture.value_mass is on.", _HEAD),
    Metric("headwatch.attention.rows", "gauge", "{row}",
           "Query rows of a stratum that were seen in a window; the counts of its histograms say how many they stand for.",
           (ATTR_MODEL, ATTR_STRATUM, ATTR_ROUTE, ATTR_PHASE, ATTR_CONTEXT_BAND)),
    Metric("headwatch.attention.worst_lookback", "gauge", "1",
           "Mean lookback since the start of the heads that look back least.", (ATTR_MODEL, ATTR_ROUTE, ATTR_LAYER, ATTR_HEAD)),
    Metric("headwatch.grounding.ratio", "exp_histogram", "1",
           "Lookback of a request, averaged over generated rows and heads.", (*_REQUEST, ATTR_HEADS)),
    Metric("headwatch.grounding.document_mass", "exp_histogram", "1",
           "Attention of a request on its documents, over 1 - sink mass, averaged over generated rows and heads.",
           _REQUEST),
    Metric("headwatch.grounding.document_share", "exp_histogram", "1",
           "Share that one document drew of the attention on all documents of its request.",
           (*_REQUEST, ATTR_DOCUMENT_SOURCE)),
    Metric("headwatch.grounding.requests", "sum", "{request}",
           "Sampled requests that ended, by whether their grounding could be measured.", (*_REQUEST, ATTR_STATE)),
    Metric("headwatch.capture.rows", "sum", "{row}",
           "Query rows planned, sent, dropped or refused by the worker; thinned: left out beforehand, to stay in the budget.",
           (ATTR_MODEL, ATTR_RANK, ATTR_STATE)),
    Metric("headwatch.capture.dropped", "sum", "{frame}", "Frames that the worker dropped because its queue was full.",
           (ATTR_MODEL, ATTR_RANK)),
    Metric("headwatch.capture.errors", "sum", "{error}", "Errors inside capture and in request fields, by reason.",
           (ATTR_MODEL, ATTR_RANK, ATTR_REASON)),
    Metric("headwatch.capture.detail_reduced", "sum", "{row}",
           "Rows that got less detail than was asked for, by the bound that they met.", (ATTR_MODEL, ATTR_RANK, ATTR_REASON)),
    Metric("headwatch.capture.duration", "sum", "s",
           "Time spent in capture: in its hooks, and by its thread beside the engine.", (ATTR_MODEL, ATTR_RANK)),
    Metric("headwatch.capture.overhead", "gauge", "1",
           "Time spent in capture over the time of the engine's steps, since the last report.", (ATTR_MODEL, ATTR_RANK)),
    Metric("headwatch.capture.stride", "gauge", "1",
           "The budget keeps one of so many wanted rows, and gives it their weight; 1: all of them.", (ATTR_MODEL, ATTR_RANK)),
    Metric("headwatch.capture.up", "gauge", "1", "1 while the worker captures and reports; 0 when switched off or silent.",
           (ATTR_MODEL, ATTR_RANK)),
    Metric("headwatch.capture.refused_layers", "gauge", "{layer}", "Layers that failed the self-check or are not understood.",
           (ATTR_MODEL, ATTR_RANK)),
    Metric("headwatch.ingest.frames", "sum", "{frame}", "Frames that arrived."),
    Metric("headwatch.ingest.missing", "sum", "{frame}", "Frames missing from the sequence of a worker.",
           (ATTR_MODEL, ATTR_RANK)),
    Metric("headwatch.ingest.head_summaries", "sum", "{summary}", "Head summaries aggregated."),
    Metric("headwatch.ingest.thinned", "sum", "{summary}",
           "Head summaries that were left out, by rule and hash, because more arrived than could be aggregated."),
    Metric("headwatch.ingest.thinning", "gauge", "1",
           "One request in so many is kept at the moment, and stands for the others; 1: all of them."),
    Metric("headwatch.ingest.rejected", "sum", "{frame}", "Frames that could not be read, by reason.", (ATTR_REASON,)),
    Metric("headwatch.ingest.late_rows", "sum", "{row}", "Rows that arrived after their window closed; counted in the next."),
    Metric("headwatch.ingest.evidence_rows", "sum", "{row}", "Single rows of detail 2 and more that were kept for the store."),
    Metric("headwatch.ingest.evidence_dropped", "sum", "{row}",
           "Single rows of detail 2 and more for which there was no room, by the bound that they met.", (ATTR_REASON,)),
    Metric("headwatch.ingest.canary_rows", "sum", "{row}", "Rows of fixed prompts that arrived; they count in no window."),
    Metric("headwatch.ingest.canary_dropped", "sum", "{row}",
           "Rows of fixed prompts for which there was no room, since too many prompts were under way."),
    Metric("headwatch.ingest.clock_skew", "gauge", "s",
           "Worker clock minus sidecar clock, by the least delayed status of the last 30 seconds; a clock that was set back "
           "shows up to 30 seconds late.", (ATTR_MODEL, ATTR_RANK)),
    Metric("headwatch.endpoint.reads", "sum", "{query}",
           "Queries through the ClickHouse endpoint, by how they ended: ok, cancelled, or the name of the error that refused "
           "or failed them.", (ATTR_STATE,)),
    Metric("headwatch.text.kept", "sum", "{text}", "Texts of prompts that were redacted, sealed and handed to the store."),
    Metric("headwatch.text.refused", "sum", "{text}",
           "Texts of prompts that are not kept although they were sent, or were to be, by reason.", (ATTR_REASON,)),
    Metric("headwatch.drift.evidence", "gauge", "1",
           "log10 of the evidence for a change in one place, as detection has it after the last window.", _EVIDENCE),
    Metric("headwatch.drift.effect_size", "gauge", "1",
           "Size of that change, in standard deviations of the baseline's windows.", _EVIDENCE),
    Metric("headwatch.drift.clock", "gauge", "1",
           "log10 of all evidence together, weighted, at least 0; detection pages where it reaches headwatch.drift.threshold."),
    Metric("headwatch.drift.threshold", "gauge", "1",
           "log10 of the promised mean number of windows between false alarms."),
    Metric("headwatch.drift.state", "gauge", "1", "1 for the state that detection is in, 0 for the others.", (ATTR_STATE,)),
    Metric("headwatch.drift.age", "gauge", "s", "Time since the end of the last window that detection has seen."),
    Metric("headwatch.canary.deviation", "gauge", "1",
           "Largest deviation of the last run of a fixed prompt from its fingerprint, in units of the features.",
           (ATTR_CANARY,)),
    Metric("headwatch.canary.threshold", "gauge", "1",
           "Deviation beyond which a run of that prompt fails.", (ATTR_CANARY,)),
    Metric("headwatch.canary.failed", "gauge", "1",
           "1 where the last run of a fixed prompt failed: it departs from the fingerprint.", (ATTR_CANARY,)),
    Metric("headwatch.canary.age", "gauge", "s", "Time since the last run of a fixed prompt ended.", (ATTR_CANARY,)),
    Metric("headwatch.canary.runs", "sum", "{run}",
           "Runs of all fixed prompts that were completed: each was sent, its rows arrived whole and were used."),
    Metric("headwatch.canary.failures", "sum", "{run}",
           "Runs that could not be completed, which is no drift, by reason: nothing answers (unreachable), no answer in time "
           "(timed_out), an error or nonsense (refused), rows that did not arrive whole (rows), a fingerprint that cannot be "
           "used (fingerprint), an error of headwatch's own (unexpected).", (ATTR_REASON,)),
    Metric("headwatch.canary.run_age", "gauge", "s",
           "Time since the last completed run ended; before the first, since the sidecar's start."),
    Metric("headwatch.canary.interval", "gauge", "s",
           "How often a run is due: canaries are behind by what headwatch.canary.run_age is above it."),
    Metric("headwatch.incident.open", "gauge", "{incident}",
           "Incidents that are open or acknowledged, and not silenced.", (ATTR_CLASS, ATTR_SEVERITY)),
    Metric("headwatch.incident.paging", "gauge", "1",
           "1 for each incident that is to page by Prometheus' own rule (incident.route is prometheus): told of, not resolved, "
           "not silenced; the latest 20.",
           (ATTR_INCIDENT, ATTR_CLASS, ATTR_SEVERITY, ATTR_MODEL, ATTR_ROUTE, ATTR_INCIDENT_HEADS)),
    Metric("headwatch.incident.pages", "sum", "{page}",
           "Incidents that the paging route was told of: opened, or reopened.", (ATTR_CLASS,)),
    Metric("headwatch.incident.precision", "gauge", "1",
           "Pages that a person ruled true, over all pages that were ruled. Absent where none was.", (ATTR_CLASS,)),
    Metric("headwatch.pager.up", "gauge", "1", "1 when the last message was taken.", _PAGER),
    Metric("headwatch.pager.sent", "sum", "{message}", "Messages that were taken.", _PAGER),
    Metric("headwatch.pager.failed", "sum", "{attempt}", "Attempts that failed; each is made again.", _PAGER),
    Metric("headwatch.pager.pending", "gauge", "{message}", "Messages that were tried and not yet taken.", _PAGER),
    Metric("headwatch.spool.bytes", "gauge", "By", "What the spool before the store takes on disk."),
    Metric("headwatch.spool.limit", "gauge", "By", "What it may take; the oldest makes room then."),
    Metric("headwatch.spool.records", "gauge", "{delivery}", "Deliveries in the spool that the store does not have yet."),
    Metric("headwatch.spool.age", "gauge", "s", "How long the oldest of them waits."),
    Metric("headwatch.spool.sent", "sum", "{batch}", "Batches that the store has taken: rows of one table of one delivery."),
    Metric("headwatch.spool.dropped", "sum", "{row}",
           "Rows that were given up, by table and reason: the oldest made room (full), what was set aside longest made room "
           "(aside_full), or a table does not take them (encode).", (ATTR_REASON, ATTR_TABLE)),
    Metric("headwatch.spool.dropped_batches", "sum", "{batch}",
           "Batches of these rows; with reason corrupt, records that cannot be read, so that nobody knows the rows.",
           (ATTR_REASON, ATTR_TABLE)),
    Metric("headwatch.spool.aside", "sum", "{batch}",
           "Batches set aside, with the reason beside each: the store refuses them, or they cannot be read."),
    Metric("headwatch.spool.errors", "sum", "{error}",
           "Failed attempts, each of which is made again: of the disk (no_space, read_only, io, full, too_large), of the store "
           "(store_unavailable, store). Records that a kill left half written, which counted nowhere yet (torn).",
           (ATTR_REASON,)),
    Metric("headwatch.exporter.up", "gauge", "1", "1 when the last export succeeded.", (ATTR_EXPORTER,)),
    Metric("headwatch.exporter.points", "sum", "{point}", "Data points or rows delivered.", (ATTR_EXPORTER,)),
    Metric("headwatch.exporter.dropped", "sum", "{batch}", "Batches given up or pushed out of a full queue.", (ATTR_EXPORTER,)),
    Metric("headwatch.exporter.errors", "sum", "{error}", "Failed exports, retries included.", (ATTR_EXPORTER,)),
    Metric("headwatch.exporter.duration", "gauge", "s", "Duration of the last export.", (ATTR_EXPORTER,)),
    Metric("headwatch.exporter.queue", "gauge", "{batch}", "Batches waiting.", (ATTR_EXPORTER,)),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def metric(name: str) -> Metric:
    """Return the metric *name*, without its namespace or with it."""
    return BY_NAME[name if name.startswith(NAMESPACE) else NAMESPACE + name]


def head_metric(feature: str) -> tuple[Metric, dict[str, str]]:
    """Return the metric of a window feature (``WINDOW_FEATURES``, ``VALUE_FEATURES``), and the attributes it adds."""
    if feature.startswith("span_mass."):
        return metric("attention.span_mass"), {ATTR_SPAN_KIND: feature.removeprefix("span_mass.")}
    if feature.startswith("value_share."):
        return metric("attention.value_share"), {ATTR_SPAN_KIND: feature.removeprefix("value_share.")}
    return metric(f"attention.{feature}"), {}
