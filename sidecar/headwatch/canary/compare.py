"""A canary run, or another fingerprint, against a fingerprint: what a person and triage are shown of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from headwatch.canary.deviation import OTHER_SHAPE, Deviation, PromptDeviation, deviation
from headwatch.canary.noise import FALSE_ALARM, ROUNDING
from headwatch.canary.pattern import Pattern, pattern_of
from headwatch.canary.signature import Run, Signature
from headwatch.errors import CanaryError
from headwatch.findings import CanaryExhibit, HeadFinding
from headwatch.model import FEATURES, WorkerIdentity

if TYPE_CHECKING:
    from headwatch.canary.fingerprint import Fingerprint

NAMED_HEADS = 5


class Comparison(msgspec.Struct, frozen=True):
    """A run against its fingerprint, in words and figures."""

    failed: bool
    hint: str
    note: str
    earliest_layer: int | None
    exact: bool
    """Whether the fingerprint is exact: any difference beyond rounding is a change.  Else noise was measured."""
    false_alarm: float
    """Probability that a run of an unchanged model fails; 0 where the fingerprint is exact."""
    exhibits: tuple[CanaryExhibit, ...]
    """One for each prompt, the one that deviates most first."""
    layers: tuple[float | None, ...]
    """Mean absolute deviation by layer; None where a layer is not captured."""
    incomplete: dict[str, str] = {}
    """Prompts that could not be compared, and why."""
    differs: dict[str, tuple[str, str]] = {}
    """What else is different, which by itself is no failure: ``dtype engine_version revision model``."""
    missing_layers: tuple[int, ...] = ()
    """Layers of the fingerprint that were not captured, so that they could not be compared either."""

    @property
    def whole(self) -> bool:
        """Return whether all that the fingerprint has was compared: only then is it said that nothing changed."""
        return not self.incomplete and not self.missing_layers


def compare(fingerprint: Fingerprint, run: Run) -> Comparison:
    """Return how *run* stands against *fingerprint*.

    Raises:
        CanaryError: Nothing of the run can be compared.
    """
    differs, incomplete = _differs(fingerprint, run), _incomplete(fingerprint, run)
    try:
        found = deviation(fingerprint, run)
    except CanaryError as error:
        if error.reason != OTHER_SHAPE:
            raise
        exhibits = tuple(
            CanaryExhibit(run.time_ns, name, 1.0, ROUNDING, failed=True, earliest_layer=0, hint="weights", note=str(error))
            for name in run.signatures
        )
        return Comparison(
            failed=True, hint="weights", note=str(error), earliest_layer=0, exact=fingerprint.noise is None,
            false_alarm=0.0 if fingerprint.noise is None else FALSE_ALARM, exhibits=exhibits, layers=(),
            incomplete=incomplete, differs=differs,
        )  # fmt: skip
    pattern = pattern_of(found)
    note = pattern.note
    if found.failed and "dtype" in differs:
        note += f"; the engine computes in {differs['dtype'][1]}, the fingerprint was pinned in {differs['dtype'][0]}"
    pattern = Pattern(pattern.hint, note, pattern.earliest_layer)
    exhibits = tuple(sorted((_exhibit(item, found, pattern, run.time_ns) for item in found.prompts),
                            key=lambda item: (-item.failed, -item.deviation)))  # fmt: skip
    exact = found.scores is None
    return Comparison(
        found.failed, pattern.hint, pattern.note, pattern.earliest_layer, exact, 0.0 if exact else FALSE_ALARM, exhibits,
        tuple(None if np.isnan(value) else float(value) for value in found.mean), incomplete, differs,
        tuple(map(int, found.missing)),
    )  # fmt: skip


def as_run(fingerprint: Fingerprint) -> Run:
    """Return *fingerprint* as the run that its values are the mean of, so that two can be compared."""
    worker = WorkerIdentity(
        "", 0, fingerprint.created_ns, fingerprint.model, fingerprint.revision, fingerprint.dtype, fingerprint.layers,
        fingerprint.heads, fingerprint.engine_version,
    )  # fmt: skip
    return Run(
        fingerprint.created_ns,
        {
            item.name: Signature(item.name, item.prompt_tokens, item.digest, item.adapter, worker, fingerprint.values(item))
            for item in fingerprint.prompts
        },
    )


def compare_fingerprints(before: Fingerprint, after: Fingerprint) -> Comparison:
    """Return how *after* stands against *before*; where the noise of one was measured, it decides what is more than noise.

    Raises:
        CanaryError: They are of different prompts.
    """
    if before.prompt_digest != after.prompt_digest:
        sets = " and ".join(f"{item.prompt_set} ({item.prompt_digest})" for item in (before, after))
        raise CanaryError("prompts", f"the fingerprints are of different prompts: {sets}")
    if before.noise is None and after.noise is not None and before.dtype == after.dtype:
        before = msgspec.structs.replace(before, noise=after.noise, runs=after.runs)
    return compare(before, as_run(after))


def _exhibit(item: PromptDeviation, found: Deviation, pattern: Pattern, time_ns: int) -> CanaryExhibit:
    changed = item.text_changed or item.adapter_changed
    # Under noise prompts are judged together, by layer: the threshold of one is only what its pinned runs stayed below.
    threshold = ROUNDING if found.scores is None else max(item.span, ROUNDING)
    failed = changed or (item.largest > threshold if found.scores is None else bool(found.layer_departs.any()))
    heads = () if item.text_changed else _heads(item, found, pattern)
    earliest = pattern.earliest_layer
    if found.scores is None and failed and not changed:
        earliest = int(np.flatnonzero(np.nanmax(item.size, axis=(0, 2, 3), initial=0.0) > threshold)[0])
    return CanaryExhibit(
        time_ns, item.prompt, item.largest, threshold, failed, earliest if failed else None, heads if failed else (),
        pattern.hint if failed else "", pattern.note if failed else "",
    )  # fmt: skip


def _heads(item: PromptDeviation, found: Deviation, pattern: Pattern) -> tuple[HeadFinding, ...]:
    """Return the heads that move most in the earliest layer that departs."""
    layer = pattern.earliest_layer
    if layer is None:
        return ()
    size = np.nan_to_num(item.size[:, layer])  # [R, H, F]
    findings = []
    for head in np.argsort(-size.max(axis=(0, 2)), kind="stable")[:NAMED_HEADS]:
        if not found.departs[layer, head]:
            continue
        row, feature = np.unravel_index(int(size[:, head].argmax()), size[:, head].shape)
        before, after = float(item.before[row, layer, head, feature]), float(item.after[row, layer, head, feature])
        scale = max(item.span, ROUNDING)
        findings.append(HeadFinding(layer, int(head), FEATURES[int(feature)], 0.0, before, after, (after - before) / scale))
    return tuple(findings)


def _incomplete(fingerprint: Fingerprint, run: Run) -> dict[str, str]:
    """Return the prompts that could not be compared, and why: those that failed, and those of the fingerprint that are away."""
    there = run.signatures.keys() | run.failures.keys()
    return {**run.failures, **{item.name: "it was not sent" for item in fingerprint.prompts if item.name not in there}}


def _differs(fingerprint: Fingerprint, run: Run) -> dict[str, tuple[str, str]]:
    worker = run.worker
    if worker is None:
        return {}
    names = ("model", "revision", "dtype", "engine_version")
    pairs = {name: (getattr(fingerprint, name), getattr(worker, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
