"""The table of scenarios: what is changed, and what class an on-call engineer should be told.

``innocent`` scenarios change what is asked, how much, or where it is computed, and nothing that should wake anybody: no page is
right.  A change of traffic may be *noticed*; it is not paged.  ``informative`` ones are recorded and reported, and count for
no bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headwatch.bench.triage import alterations as change
from headwatch.bench.triage.asking import SUPPORT_SHARE
from headwatch.bench.triage.knowledge import company, elsewhere, german, short_notes
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwatch.bench.triage.alterations import Alteration
    from headwatch.bench.triage.knowledge import Bundle
    from headwatch.findings import DriftClass

Server = Literal["healthy", "restarted", "int8", "int4", "bfloat16", "altered_weight", "dead_head", "fine_tuned_layer",
                 "adapter", "template_newline", "refused_layers"]  # fmt: skip
Wire = Literal["clean", "lossy", "skewed"]
CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that happens to a running pair."""

    name: str
    expected: DriftClass | Literal["innocent"]
    what: str
    server: Server = "healthy"
    """Which engine runs from the change on."""
    alteration: Callable[[int], Alteration] | None = None
    """What is done to each request, by number of the run."""
    bundles: Callable[[], tuple[Bundle, ...]] = company
    support_share: float = SUPPORT_SHARE
    concurrency: int = CONCURRENCY
    wire: Wire = "clean"
    sample_rate: float = 1.0
    """Ordered by live control when the change begins."""
    informative: bool = False

    @property
    def windows(self) -> int:
        """Return how many windows are recorded from the change on."""
        return _WINDOWS[self.expected]


_WINDOWS = {"model": 8, "telemetry": 8, "retrieval": 12, "injection": 12, "innocent": 12}
"""Canaries and telemetry speak at once, retrieval needs evidence, and innocence not watched for as long proves nothing."""


def _always(alteration: Alteration) -> Callable[[int], Alteration]:
    return lambda _: alteration


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("int8_weights", "model", "every projection rounded to 8-bit integers", server="int8"),
    Scenario("int4_weights", "model", "every projection rounded to 4-bit integers", server="int4"),
    Scenario("bfloat16", "model", "the engine computes in bfloat16 instead of float32", server="bfloat16"),
    Scenario("altered_weight", "model", "8 added to one weight of one MLP matrix", server="altered_weight"),
    Scenario("dead_head", "model", "one head looks everywhere alike", server="dead_head"),
    Scenario("fine_tuned_layer", "model", "one layer fine-tuned: a change of rank 4, 5 % of its norm",
             server="fine_tuned_layer"),
    Scenario("swapped_adapter", "model", "another adapter merged into every layer", server="adapter"),
    Scenario("template_newline", "model", "one more line break behind every role of the chat template",
             server="template_newline"),
    Scenario("system_prompt", "model", "another system prompt", alteration=change.other_system_prompt),
    Scenario("wrong_documents", "retrieval", "documents of other questions", alteration=_always(change.wrong_documents)),
    Scenario("absent_documents", "retrieval", "no documents", alteration=_always(change.absent_documents)),
    Scenario("stale_documents", "retrieval", "documents five months old, in an older version",
             alteration=_always(change.stale_documents)),
    Scenario("shuffled_documents", "retrieval", "the words of every document in disorder",
             alteration=_always(change.shuffled_documents)),
    Scenario("truncated_documents", "retrieval", "the first third of every document",
             alteration=_always(change.truncated_documents)),
    Scenario("source_broken", "retrieval", "one of three sources returns an error page",
             alteration=_always(change.source_broken)),
    Scenario("rank_reversed", "retrieval", "the worst document is handed over as the best",
             alteration=_always(change.rank_reversed)),
    Scenario("injection", "injection", "instructions inside one of the right documents", alteration=_always(change.injected)),
    Scenario("longer", "innocent", "people paste a long mail above their question",
             alteration=_always(change.longer_questions)),
    Scenario("shorter", "innocent", "questions about short documents", bundles=short_notes),
    Scenario("other_topics", "innocent", "questions and right documents about other topics", bundles=elsewhere),
    Scenario("other_language", "innocent", "German questions and documents, named by the client",
             alteration=_always(change.in_german), bundles=german),
    Scenario("route_mix", "innocent", "the other route sends most requests", support_share=0.1),
    Scenario("load_spike", "innocent", "four times as many requests at once", concurrency=32),
    Scenario("batch_size", "innocent", "one request at a time", concurrency=1),
    Scenario("other_language_unnamed", "innocent", "German, and the client does not say so", bundles=german, informative=True),
    Scenario("sampling_rate", "telemetry", "a third of requests are sampled, by live control", sample_rate=1 / 3),
    Scenario("dropped_frames", "telemetry", "frames are lost on their way to the sidecar", wire="lossy"),
    Scenario("clock_skew", "telemetry", "the worker's clock is set five minutes ahead", wire="skewed"),
    Scenario("restart", "innocent", "the engine is restarted", server="restarted"),
    Scenario("refused_layers", "telemetry", "three layers fail headwatch's check of itself", server="refused_layers"),
)  # fmt: skip
"""In the order in which they are recorded: those that leave something behind come last."""


def chosen(names: Sequence[str]) -> tuple[Scenario, ...]:
    """Return the scenarios called *names*, all where there are none.

    Raises:
        CommandError: There is no such scenario.
    """
    known = {scenario.name: scenario for scenario in SCENARIOS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise CommandError(f"no scenario {unknown[0]!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in names) if names else SCENARIOS
