"""What a pattern of deviations looks like: which tells a changed weight from a changed template from a changed precision.

Attention of layer l is a function of everything before it, so a change shows in the layer behind it and in every later one, and
**nowhere before**.  In the order asked:

* the prompt came to other tokens → ``template`` (chat template, system prompt or tokenizer);
* the server names another adapter → ``adapter``;
* from the first captured layer on, growing with depth → ``precision``: every matrix was changed a little.  How much says which:
  measured on the packaged model, mean deviations of 7e-4 (bfloat16 weights), 4e-3 (all of bfloat16), 5e-3 (int8), 6e-2 (int4);
* one head alone in the first layer that departs, where there are several → ``head``: its query, or a key of its own;
* from one layer on, several heads: ``layer`` where the first one moves by more than :data:`LAYER_MOVES` on average (a
  fine-tuned or replaced layer: 3e-2), else ``weights`` (one altered weight of an MLP: 1e-3).

What it cannot tell: an adapter that was merged into every layer looks like coarse rounding; a change of layer l's MLP or
attention output looks like one of layer l+1's queries and keys; under measured noise the first layer that departs may lie
some layers behind the first that changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from headwatch.canary.deviation import Deviation

Hint = Literal["template", "adapter", "precision", "head", "layer", "weights", ""]

LAYER_MOVES = 5e-3
"""Mean absolute deviation in the first layer that departs."""
GROWS = 2.0
"""A change of every layer adds up: later layers deviate at least so many times as much as the first."""
_SIZES = (
    (1.5e-3, "about what rounding weights to bfloat16 does"),
    (1.5e-2, "about what 8-bit weights, or computing in 16 bits, do"),
    (1.0, "as coarse as 4-bit weights, or an adapter merged into every layer"),
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the deviations of a run look like."""

    hint: Hint
    note: str
    earliest_layer: int | None
    """The first layer that departs; None where none does, or where tokens differ and layers cannot be compared."""


def pattern_of(found: Deviation) -> Pattern:
    """Return what *found* looks like; an empty hint where nothing departs."""
    changed = [item for item in found.prompts if item.text_changed]
    layers = np.flatnonzero(found.layer_departs)
    if changed:
        note = _tokens(changed[0].prompt, changed[0].prompt_tokens, len(changed), len(found.prompts))
        others = [item.prompt for item in found.prompts if not item.text_changed and item.largest > found.limit]
        if others and found.scores is None:
            note += f"; not that alone: with the same tokens as before, {', '.join(others)} depart too"
        return Pattern("template", note, None)
    first = int(layers[0]) if len(layers) else None
    if any(item.adapter_changed for item in found.prompts):
        return Pattern("adapter", "the server answers with another adapter", first)
    if first is None:
        return Pattern("", "", None)
    return _by_layers(found, first)


def _by_layers(found: Deviation, first: int) -> Pattern:
    """Return what a change that shows from layer *first* on looks like."""
    captured, mean = found.captured, float(found.mean[first])
    later = found.mean[captured[captured > first]]
    heads = np.flatnonzero(found.departs[first])
    if first == captured[0] and len(later) and len(heads) > 1 and np.median(later) >= GROWS * mean:
        everywhere = float(np.mean(found.mean[captured]))
        size = next((text for limit, text in _SIZES if everywhere <= limit), _SIZES[-1][1])
        return Pattern("precision", f"every layer moves a little, {everywhere:.1e} on average: {size}", first)
    before = f"every layer before layer {first} is as it was" if first != captured[0] else "it begins in the first layer"
    if len(heads) == 1 < found.departs.shape[1]:
        return Pattern("head", f"head {heads[0]} of layer {first} departs alone, {before}: its query, key or value", first)
    moves = f"{len(heads)} heads of layer {first} move by {mean:.1e} on average, {before}"
    if mean > LAYER_MOVES:
        return Pattern("layer", moves, first)
    behind = f"weights of layer {first - 1} behind its attention" if first else "embeddings"
    return Pattern("weights", f"{moves}: {behind}, or queries and keys of layer {first}", first)


def _tokens(prompt: str, tokens: tuple[int, int], changed: int, prompts: int) -> str:
    count = f"{tokens[0]} tokens before, {tokens[1]} now" if tokens[0] != tokens[1] else f"{tokens[0]} tokens, but not the same"
    return f"{changed} of {prompts} prompts come to other tokens ({prompt}: {count}): chat template, system prompt or tokenizer"
