"""The torch oracle: every feature of a head summary, in plain tensor operations.

It recomputes attention for single query rows from the keys in the cache, with everything the engine applies before and
after the softmax (scale, softcap, sliding window, ALiBi, learned sinks), and reduces each head's weights to six scalars
and one mass per span.  It is the definition that faster kernels are held against, so it favours being read.

Cost per layer and row of n visible positions: one pass over the keys, O(heads · n) for the weights, no copy of them kept.
Arithmetic is float32 whatever the engine's dtype; sums of n weights err by about n·2⁻²⁴, 1e-4 at worst for n = 2,048.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headwatch.model import LOCAL_TOKENS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """What one layer does to its logits.  Taken from the engine's attention implementation."""

    scale: float
    softcap: float = 0.0
    """Logits become ``softcap · tanh(logit / softcap)``; 0: none."""
    window: int = 0
    """Positions visible to a query, its own included; 0: all before it."""
    alibi_slopes: Tensor | None = None  # [H]
    sinks: Tensor | None = None  # [H] logits of learned sinks


@dataclass(frozen=True, slots=True)
class RowSpans:
    """The spans of one request as tensors, shared by all its rows."""

    index: Tensor
    """int64 [prompt_tokens]: for each prompt position the number of its span."""
    spans: int
    """Number of spans of the prompt; masses have one entry more, for the generated text."""
    document: Tensor
    """bool [prompt_tokens]: whether a position belongs to a document."""

    def at(self, visible: int) -> tuple[Tensor, Tensor]:
        """Return the span number and the document flag of the first *visible* positions; generated ones are last."""
        prompt = len(self.index)
        if visible <= prompt:
            return self.index[:visible], self.document[:visible]
        rest = visible - prompt
        return (
            torch.cat([self.index, self.index.new_full((rest,), self.spans)]),
            torch.cat([self.document, self.document.new_zeros(rest)]),
        )


def weights(query: Tensor, keys: Tensor, positions: Tensor, rule: AttentionRule) -> tuple[Tensor, Tensor]:
    """Return attention weights [R, H, n] and the mass of the learned sink [R, H] of R query rows of one request.

    *query* is [R, H, D]; *keys* is [n, KV, D], the cached keys of positions 0 … n-1; *positions* [R] are those of the
    query tokens, each below n.  Hidden positions carry weight 0.  Source: vLLM 0.32 ``cpu_attention_with_kv_cache``.
    """
    rows, heads, size = query.shape
    n, kv_heads, _ = keys.shape
    grouped = query.float().reshape(rows, kv_heads, heads // kv_heads, size)
    logits = torch.einsum("rkgd,nkd->rkgn", grouped, keys.float()).reshape(rows, heads, n) * rule.scale
    if rule.softcap > 0:
        logits = rule.softcap * torch.tanh(logits / rule.softcap)
    back = positions[:, None] - torch.arange(n, device=keys.device)[None, :]  # [R, n] how far each position lies back
    if rule.alibi_slopes is not None:
        logits = logits - rule.alibi_slopes.float()[None, :, None] * back[:, None, :]
    hidden = back < 0
    if rule.window > 0:
        hidden = hidden | (back >= rule.window)
    logits = logits.masked_fill(hidden[:, None, :], float("-inf"))
    if rule.sinks is None:
        return torch.softmax(logits, dim=-1), logits.new_zeros(rows, heads)
    sink = rule.sinks.float()[None, :, None].expand(rows, heads, 1)
    joint = torch.softmax(torch.cat([logits, sink], dim=-1), dim=-1)
    return joint[..., :-1], joint[..., -1]


def summarise(
    attention: Tensor, sink: Tensor, positions: Tensor, spans: RowSpans, window: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the features [R, H, 6] in the order of ``FEATURES`` and the span masses [R, spans + 1, H].

    *attention* [R, H, n] and *sink* [R, H] come from :func:`weights`.  A feature is NaN where it is undefined: entropy and
    distance of a row that sees one position, lookback where no document or no generated text is visible.
    """
    rows, heads, n = attention.shape
    device = attention.device
    visible = positions + 1
    if window > 0:
        visible = visible.clamp(max=window)
    others = (visible - 1).float()[:, None]  # [R, 1]
    back = (positions[:, None] - torch.arange(n, device=device)[None, :]).float()[:, None, :]  # [R, 1, n]
    seen = (back >= 0) & ((back < window) if window > 0 else True)

    entropy = torch.special.entr(attention).sum(-1) / torch.log(visible.float())[:, None]
    distance = (attention * back).sum(-1) / others
    entropy = entropy.masked_fill(others == 0, float("nan"))
    distance = distance.masked_fill(others == 0, float("nan"))
    local = (attention * (back < LOCAL_TOKENS)).sum(-1)

    index, document = spans.at(n)
    mass = attention.new_zeros(rows, heads, spans.spans + 1).index_add_(-1, index, attention)
    generated = index == spans.spans
    document_tokens = (seen & document).sum(-1)  # [R, 1]
    generated_tokens = (seen & generated).sum(-1)
    document_mean = (attention * document).sum(-1) / document_tokens
    generated_mean = (attention * generated).sum(-1) / generated_tokens
    lookback = document_mean / (document_mean + generated_mean)
    lookback = lookback.masked_fill((document_tokens == 0) | (generated_tokens == 0), float("nan"))

    features = torch.stack(
        [entropy, attention.amax(-1), attention[..., 0] + sink, local, distance, lookback], dim=-1
    )
    return features, mass.transpose(1, 2)
