"""The torch oracle: every feature of a head summary, in plain tensor operations.

It recomputes attention for single query rows from the keys in the cache, with everything the engine applies before and
after the softmax (scale, softcap, sliding window, chunks, ALiBi, learned sinks), and reduces each head's weights to six
scalars and one mass per span.  It is the definition that faster kernels are held against, so it favours being read.

Cost per layer and row of n visible positions: one pass over the keys, O(heads · n) for the weights, no copy of them kept.
Arithmetic is float32 whatever the engine's dtype, or float64 where the keys are; sums of n weights err by about n·2⁻²⁴ in
float32, 1e-4 at worst for n = 2,048.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from headwatch.model import LOCAL_TOKENS

if TYPE_CHECKING:
    from torch import Tensor

    from headwatch.capture.layers.attention import AttentionRule, RowSpans


def weights(query: Tensor, keys: Tensor, positions: Tensor, rule: AttentionRule) -> tuple[Tensor, Tensor]:
    """Return attention weights [R, H, n] and the mass of the learned sink [R, H] of R query rows of one request.

    *query* is [R, H, D]; *keys* is [n, KV, D], the cached keys of positions 0 … n-1; *positions* [R] are those of the
    query tokens, each below n.  Hidden positions carry weight 0.  Source: vLLM 0.32 ``cpu_attention_with_kv_cache``.
    """
    rows, heads, size = query.shape
    n, kv_heads, _ = keys.shape
    work = torch.float64 if keys.dtype == torch.float64 else torch.float32
    grouped = query.to(work).reshape(rows, kv_heads, heads // kv_heads, size)
    logits = torch.einsum("rkgd,nkd->rkgn", grouped, keys.to(work)).reshape(rows, heads, n) * rule.scale
    if rule.softcap > 0:
        logits = rule.softcap * torch.tanh(logits / rule.softcap)
    back = _back(positions, n)
    if rule.alibi_slopes is not None:
        logits = logits - rule.alibi_slopes.to(work)[None, :, None] * back[:, None, :]
    logits = logits.masked_fill(~_seen(positions, n, rule)[:, None, :], float("-inf"))
    if rule.sinks is None:
        return torch.softmax(logits, dim=-1), logits.new_zeros(rows, heads)
    sink = rule.sinks.to(work)[None, :, None].expand(rows, heads, 1)
    joint = torch.softmax(torch.cat([logits, sink], dim=-1), dim=-1)
    return joint[..., :-1], joint[..., -1]


def summarise(
    attention: Tensor, sink: Tensor, positions: Tensor, spans: RowSpans, rule: AttentionRule
) -> tuple[Tensor, Tensor]:
    """Return the features [R, H, 6] in the order of ``FEATURES`` and the span masses [R, spans + 1, H].

    *attention* [R, H, n] and *sink* [R, H] come from :func:`weights`.  A feature is NaN where it is undefined: entropy and
    distance of a row that sees one position, lookback where no document or no generated text is visible, local mass and
    distance in cross-attention.
    """
    n = attention.shape[-1]
    seen = _seen(positions, n, rule)[:, None, :]  # [R, 1, n]
    visible = seen.sum(-1)  # [R, 1]
    back = _back(positions, n).to(attention.dtype)[:, None, :]

    entropy = torch.special.entr(attention).sum(-1) / torch.log(visible.to(attention.dtype))
    distance = (attention * back).sum(-1) / (visible - 1)
    entropy = entropy.masked_fill(visible <= 1, float("nan"))
    distance = distance.masked_fill(visible <= 1, float("nan"))
    local = (attention * (back < LOCAL_TOKENS)).sum(-1)
    if not rule.causal:  # none of the positions is the query's own, so none is near to it or far from it
        local = torch.full_like(local, float("nan"))
        distance = torch.full_like(distance, float("nan"))

    index, document = _positions(spans, n, attention)
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
    return features, _by_span(attention, index, spans)


def centroid(attention: Tensor) -> Tensor:
    """Return where in n positions each head looks, Σ a_j j / (n - 1), [R, H]; NaN where there is one position."""
    n = attention.shape[-1]
    return (attention * torch.arange(n, device=attention.device)).sum(-1) / (n - 1 if n > 1 else float("nan"))


def value_mass(attention: Tensor, values: Tensor, spans: RowSpans) -> Tensor:
    """Return Σ ‖a_j v_j‖ over the positions j of each span, [R, spans + 1, H], in units of the values.

    *values* is [n, KV, Dv].  A head that points at a span whose values are small carries nothing from it: its mass is
    large and its value mass is not.  Source: Kobayashi et al., Attention is Not Only a Weight (arXiv 2004.10102).
    """
    heads = attention.shape[1]
    norms = values.to(attention.dtype).norm(dim=-1).T.repeat_interleave(heads // values.shape[1], dim=0)  # [H, n]
    index, _ = _positions(spans, attention.shape[-1], attention)
    return _by_span(attention * norms, index, spans)


def _back(positions: Tensor, n: int) -> Tensor:
    """Return how far each of n positions lies behind each query, [R, n]."""
    return positions[:, None] - torch.arange(n, device=positions.device)[None, :]


def _seen(positions: Tensor, n: int, rule: AttentionRule) -> Tensor:
    """Return which of n positions each query sees, [R, n]."""
    back = _back(positions, n)
    if not rule.causal:
        return torch.ones_like(back, dtype=torch.bool)
    seen = back >= 0
    if rule.window > 0:
        seen = seen & (back < rule.window)
    if rule.chunk > 0:
        seen = seen & (back <= positions[:, None] % rule.chunk)
    return seen


def _positions(spans: RowSpans, n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    index, document = spans.at(n)
    return torch.as_tensor(index, device=like.device), torch.as_tensor(document, device=like.device)


def _by_span(mass: Tensor, index: Tensor, spans: RowSpans) -> Tensor:
    """Return the sums of *mass* [R, H, n] by span, [R, spans + 1, H]."""
    rows, heads, _ = mass.shape
    return mass.new_zeros(rows, heads, spans.spans + 1).index_add_(-1, index, mass).transpose(1, 2)
