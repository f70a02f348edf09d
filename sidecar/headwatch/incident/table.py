"""The decision table: what evidence speaks for which kind of change, and how strongly.

Read it from the top.  A row speaks when its question finds something; it then lends its weight to its class, under the name of
its cause.  A doubt takes from what rows have lent, where something else explains the same evidence.  How rows become a verdict
is in :mod:`headwatch.incident.triage`; what the questions mean, in :mod:`headwatch.incident.facts`.

Weights are set by hand, from how surely a question tells its class from the others, and checked on recorded scenarios
(``headwatch bench triage``: one small model, some thirty kinds of change); they order explanations and are no probabilities of
anything else.  ``LEAST`` says how large a change must be before a row sees it: attention moves a little with everything, and a
little grounding lost with another language is no fault of retrieval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwatch.incident.facts import Least

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.findings import DriftClass, Evidence
    from headwatch.incident.facts import Facts, Sign

LEAST: dict[str, Least] = {
    # headwatch's own state: the thresholds of drift/telemetry.py have been passed already
    "refused_layers": Least(change=1.0),
    # retrieval, hard figures: counted, not read from attention
    "documents_absent": Least(effect=2.0, change=0.10),
    "documents_unresolved": Least(effect=2.0, change=0.10),
    "document_count": Least(effect=2.0, relative=0.25),
    "document_tokens": Least(effect=2.0, relative=0.25),
    "document_wholeness": Least(effect=2.0, change=0.10),
    "tokens_per_document": Least(effect=2.0, relative=0.25),
    "source_share.": Least(effect=1.2, change=0.25),
    "source_presence.": Least(effect=2.0, change=0.25, relative=0.80),
    "stale_age_days": Least(effect=2.0, change=1.0, relative=0.25),
    "stale_mass": Least(effect=2.0, change=0.05),
    "version_lag": Least(effect=2.0, change=0.25),
    "unreliable_mass": Least(effect=1.0, change=0.02),
    "forbidden_mass": Least(effect=1.0, change=0.01),
    "other_tenant_mass": Least(effect=1.0, change=0.01),
    # retrieval, soft figures: read from attention, so that length and language move them a little too
    "grounding_ratio": Least(effect=1.2, relative=0.10),
    "grounding_ratio_retrieval": Least(effect=1.2, relative=0.15),
    "document_mass": Least(effect=2.0, relative=0.25),  # other topics alone move it by a fifth
    "document_mass_retrieval": Least(effect=2.0, relative=0.25),
    "top_document_share": Least(effect=1.2, relative=0.10),
    "rank_first_share": Least(effect=1.5, relative=0.15),
    "rank_middle_share": Least(effect=1.5, relative=0.15),
    "rank_last_share": Least(effect=1.5, relative=0.15),
    "history_mass": Least(effect=1.5, relative=0.20),
    "unread_share": Least(effect=1.5, change=0.05, relative=0.15),
    # injection
    "instruction_focus": Least(effect=3.0, relative=0.06),
    "capture_by_document": Least(effect=2.0, change=0.3),  # log2: 1.23 times
    # traffic: differences of shares; length and load as a part of the larger figure
    "template:": Least(change=0.50),
    "language:": Least(change=0.20),
    "band:": Least(change=0.20),
    "route:": Least(change=0.20),
    "model:": Least(change=0.20),
    "adapter:": Least(change=0.20),
    "template_version:": Least(change=0.20),
    "length": Least(relative=0.15),
    "asked_length": Least(relative=0.15),
    "load": Least(relative=0.33),
}


@dataclass(frozen=True, slots=True)
class Row:
    """*when* finds what speaks; *says* is the sentence, filled from what was found: before, after, route, name, note."""

    drift_class: DriftClass
    cause: str
    weight: float
    when: Callable[[Facts], Evidence | bool | None]
    says: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """Multiplies by *left* what rows of *drift_class* with one of *causes* (empty: any) have lent."""

    drift_class: DriftClass
    causes: frozenset[str]
    left: float
    when: Callable[[Facts], Evidence | bool | None]
    says: str


def _canary(hint: str) -> Callable[[Facts], bool]:
    return lambda facts: facts.canary == "failed" and facts.hint == hint


def _heads_with(canary: str) -> Callable[[Facts], bool]:
    return lambda facts: bool(facts.heads) and facts.canary == canary


def _middle(facts: Facts) -> Evidence | None:
    """The middle against both ends: where one end falls as well, the order of the list says it better."""
    ends = ("rank_first_share", "rank_last_share")
    return None if any(facts.leaning(name, -1) for name in ends) else facts.signal("rank_middle_share", -1)


def _read_more(facts: Facts) -> Evidence | None:
    names = ("grounding_ratio_retrieval", "grounding_ratio", "document_mass")
    return next((found for name in names if (found := facts.signal(name, 1))), None)


def _not_for_more(facts: Facts, found: Evidence | None) -> Evidence | None:
    """With more documents in a prompt each has a smaller share, and more of them are not needed."""
    return None if facts.leaning("document_count", 1) else found


def _sizes_explain(facts: Facts) -> bool:
    """Whether documents of another length explain what is read of them.

    Longer ones hold more mass and lower the mean weight of a token, shorter ones the other way round; a figure that moved
    against that is no matter of length.
    """
    resized = facts.documents_resized
    against = ("document_mass", "document_mass_retrieval") if resized > 0 else ("grounding_ratio", "grounding_ratio_retrieval")
    return bool(resized) and not any(facts.signal(name, -1) for name in against)


def _rates_alone(facts: Facts) -> bool:
    """Whether only how many requests are sampled was changed, which moves no mean, while a figure moved for the worse."""
    rows_too = facts.telemetry("step_stride") or facts.telemetry("detail")
    return rows_too is None and facts.any_of(HARM)


SOFT = frozenset({
    "documents_ignored", "history_preferred", "wrong_documents", "rank_order", "lost_in_the_middle", "source_broken",
    "shorter_documents", "injection",
})
"""Causes that other questions may pass for, where language or length shows that they are others: they are read from attention
alone, from lengths, or from which sources the questions need."""
COUNTED: dict[str, Sign] = {
    "documents_absent": 1, "documents_unresolved": 1, "document_count": -1, "document_wholeness": -1, "stale_age_days": 1,
    "version_lag": 1,
}  # fmt: skip
"""Figures that are read from the request itself and not measured in its rows, and the way that is bad."""
HARM: dict[str, Sign] = COUNTED | {
    "grounding_ratio": -1, "grounding_ratio_retrieval": -1, "document_mass": -1, "document_mass_retrieval": -1,
    "source_presence.": -1, "stale_mass": 1, "unreliable_mass": 1, "forbidden_mass": 1, "other_tenant_mass": 1,
    "instruction_focus": -1,
}  # fmt: skip
"""Figures that can claim a fault by themselves, and the way that is bad: documents that are read more harm nobody, and which
sources or places of the list are read moves with the topics."""
UNTOLD = "unexplained"
"""The cause where heads moved and nothing says why."""

ROWS: tuple[Row, ...] = (
    # ── telemetry: what is measured wrong explains everything that is measured ──────────────────────────────────────────
    Row("telemetry", "capture_down", 0.95, lambda f: f.telemetry("capture_up", -1),
        "capture is off or has failed in part of the fleet (up: {before} before, {after} now)"),
    Row("telemetry", "layers_refused", 0.90, lambda f: f.telemetry("refused_layers", 1),
        "layers are refused by the self-check, so means are over other heads than before ({before} before, {after} now)"),
    Row("telemetry", "frames_lost", 0.90, lambda f: f.telemetry("frames_missing_share", 1),
        "frames between worker and sidecar are lost ({after} now, {before} before)"),
    Row("telemetry", "frames_lost", 0.85, lambda f: f.telemetry("rows_dropped_share", 1),
        "the worker drops sampled rows ({after} now, {before} before)"),
    Row("telemetry", "layers_refused", 0.90, lambda f: f.telemetry("rows_refused_share", 1),
        "rows are missing because their layers failed the self-check ({after} now, {before} before)"),
    Row("telemetry", "clock_skew", 0.90, lambda f: f.telemetry("clock_skew_seconds"),
        "a worker's clock differs from the sidecar's ({after} s), so rows fall into the wrong windows"),
    Row("telemetry", "clock_skew", 0.60, lambda f: f.telemetry("late_rows", 1),
        "rows arrive after their window has closed ({after} a window, {before} before)"),
    Row("telemetry", "sampling_changed", 0.85, lambda f: f.telemetry("sample_rate"),
        "the sampling rate was changed ({before} before, {after} now)"),
    Row("telemetry", "sampling_changed", 0.80, lambda f: f.telemetry("step_stride"),
        "the stride of sampled steps was changed ({before} before, {after} now)"),
    Row("telemetry", "sampling_changed", 0.60, lambda f: f.telemetry("detail"),
        "the detail of capture was changed ({before} before, {after} now)"),
    # ── model: what the same prompts give otherwise than before is the model, whatever else moved ───────────────────────
    Row("model", "weights", 0.95, _canary("weights"), "fixed prompts are answered by other weights"),
    Row("model", "precision", 0.95, _canary("precision"),
        "fixed prompts differ a little in all layers, as after a change of precision or quantisation"),
    Row("model", "template", 0.95, _canary("template"),
        "fixed prompts differ from the first layer on, as after a change of the chat template or the tokens"),
    Row("model", "layer", 0.95, _canary("layer"), "fixed prompts differ from one layer on: something in it was changed"),
    Row("model", "head", 0.95, _canary("head"), "fixed prompts differ in one head first: it is dead or was changed"),
    Row("model", "adapter", 0.95, _canary("adapter"), "fixed prompts differ as after another adapter"),
    Row("model", "weights", 0.95, _canary(""), "fixed prompts differ from their fingerprint, in a pattern that tells no more"),
    Row("model", "system_prompt", 0.90, lambda f: f.canary != "failed" and f.traffic("template:"),
        "the system prompt or template of most requests has vanished from the route (share {before} before, {after} now)"),
    Row("model", "template", 0.50, lambda f: f.canary == "failed" and f.traffic("template:"),
        "the route's usual prompt frame has vanished (share {before} before, {after} now)"),
    Row("model", UNTOLD, 0.45, _heads_with("none"),
        "attention heads moved: model or traffic, which cannot be told apart without a fixed prompt (none sent, late, "
        "or pinned)"),
    Row("model", UNTOLD, 0.55, lambda f: f.canary == "none" and len(f.routes) > 1,
        "heads of several routes moved at once, which another model explains better than other questions do"),
    Row("model", UNTOLD, 0.30, _heads_with("older"),
        "attention heads moved since the last fixed prompt, which was as it should be: the next one tells"),
    Row("model", UNTOLD, 0.65, lambda f: bool(f.heads) and f.canary in {"none", "older"} and bool(f.case.deploys),
        "heads moved near a release, and no fixed prompt has been sent since"),
    # ── injection: text that is read as data takes the place of instructions ────────────────────────────────────────────
    Row("injection", "injection", 0.80, lambda f: f.signal("instruction_focus", -1),
        "system and user text hold less of the attention than before ({before} before, {after} now): a document draws it"),
    Row("injection", "injection", 0.40, lambda f: f.signal("capture_by_document", 1),
        "single documents capture the attention ({after} what the median one draws, {before} before)"),
    # ── retrieval ───────────────────────────────────────────────────────────────────────────────────────────────────────
    Row("retrieval", "other_tenant", 0.95, lambda f: f.signal("other_tenant_mass", 1),
        "documents of another tenant are in the prompts and are read ({after} of document mass, {before} before)"),
    Row("retrieval", "forbidden_documents", 0.95, lambda f: f.signal("forbidden_mass", 1),
        "documents labelled forbidden are in the prompts and are read ({after} of document mass, {before} before)"),
    Row("retrieval", "documents_absent", 0.93, lambda f: f.signal("documents_absent", 1),
        "requests come without documents ({after} of them, {before} before)"),
    Row("retrieval", "documents_unresolved", 0.90, lambda f: f.signal("documents_unresolved", 1),
        "documents are named whose text is not in the prompt ({after} of requests, {before} before)"),
    Row("retrieval", "truncated_documents", 0.92, lambda f: f.signal("document_wholeness", -1),
        "the same documents come cut short (to {after} of their length, {before} before)"),
    Row("retrieval", "shorter_documents", 0.35, lambda f: f.signal("tokens_per_document", -1),
        "documents are shorter than before: cut, or other ones ({before} tokens each before, {after} now)"),
    Row("retrieval", "shorter_documents", 0.35, lambda f: f.signal("document_tokens", -1),
        "the documents of a prompt are shorter together: cut, fewer, or other ones ({before} tokens before, {after} now)"),
    Row("retrieval", "fewer_documents", 0.60, lambda f: f.signal("document_count", -1),
        "fewer documents are in the prompts ({before} before, {after} now)"),
    Row("retrieval", "source_broken", 0.90, lambda f: f.signal("source_presence.", -1),
        "one source has gone from the prompts: {name} (in {before} of windows before, {after} now)"),
    Row("retrieval", "source_broken", 0.85, lambda f: f.signal("source_share.", -1),
        "one source is read less than the others: {name} ({before} of its fair share before, {after} now)"),
    Row("retrieval", "source_broken", 0.65, lambda f: f.signal("instruction_focus", -1) and f.leaning("source_share."),
        "the sources are read otherwise than before, {name} above all, and instructions less: pages of an error do that"),
    Row("retrieval", "source_broken", 0.45, lambda f: f.signal("source_share.", 1),
        "one source is read more than before: {name} ({before} of its fair share before, {after} now)"),
    Row("retrieval", "stale_documents", 0.92, lambda f: f.signal("stale_age_days", 1),
        "what is read is older than before ({after} days, {before} before)"),
    Row("retrieval", "stale_documents", 0.92, lambda f: f.signal("version_lag", 1),
        "older versions of documents are read ({after} versions behind, {before} before)"),
    Row("retrieval", "stale_documents", 0.90, lambda f: f.signal("stale_mass", 1),
        "more of what is read is stale ({after} of document mass, {before} before)"),
    Row("retrieval", "unreliable_documents", 0.85, lambda f: f.signal("unreliable_mass", 1),
        "documents labelled unreliable are read more ({after} of document mass, {before} before)"),
    Row("retrieval", "rank_order", 0.70, lambda f: f.signal("rank_first_share", -1) and f.signal("rank_last_share", 1),
        "what is read has moved from the first place of the list to the last (of a fair share: {before} before, {after} now)"),
    Row("retrieval", "rank_order", 0.60, lambda f: f.signal("rank_first_share", 1) and f.signal("rank_last_share", -1),
        "what is read has moved from the last place of the list to the first (of a fair share: {before} before, {after} now)"),
    Row("retrieval", "wrong_documents", 0.75, lambda f: f.signal("grounding_ratio_retrieval", -1),
        "the heads that read documents read them less ({before} before, {after} now), as when documents do not answer"),
    Row("retrieval", "wrong_documents", 0.65, lambda f: f.signal("grounding_ratio", -1),
        "documents hold less of the attention while text is generated ({before} before, {after} now)"),
    Row("retrieval", "wrong_documents", 0.40, lambda f: _not_for_more(f, f.signal("top_document_share", -1)),
        "no document stands out any more ({before} before, {after} now)"),
    Row("retrieval", "documents_ignored", 0.60, lambda f: f.signal("document_mass", -1),
        "documents are in the prompts and draw less attention ({before} before, {after} now)"),
    Row("retrieval", "documents_ignored", 0.60, lambda f: f.signal("document_mass_retrieval", -1),
        "the heads that read documents draw less from them ({before} before, {after} now)"),
    Row("retrieval", "history_preferred", 0.55, lambda f: f.signal("history_mass", 1),
        "earlier turns are read in place of the documents ({after} of the two, {before} before)"),
    Row("retrieval", "lost_in_the_middle", 0.55, _middle,
        "documents between the first and the last are read less than their share ({before} of it before, {after} now)"),
    Row("retrieval", "documents_ignored", 0.40, lambda f: _not_for_more(f, f.signal("unread_share", 1)),
        "more of the documents is paid for and not read ({after} of tokens, {before} before)"),
    Row("retrieval", "wrong_documents", 0.30, _read_more,
        "documents are read otherwise than before, more ({before} before, {after} now)"),
    # ── traffic: reported, never paged ──────────────────────────────────────────────────────────────────────────────────
    Row("traffic", "language", 0.80, lambda f: f.traffic("language:"),
        "other languages are asked in ({name}: {before} of requests before, {after} now)"),
    Row("traffic", "length", 0.80, lambda f: f.traffic("band:"),
        "prompts have other lengths ({name}: {before} of requests before, {after} now)"),
    Row("traffic", "length", 0.75, lambda f: f.traffic("length"),
        "prompts have other lengths (typically {before} tokens before, {after} now)"),
    Row("traffic", "route_mix", 0.75, lambda f: f.traffic("route:"),
        "the mix of routes changed ({name}: {before} of requests before, {after} now)"),
    Row("traffic", "model_mix", 0.75, lambda f: f.traffic("model:"),
        "another share of requests goes to model {name} ({before} of them before, {after} now)"),
    Row("traffic", "adapter_mix", 0.75, lambda f: f.traffic("adapter:"),
        "another share of requests goes to adapter {name} ({before} of them before, {after} now)"),
    Row("traffic", "template_versions", 0.75, lambda f: f.traffic("template_version:"),
        "clients use other versions of their prompt template ({name}: {before} of requests before, {after} now)"),
    Row("traffic", "load", 0.60, lambda f: f.traffic("load"),
        "the load changed ({before} requests a second before, {after} now)"),
    Row("traffic", "topics", 0.75, _heads_with("passed"),
        "attention heads moved while fixed prompts give what they gave before: what is asked changed, its topics perhaps"),
    Row("traffic", "topics", 0.40, _read_more,
        "documents are read more than before ({before} before, {after} now): other questions, or documents that answer better"),
    Row("traffic", UNTOLD, 0.40, _heads_with("none"), "other topics move heads in the same way as another model"),
    Row("traffic", UNTOLD, 0.55, _heads_with("older"),
        "attention heads moved; a changed model would show in the next fixed prompt, and page by itself"),
)  # fmt: skip

DOUBTS: tuple[Doubt, ...] = (
    Doubt("telemetry", frozenset({"capture_down", "frames_lost", "clock_skew", "sampling_changed"}), 0.5,
          lambda f: f.canary == "failed",
          "an outage, lost rows, a clock or a rate do not bend a fixed prompt, and one failed"),
    Doubt("telemetry", frozenset({"capture_down", "frames_lost", "clock_skew", "sampling_changed"}), 0.5,
          lambda f: f.any_of(COUNTED),
          "documents are counted in each request that arrives: an outage or lost rows do not take them away or age them"),
    Doubt("telemetry", frozenset({"sampling_changed"}), 0.5, _rates_alone,
          "how many requests are sampled moves no mean, and figures of the documents or instructions moved for the worse"),
    Doubt("model", frozenset({UNTOLD}), 0.6, lambda f: f.asked_otherwise,
          "length or language of the requests changed as well, which moves heads by itself"),
    Doubt("model", frozenset({UNTOLD}), 0.5, lambda f: f.any_of(HARM),
          "figures of the documents moved for the worse with the heads, which explains them"),
    Doubt("traffic", frozenset({"topics", UNTOLD}), 0.3, lambda f: f.any_of(HARM),
          "figures of the documents moved for the worse with the heads, which explains them"),
    Doubt("traffic", frozenset({"length"}), 0.3,
          lambda f: f.signal("documents_absent", 1) or f.signal("document_count", -1) or f.signal("document_wholeness", -1),
          "prompts are shorter because documents are missing from them, or cut"),
    Doubt("retrieval", SOFT, 0.25, lambda f: f.asked_otherwise,
          "length or language of the requests changed as well, which moves shares and grounding by itself"),
    Doubt("retrieval", SOFT, 0.25, _sizes_explain,
          "documents have another length, which moves shares and grounding by itself"),
    Doubt("injection", SOFT, 0.5,
          lambda f: any(f.leaning(name, -1) for name in ("document_mass", "grounding_ratio", "grounding_ratio_retrieval")),
          "documents together are read less, where an instruction in one would have them read more"),
    Doubt("injection", SOFT, 0.5, lambda f: f.leaning("source_share."),
          "the sources are read otherwise at the same time: pages of one may tell a reader what to do, to sign in perhaps"),
    Doubt("injection", SOFT, 0.5, lambda f: f.asked_otherwise,
          "length or language of the requests changed as well, which moves attention by itself"),
    Doubt("injection", SOFT, 0.5, lambda f: f.documents_resized > 0 and not f.leaning("capture_by_document", 1),
          "documents are longer, all alike, and take from the instructions by that"),
)  # fmt: skip
