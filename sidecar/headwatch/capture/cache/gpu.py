"""The caches of vLLM's GPU backends FlashAttention, Triton and FlashInfer, 0.32, and what their layers do to logits.

All three keep one layer's pages in a tensor whose logical shape is [blocks, KV, tokens, 2D], keys first, whatever the
strides: NHD, HND, layers interleaved in a block, padded pages (``v1/kv_cache_layout.py``, ``create_kv_cache_views``).  Their
``forward`` takes ``kv_cache.transpose(1, 2).split(head_size, -1)`` apart and views the bytes of an FP8 cache as

- ``current_platform.fp8_dtype()`` in FlashAttention (``fp8`` and ``fp8_e4m3`` only) and in Triton, there even where the cache
  is called ``fp8_e5m2``;
- what the name says in FlashInfer, with ``fp8`` for E4M3.

Scales belong to the layer, ``_k_scale`` and ``_v_scale``, one number or one for each KV head; they are looked up at each read,
since loading weights again replaces them.  Where the engine quantises queries before the layer, their scale joins the rule's.
A layer that reads another one's cache is handed that cache by the engine and reads it with scales of its own, as these do.

What is refused: other backends and their subclasses (other layouts), per-token scales, NVFP4, encoders, caches of a part of
the context, masks that a rule cannot say (image prefixes, ALiBi with a square root, chunks that look back).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headwatch.capture.cache.paged import Fp8Format, PagedViews
from headwatch.capture.layers.attention import AttentionRule
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from torch import Tensor

FLASH_ATTENTION, TRITON, FLASHINFER = "FlashAttentionImpl", "TritonAttentionImpl", "FlashInferImpl"
GPU_BACKENDS = frozenset((FLASH_ATTENTION, TRITON, FLASHINFER))
"""Names of the implementations that :func:`gpu_reader_for` knows.  Exactly these: a subclass may store its cache otherwise.
Only ``CrossAttentionImpl``, which vLLM derives from any of them for cross-attention, stores it as the class below."""

_UNQUANTISED = frozenset(("auto", "float16", "bfloat16", "float32", "half", "float"))
_FORMATS: dict[torch.dtype, Fp8Format] = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2"}
_TORCH_TYPES = {name: dtype for dtype, name in _FORMATS.items()}
_NAMED: dict[str, Fp8Format] = {"fp8": "e4m3", "fp8_e4m3": "e4m3", "fp8_e5m2": "e5m2"}
_CACHE_DIMENSIONS = 4
_SELF, _CROSS = "decoder", "encoder_decoder"
"""vLLM's ``AttentionType`` of what is captured."""


@dataclass(frozen=True, slots=True)
class StridedReader:
    """A cache [blocks, KV, tokens, 2D] of any strides."""

    layer: Any
    """The engine's ``Attention``, which owns the scales."""
    kv_heads: int
    head_size: int
    fp8: Fp8Format | None

    def views(self, cache: Tensor) -> PagedViews:
        """Return the keys and values of *cache*, nothing copied.

        Raises:
            CaptureRefused: With reason ``layout``.
        """
        expected = (self.kv_heads, 2 * self.head_size)
        if cache.dim() != _CACHE_DIMENSIONS or (cache.shape[1], cache.shape[3]) != expected or cache.stride(3) != 1:
            raise CaptureRefused(
                "layout", f"cache of shape {tuple(cache.shape)}, strides {cache.stride()}; KV heads and content are {expected}"
            )
        if self.fp8 is None:
            keys, values = cache.transpose(1, 2).split(self.head_size, dim=-1)
            return PagedViews(keys, values)
        if cache.element_size() != 1:
            raise CaptureRefused("layout", f"an FP8 cache of {cache.dtype}")
        keys, values = cache.view(torch.uint8).transpose(1, 2).split(self.head_size, dim=-1)
        return PagedViews(keys, values, self.fp8, _scale(self.layer._k_scale), _scale(self.layer._v_scale))  # noqa: SLF001 - the engine's names

    def read(self, cache: Tensor, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return keys and values; one gather of the request's pages, decoded to float32 where the cache is FP8."""
        views = self.views(cache)
        pages = blocks[: -(-tokens // cache.shape[2])]
        return (
            self._decoded(views.keys[pages].flatten(0, 1)[:tokens], views.key_scale),
            self._decoded(views.values[pages].flatten(0, 1)[:tokens], views.value_scale),
        )

    def _decoded(self, stored: Tensor, scale: Tensor | None) -> Tensor:
        if self.fp8 is None or scale is None:
            return stored
        return stored.view(_TORCH_TYPES[self.fp8]).float() * scale[:, None]


def gpu_reader_for(layer: Any) -> StridedReader:
    """Return the reader for an engine attention *layer* of one of :data:`GPU_BACKENDS`.

    Raises:
        CaptureRefused: With reason ``backend``, ``attention_type``, ``parallel``, ``mask`` or ``cache_dtype``.
    """
    impl = layer.impl
    family = [kind.__name__ for kind in type(impl).__mro__]
    name = family[1] if family[0] == "CrossAttentionImpl" else family[0]
    if name not in GPU_BACKENDS:
        raise CaptureRefused("backend", f"attention backend {name} is not supported by this release")
    if _attention_type(layer) not in {_SELF, _CROSS}:
        raise CaptureRefused("attention_type", f"attention type {_attention_type(layer)!r} is not supported")
    if max(getattr(impl, "dcp_world_size", 1), getattr(impl, "pcp_world_size", 1)) > 1:
        raise CaptureRefused("parallel", "each rank caches a part of the context only")
    _refuse_masks(layer, name)
    return StridedReader(layer, int(impl.num_kv_heads), int(impl.head_size), _fp8_format(layer, name))


def gpu_rule_for(layer: Any) -> AttentionRule:
    """Return what an engine attention *layer* of one of :data:`GPU_BACKENDS` does to its logits.

    These keep a window as (positions before the query, positions after it), and -1 for no bound.

    Raises:
        CaptureRefused: With reason ``mask`` or ``query_scale``.
    """
    impl = layer.impl
    before, after = impl.sliding_window or (-1, -1)
    if before >= 0 and after != 0:
        raise CaptureRefused("mask", f"window {(before, after)} looks ahead")
    return AttentionRule(
        scale=float(impl.scale) * _query_scale(layer),
        softcap=float(impl.logits_soft_cap or 0.0),
        window=before + 1 if before >= 0 else 0,
        chunk=int(getattr(layer, "attention_chunk_size", 0) or 0),  # ChunkedLocalAttention
        causal=_attention_type(layer) == _SELF,
        alibi_slopes=impl.alibi_slopes,
        sinks=impl.sinks,
    )


def _refuse_masks(layer: Any, name: str) -> None:
    """Refuse what hides other positions, or bends logits otherwise, than an :class:`AttentionRule` can say."""
    impl = layer.impl
    if getattr(layer, "use_mm_prefix", False):
        raise CaptureRefused("mask", "positions of an image see each other ahead of the causal order")
    if getattr(impl, "use_alibi_sqrt", False):
        raise CaptureRefused("mask", "ALiBi with the square root of the distance is not supported")
    if getattr(impl, "chunk_lookback", -1) > -1:
        raise CaptureRefused("mask", "chunked attention that looks back is not supported")
    if name == FLASHINFER and impl.alibi_slopes is not None:
        raise CaptureRefused("mask", "FlashInferImpl keeps ALiBi slopes and does not apply them")


def _fp8_format(layer: Any, name: str) -> Fp8Format | None:
    """Return the FP8 format of the layer's cache; None where it is not quantised."""
    impl, cache_dtype = layer.impl, str(layer.impl.kv_cache_dtype)
    if cache_dtype in _UNQUANTISED:
        return None
    found = _NAMED.get(cache_dtype)
    if found is not None and name == TRITON:
        found = _FORMATS.get(impl.fp8_dtype)  # whatever the name says; None for the format of older AMD GPUs
    elif name == FLASH_ATTENTION and found != "e4m3":
        found = None
    if found is None:
        raise CaptureRefused("cache_dtype", f"cache dtype {cache_dtype!r} of {name} is not supported")
    for scale in (layer._k_scale, layer._v_scale):  # noqa: SLF001 - the engine's names
        if scale.numel() not in {1, impl.num_kv_heads}:
            raise CaptureRefused("cache_dtype", f"{scale.numel()} cache scales for {impl.num_kv_heads} KV heads")
    return found


def _query_scale(layer: Any) -> float:
    """Return the factor of queries that come in FP8: ``Attention.forward`` quantises them where ``query_quant`` is set."""
    if getattr(layer, "query_quant", None) is None:
        return 1.0
    scale = layer._q_scale  # noqa: SLF001 - the engine's name
    if scale.numel() != 1:
        raise CaptureRefused("query_scale", f"{scale.numel()} scales of quantised queries; one was expected")
    return float(scale)


def _attention_type(layer: Any) -> str:
    return str(getattr(layer.attn_type, "value", layer.attn_type))


def _scale(scale: Tensor) -> Tensor:
    return scale.detach().reshape(-1).float()
