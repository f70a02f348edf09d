"""A comparison in words: what a person reads at three in the morning, or in the log of a CI job."""

from __future__ import annotations

from datetime import UTC, datetime
from math import log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.canary.compare import Comparison
    from headwatch.findings import CanaryExhibit

_BAR = 40
_MEANS = {
    "template": "The server turns the same messages into other tokens: look at the chat template, the default system prompt "
                "and the tokenizer of the release.",
    "adapter": "The server answers with another adapter than the one that was pinned.",
    "precision": "Every layer is a little different: other precision or quantisation of weights or arithmetic, or an adapter "
                 "merged into all of them.",
    "head": "One head changed by itself: its part of the projections is damaged, pruned or edited.",
    "layer": "One layer was replaced or fine-tuned; everything after it follows.",
    "weights": "A small part of the weights changed before this layer, for example a few damaged or edited values; everything "
               "after it follows.",
}  # fmt: skip


def explain(found: Comparison) -> str:
    """Return what *found* says, in a few paragraphs of text."""
    lines = [_verdict(found)]
    if found.failed:
        lines += ["", *_what(found), "", *_where(found), "", *_profile(found)]
    else:
        lines += ["", *_where(found)]
    if found.differs:
        pairs = "; ".join(f"{name} {old!r} → {new!r}" for name, (old, new) in found.differs.items())
        lines += ["", f"Other than when it was pinned: {pairs}"]
    if not found.whole:
        lines += ["", "Not compared:", *(f"  {name}: {why}" for name, why in found.incomplete.items())]
    if found.missing_layers:
        layers = ", ".join(map(str, found.missing_layers))
        lines.append(f"  layers {layers}: the fingerprint has them, and they were not captured")
    return "\n".join(lines).rstrip()


def _verdict(found: Comparison) -> str:
    when = max((item.time_ns for item in found.exhibits), default=0)
    at = f", {datetime.fromtimestamp(when / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC" if when else ""
    failed = sum(item.failed for item in found.exhibits)
    if found.failed:
        return f"NOT the model that was pinned: {failed} of {len(found.exhibits)} prompts depart{at}."
    how = "to rounding" if found.exact else f"within its noise (1 run in {1 / found.false_alarm:,.0f} departs all the same)"
    if not found.whole:
        what = f"{len(found.exhibits)} of {len(found.exhibits) + len(found.incomplete)} prompts"
        if found.missing_layers:
            what += f", {len(found.missing_layers)} of the layers missing"
        return f"NOT ALL of it was compared, so this is no verdict: {what}{at}. What was compared is as it was pinned, {how}."
    return f"The model that was pinned, {how}: {len(found.exhibits)} prompts{at}."


def _what(found: Comparison) -> list[str]:
    looks = f"It looks like: {found.hint}." if found.hint else "The pattern tells nothing more."
    return [looks, *([_MEANS[found.hint]] if found.hint in _MEANS else []), *([f"Seen: {found.note}."] if found.note else [])]


def _where(found: Comparison) -> list[str]:
    width = max((len(item.prompt) for item in found.exhibits), default=0)
    return [_line(item, width) for item in found.exhibits]


def _line(item: CanaryExhibit, width: int) -> str:
    word = "departs" if item.failed else "same"
    start = f"  {item.prompt:<{width}}  {word:<7}  moves {item.deviation:.2e} (limit {item.threshold:.0e})"
    if not item.failed or item.earliest_layer is None:
        return start
    heads = ", ".join(
        f"head {head.head} {head.feature} {head.before:.4f} → {head.after:.4f}" for head in item.heads[:3]
    )  # fmt: skip
    return f"{start}  from layer {item.earliest_layer}" + (f": {heads}" if heads else "")


def _profile(found: Comparison) -> list[str]:
    """Return the mean deviation of each layer as a bar on a logarithmic scale, from 1e-6 to 1."""
    if not any(found.layers):
        return []
    lines = ["Mean deviation by layer (1e-6 … 1, logarithmic):"]
    for layer, value in enumerate(found.layers):
        if value is None:
            lines.append(f"  {layer:>3}  not captured")
            continue
        bar = "█" * round(_BAR * (log10(max(value, 1e-6)) + 6) / 6)
        mark = "  ← first" if layer == found.earliest_layer else ""
        lines.append(f"  {layer:>3}  {value:.1e}  {bar}{mark}")
    return lines
