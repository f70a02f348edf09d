"""What was found, as the case that triage judges: compared sides and incidents are told apart by one decision table.

That the sides differ is said at the level of the whole comparison.  Of which kind that is may then rest on more: a signal
enters as sure that passed for itself, or is among those of which a share of alpha at most is false; one whose own p-value is
below 1 % may be leant on for a doubt.  Where both sides are arms of one deployment, that they share its model stands in place
of a canary that passed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headwatch.compare.batches import LENGTHS
from headwatch.compare.pairs import COUNTED
from headwatch.findings import CanaryExhibit, Case, DriftEvent, Evidence, HeadFinding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwatch.compare.certain import CanaryDifference, Difference
    from headwatch.compare.effects import FeatureEffects, FigureEffect, HeadEffect
    from headwatch.compare.pairs import Pair
    from headwatch.findings import EvidenceKind

HELD_EQUAL = (*LENGTHS, "band:")
"""What explains no signal that differs all the same once length is held equal by strata and regression."""
OWN_EVIDENCE = 2.0
"""log10 of the evidence from which triage takes a figure as sure: what passed its test is."""
_LEANING = 0.01
_HEADS = 10
"""Heads that one piece of evidence names."""


class Found:
    """Everything that differs."""

    def __init__(  # noqa: PLR0913 - one argument for each kind of finding
        self, pair: Pair, *, alpha: float, features: Sequence[FeatureEffects], heads: Sequence[HeadEffect],
        signals: Sequence[FigureEffect], traffic: Sequence[FigureEffect], telemetry: Sequence[Difference],
        canaries: Sequence[CanaryDifference], templates: Sequence[Difference], one_model: bool,
    ) -> None:
        """*one_model*: the sides are known to share their model, because one deployment served both."""
        self._pair = pair
        self._alpha = alpha
        self._heads = heads
        self._canaries = canaries
        self._one_model = one_model
        self._since = pair.second.first_ns
        self._model = pair.second.models[0] if pair.second.models else ""
        certain = [one for one in signals if one.p_value <= alpha]
        event = [*self._head_evidence(features), *self._figures("signal", certain)]
        self.evidence = tuple(sorted(event, key=lambda one: (-one.log10_evidence, -abs(one.effect))))
        weaker, discovered = [one for one in signals if one.p_value > alpha], _discovered(signals, alpha)
        self._weaker = (
            *self._figures("signal", [one for one in weaker if one.alone <= discovered]),
            *self._figures("signal", [one for one in weaker if discovered < one.alone <= _LEANING], sure=False),
        )
        self.telemetry = tuple(self._certain("telemetry", telemetry))
        shares = [one for one in traffic if one.p_value <= alpha]
        self.traffic = (*self._certain("traffic", templates), *self._figures("traffic", shares))
        self.canary = self._canary()

    @property
    def anything(self) -> bool:
        """Return whether the sides differ in anything."""
        failed = self.canary is not None and self.canary.failed
        return bool(self.evidence or self.telemetry or self.traffic or failed)

    def case(self) -> Case:
        """Return the case for triage."""
        second = self._pair.second
        adjusted = any(one.kind == "signal" and not one.name.startswith(COUNTED) for one in self.evidence)
        return Case(
            event=DriftEvent(
                time_ns=second.last_ns, since_ns=self._since, model=self._model, route="",
                evidence=(*self.evidence, *self._weaker),
                log10_evidence=max((one.log10_evidence for one in self.evidence), default=0.0), interval_windows=0.0,
                window_seconds=max(second.last_ns - second.first_ns, 1) / 1e9, windows_since=1,  # what is sure was tested above
            ),
            canary=self.canary, telemetry=self.telemetry,
            traffic=tuple(one for one in self.traffic if not (adjusted and one.name.startswith(HELD_EQUAL))),
        )  # fmt: skip

    def _head_evidence(self, features: Sequence[FeatureEffects]) -> Iterator[Evidence]:
        for feature in features:
            named = [head for head in self._heads if head.feature == feature.feature and head.p_value <= self._alpha]
            strata = {label: p_value for label, p_value in feature.strata.items() if p_value <= self._alpha}
            if not named and not strata and feature.p_value > self._alpha:
                continue
            routes = {test.cell.route for test in self._pair.heads if test.cell.label in strata} or {""}
            shown = named or [head for head in self._heads if head.feature == feature.feature]
            p_value = min([feature.p_value, *strata.values(), *(head.p_value for head in named)])
            for route in sorted(routes):
                yield Evidence(
                    "heads", feature.feature, self._model, route, "", -math.log10(p_value), shown[0].before, shown[0].after,
                    shown[0].effect, self._since,
                    tuple(HeadFinding(head.layer, head.head, head.feature, -math.log10(head.p_value), head.before, head.after,
                                      head.effect, confident=head.p_value <= self._alpha) for head in shown[:_HEADS]),
                )  # fmt: skip

    def _figures(self, kind: EvidenceKind, effects: Sequence[FigureEffect], *, sure: bool = True) -> Iterator[Evidence]:
        for effect in effects:
            route = next((test.group.route for test in self._pair.signals
                          if test.group is not None and test.group.label == effect.group), "")  # fmt: skip
            size = effect.difference if kind == "traffic" else effect.effect
            before, after = effect.before, effect.after
            if kind == "traffic" and effect.name in LENGTHS:
                before, after = 2.0**before, 2.0**after
            strength = max(-math.log10(effect.p_value), OWN_EVIDENCE) if sure else 0.0
            yield Evidence(kind, effect.name, self._model, route, "", strength, before, after, size, self._since)

    def _certain(self, kind: EvidenceKind, differences: Sequence[Difference]) -> Iterator[Evidence]:
        for one in differences:
            name, route = one.name, ""
            if kind == "traffic":  # template:<route>:<digest>
                name, _, digest = one.name.rpartition(":")
                route = name.partition(":")[2]
            note = f"the prompt template {digest}" if kind == "traffic" else ""
            change = one.after - one.before
            yield Evidence(kind, name, self._model, route, "", 0.0, one.before, one.after, change, self._since, note=note)

    def _canary(self) -> CanaryExhibit | None:
        time_ns = self._pair.second.last_ns
        differing = [one for one in self._canaries if one.differs]
        if differing:
            tallies = [tally for one in differing for tally in (one.second, one.first)]
            worst = max(tallies, key=lambda tally: tally.deviation)
            return CanaryExhibit(time_ns, worst.prompt, worst.deviation, worst.threshold, failed=True,
                                 earliest_layer=worst.earliest_layer, hint=worst.hint)  # fmt: skip
        if self._canaries:
            run = self._canaries[0].second
            return CanaryExhibit(time_ns, run.prompt, run.deviation, run.threshold, failed=False, earliest_layer=None)
        if self._one_model:
            return CanaryExhibit(time_ns, "", 0.0, 0.0, failed=False, earliest_layer=None, note="one deployment served both")
        return None


def _discovered(signals: Sequence[FigureEffect], level: float) -> float:
    """Return the own p-value up to which a signal is a discovery, at a false discovery rate of *level*.

    Benjamini and Hochberg 1995.
    """
    ordered = sorted(signal.alone for signal in signals)
    passing = [p_value for rank, p_value in enumerate(ordered, 1) if p_value <= level * rank / len(ordered)]
    return max(passing, default=0.0)
