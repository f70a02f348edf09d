"""Keys and values of a paged cache as strided tensors, for kernels that walk the pages themselves.

On GPUs all of a layer's pages are one tensor whose axes differ only in their strides (NHD, HND, layers interleaved or not,
padded pages): no kernel needs to know which, it takes the strides.  FP8 caches are bytes with a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

Fp8Format = Literal["e4m3", "e5m2"]


@dataclass(frozen=True, slots=True)
class PagedViews:
    """One layer's cache, seen without copying anything."""

    keys: Tensor  # [blocks, tokens, KV, D]; bytes where the cache is FP8
    values: Tensor  # [blocks, tokens, KV, Dv]
    fp8: Fp8Format | None = None
    key_scale: Tensor | None = None  # float32 [1] or [KV], on the cache's device; None: 1
    value_scale: Tensor | None = None


@runtime_checkable
class PagedReader(Protocol):
    """A cache reader whose cache is strided pages.  It is a :class:`headwatch.capture.cache.reader.CacheReader` as well."""

    def views(self, cache: Tensor) -> PagedViews:
        """Return the keys and values of *cache*."""
        ...

    def read(self, cache: Tensor, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return keys [tokens, KV, D] and values [tokens, KV, Dv] of the request whose pages are *blocks* [pages]."""
        ...
