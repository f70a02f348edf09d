"""Reading keys and values of one request from the paged cache, one reader for each physical layout.

A layout that no reader claims is refused (:class:`CaptureRefused`), never guessed; and whatever a reader returns is
still held against the kernel's own output by :mod:`headwatch.capture.selfcheck` before anything is exported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from torch import Tensor


class CacheReader(Protocol):
    """Gathers one request's cache."""

    def read(self, cache: Tensor, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return keys [tokens, KV, D] and values [tokens, KV, D] of the request whose pages are *blocks* [pages]."""
        ...


class CpuVectorReader:
    """vLLM 0.32 ``CPU_ATTN`` with isa ``vec`` or ``vec16``.

    Cache [blocks, KV, N, 2D] holds, for a block and head, first the keys column-major ([D, N]), then the values
    row-major ([N, D]).  Source: ``v1/attention/backends/cpu_attn.py`` and the engine's ``cpu_attn_reshape_and_cache``.
    """

    def read(self, cache: Tensor, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return keys and values; one gather of the request's pages, nothing else is copied."""
        _, kv_heads, size, width = cache.shape
        dim = width // 2
        pages = -(-tokens // size)
        page = cache[blocks[:pages]].view(pages, kv_heads, 2, size * dim)
        keys = page[:, :, 0].reshape(pages, kv_heads, dim, size).permute(0, 3, 1, 2)  # [pages, N, KV, D]
        values = page[:, :, 1].reshape(pages, kv_heads, size, dim).permute(0, 2, 1, 3)
        return (
            keys.reshape(pages * size, kv_heads, dim)[:tokens],
            values.reshape(pages * size, kv_heads, dim)[:tokens],
        )


def reader_for(layer: object) -> CacheReader:
    """Return the reader for an engine attention *layer*.

    Raises:
        CaptureRefused: With reason ``backend``, ``layout``, ``cache_dtype``, ``shared_cache`` or ``attention_type``.
    """
    impl = getattr(layer, "impl", None)
    name = type(impl).__name__
    if name != "CPUAttentionBackendImpl":
        raise CaptureRefused("backend", f"attention backend {name} is not supported by this release")
    if getattr(impl, "attn_type", "decoder") != "decoder":
        raise CaptureRefused("attention_type", f"attention type {getattr(impl, 'attn_type', '')!r} is not supported")
    if getattr(impl, "kv_sharing_target_layer_name", None) is not None:
        raise CaptureRefused("shared_cache", "the layer reads the cache of another layer")
    if getattr(impl, "is_fp8_kv_cache", False):
        raise CaptureRefused("cache_dtype", f"cache dtype {getattr(impl, 'kv_cache_dtype', '')!r} is not supported")
    isa = getattr(layer, "isa", None)
    if isa not in {"vec", "vec16"}:
        raise CaptureRefused("layout", f"CPU cache layout {isa!r} is not supported")
    return CpuVectorReader()
