"""Reading keys and values of one request from the paged cache, one reader for each physical layout.

A layout that no reader claims is refused (:class:`CaptureRefused`), never guessed; and whatever a reader returns is
still held against the kernel's own output by :mod:`headwatch.capture.layers.selfcheck` before anything is exported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from headwatch.capture.cache.gpu import GPU_BACKENDS, gpu_reader_for
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from torch import Tensor

CPU_BACKEND, CPU_LATENT_BACKEND = "CPUAttentionBackendImpl", "CPUMLAImpl"


class CacheReader(Protocol):
    """Gathers one request's cache."""

    def read(self, cache: Tensor, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return keys [tokens, KV, D] and values [tokens, KV, Dv] of the request whose pages are *blocks* [pages]."""
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


def reader_for(layer: Any, owner: Any | None = None) -> CacheReader:
    """Return the reader for an engine attention *layer*, whose cache is that of the layer *owner* (None: its own).

    Raises:
        CaptureRefused: With reason ``backend``, ``layout``, ``cache_dtype`` or those of :func:`gpu_reader_for`.
    """
    from headwatch.capture.cache.cpu import cpu_reader_for  # noqa: PLC0415
    from headwatch.capture.layers.latent import LatentReader  # noqa: PLC0415 - these three refine this module

    name = backend_of(layer)
    if name in GPU_BACKENDS:
        return gpu_reader_for(layer)
    if name == CPU_LATENT_BACKEND:
        return LatentReader(layer)
    if name == CPU_BACKEND:
        return cpu_reader_for(layer, owner if owner is not None else layer)
    raise CaptureRefused("backend", f"attention backend {name} is not supported by this release")


def backend_of(layer: Any) -> str:
    """Return the name of a layer's attention implementation.

    vLLM derives an implementation of its own for cross-attention (``CrossAttentionImpl``): the one below it counts.
    """
    family = [kind.__name__ for kind in type(getattr(layer, "impl", None)).__mro__]
    derived = family[0] == "CrossAttentionImpl" and len(family) > 1
    return family[1] if derived else family[0]
