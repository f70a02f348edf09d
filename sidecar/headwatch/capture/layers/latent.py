"""Multi-head latent attention (DeepSeek-V2 and V3): one compressed vector a token, shared by all heads.

The cache keeps for each token the latent c [L] and a rotated key [P] that all heads share.  A head's key is
``c · W_UK[h]`` beside the rotated key, its value ``c · W_UV[h]``.  Neither is ever built here: the query is absorbed into
latent space (``q_nope · W_UK[h]``), so that logits are products with the cache as it is, and a weighted sum of latents is
expanded once a row.  Source: vLLM 0.32 ``model_executor/layers/attention/mla_attention.py``, whose decode does the same.

vLLM's ``impl`` has no ``forward`` for this: ``MLAAttention.forward_impl`` sees the queries before they are absorbed and
writes prefill and decode into one output, so that is what is wrapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from torch import Tensor

_CACHE_DIMENSIONS = 3


@dataclass(frozen=True, slots=True)
class LatentHeads:
    """The heads of one layer over its latents.  H heads, N numbers of a query that are not rotated, P rotated, L latent."""

    layer: Any
    """The engine's ``MLAAttention``: its weights are looked up each time, since they may be loaded again."""

    def absorb(self, query: Tensor) -> Tensor:
        """Return queries [R, H, N + P] as queries of the cache, [R, H, L + P]."""
        plain, rotated = query.float().split([self.layer.qk_nope_head_dim, self.layer.qk_rope_head_dim], dim=-1)
        latent = torch.einsum("rhn,hnl->rhl", plain, self.layer.W_UK_T.float())
        return torch.cat([latent, rotated], dim=-1)

    def expand(self, latents: Tensor) -> Tensor:
        """Return the values [R, H, Dv] of each head for *latents* [R, H, L] (or [R, 1, L], the same for all heads)."""
        heads, size, _ = self.layer.W_UV.shape
        return torch.einsum("rhl,hlv->rhv", latents.float().expand(-1, heads, size), self.layer.W_UV.float())


class LatentReader:
    """vLLM 0.32 ``CPU_MLA``: cache [blocks, tokens, L + P], not quantised."""

    def __init__(self, layer: Any) -> None:
        """Take the engine's layer.

        Raises:
            CaptureRefused: With reason ``cache_dtype``, ``layout`` or ``sparse``.
        """
        dtype = str(layer.kv_cache_dtype)
        if dtype != "auto" and not dtype.startswith(("float", "bfloat")):
            raise CaptureRefused("cache_dtype", f"cache dtype {dtype!r} of latent attention is not supported")
        if getattr(layer.impl, "is_sparse", False) or getattr(layer, "indexer", None) is not None:
            raise CaptureRefused("sparse", "a learned index hides most positions from each query")
        if not hasattr(layer, "W_UK_T") or not hasattr(layer, "W_UV"):
            raise CaptureRefused("layout", "the weights that expand latents are not kept in a form that is known here")
        self._latent = int(layer.kv_lora_rank)
        self._width = self._latent + int(layer.qk_rope_head_dim)

    def read(self, cache: Tensor, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return keys [tokens, 1, L + P] and, as values, the latents [tokens, 1, L] that are their first part.

        Raises:
            CaptureRefused: With reason ``layout``.
        """
        if cache.dim() != _CACHE_DIMENSIONS or cache.shape[-1] != self._width:
            raise CaptureRefused("layout", f"latent cache of shape {tuple(cache.shape)}; a token takes {self._width} numbers")
        size = cache.shape[1]
        pages = -(-tokens // size)
        keys = cache[blocks[:pages]].reshape(pages * size, 1, self._width)[:tokens]
        return keys, keys[..., : self._latent]
