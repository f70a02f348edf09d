"""What a client of a peer has to compute: the same features and span masses as headwatch, from Q and K or from weights.

Written to be as fast as torch can be here, so that the comparison is with the approach and not with a careless program:
all layers and heads of a request go through each operation at once, several rows share one product with K, and everything
that is linear in the weights (distance and all span masses) is one matrix product.  Held against the oracle by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headwatch.model import LOCAL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LAYERS_TOGETHER = 10
"""Layers in one operation: with more of them the logits leave the processor's cache between two operations."""
_HIDDEN = -1e30
"""Logit of a position that a row does not see; finite, because 0 · -inf is no number."""


@dataclass(frozen=True, slots=True)
class PromptSpans:
    """The spans of one request: where each ends, and whether it is a document."""

    ends: tuple[int, ...]
    documents: tuple[bool, ...]

    def columns(self, n: int) -> Tensor:
        """Return [n, spans + 2]: for each position its number, and a 1 in the column of its span; generated text is last."""
        columns = torch.zeros(n, len(self.ends) + 2)
        columns[:, 0] = torch.arange(n)
        for place, (start, end) in enumerate(zip((0, *self.ends), (*self.ends, n), strict=True)):
            columns[start:end, place + 1] = 1.0
        return columns


@dataclass(frozen=True, slots=True)
class Summaries:
    """Of R rows."""

    features: Tensor  # [R, L, H, 6], in the order of ``FEATURES``
    span_mass: Tensor  # [R, spans + 1, L, H]


def from_queries(queries: Tensor, keys: Tensor, positions: Sequence[int], spans: PromptSpans, scale: float) -> Summaries:
    """Return the summaries of the rows at *positions*, ascending, of one request.

    *queries* are [L, KV, G, R, D] (query heads by the key-value head that they share), *keys* [L, KV, n, D] with n the last
    position and one.
    """
    columns = spans.columns(keys.shape[2])
    parts = [
        _some_layers(queries[first : first + LAYERS_TOGETHER], keys[first : first + LAYERS_TOGETHER], positions, spans, scale,
                     columns)
        for first in range(0, len(queries), LAYERS_TOGETHER)
    ]  # fmt: skip
    return Summaries(torch.cat([part.features for part in parts], 1), torch.cat([part.span_mass for part in parts], 2))


def _some_layers(
    queries: Tensor, keys: Tensor, positions: Sequence[int], spans: PromptSpans, scale: float, columns: Tensor
) -> Summaries:
    layers, kv_heads, group, rows, dim = queries.shape
    n = keys.shape[2]
    logits = queries.reshape(layers * kv_heads, group * rows, dim) @ keys.reshape(layers * kv_heads, n, dim).mT
    logits = logits.mul_(scale).reshape(layers, kv_heads * group, rows, n)
    for row, position in enumerate(positions):
        if position + 1 < n:
            logits[:, :, row, position + 1 :] = _HIDDEN
    top = logits.amax(-1, keepdim=True)
    logits.sub_(top)
    weights = logits.exp()
    total = weights.sum(-1, keepdim=True)
    weights.div_(total)
    # -Σ a ln a = ln Σ e^x - Σ a x: no logarithm for each weight
    entropy = total[..., 0].log() - torch.linalg.vecdot(weights, logits)
    return _reduced(weights, entropy, positions, spans, columns)


def from_weights(attention: Tensor, positions: Sequence[int], spans: PromptSpans) -> Summaries:
    """Return the summaries of rows whose attention is at hand, [L, H, R, n]."""
    entropy = torch.special.entr(attention).sum(-1)
    return _reduced(attention, entropy, positions, spans, spans.columns(attention.shape[-1]))


def _reduced(
    weights: Tensor, entropy: Tensor, positions: Sequence[int], spans: PromptSpans, columns: Tensor
) -> Summaries:
    linear = weights @ columns  # [L, H, R, spans + 2]
    mass = linear[..., 1:]
    place = torch.tensor(positions, dtype=torch.float32)  # [R]
    local = torch.stack(
        [weights[:, :, row, max(0, position - LOCAL_TOKENS + 1) : position + 1].sum(-1)
         for row, position in enumerate(positions)], dim=-1,
    )  # fmt: skip
    bounds = torch.tensor((0, *spans.ends))
    document = torch.tensor([*map(float, spans.documents), 0.0])
    document_mean = mass @ document / float(((bounds[1:] - bounds[:-1]) * document[:-1]).sum())
    generated_mean = mass[..., -1] / (place + 1 - spans.ends[-1])
    features = torch.stack(
        [
            entropy / (place + 1).log(),
            weights.amax(-1),
            weights[..., 0],
            local,
            (place - linear[..., 0]) / place,
            document_mean / (document_mean + generated_mean),
        ],
        dim=-1,
    )  # [L, H, R, 6]
    return Summaries(features.permute(2, 0, 1, 3), mass.permute(2, 3, 0, 1))
