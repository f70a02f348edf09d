"""The caches of vLLM's ``CPU_ATTN`` backend, 0.32: one logical shape, a physical layout for each instruction set.

``vec`` and ``vec16`` are read as they are known to be.  Every other one (AMX tiles, Arm, s390x, Power, RISC-V) is learnt from
the backend's own writer (:mod:`headwatch.capture.cache.learnt`).  FP8 caches hold bytes in the layout of their instruction
set, decoded here with the layer's own scales (``_k_scale_float``, ``_v_scale_float``), which are looked up at each read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headwatch.capture.cache.learnt import LearntReader, learn
from headwatch.capture.cache.reader import CacheReader, CpuVectorReader
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from torch import Tensor

_FP8 = {"fp8": torch.float8_e4m3fn, "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
"""Source: ``parse_fp8_kv_dtype`` in csrc/cpu/cpu_attn.cpp."""
_KNOWN = frozenset(("vec", "vec16"))
_CACHE_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class Fp8Reader:
    """A cache of bytes in some layout, decoded to float32."""

    inner: CacheReader
    """Reads the bytes."""
    layer: Any
    """The engine's layer, which owns the scales."""
    dtype: torch.dtype

    def read(self, cache: Tensor, blocks: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Return keys and values as float32.

        Raises:
            CaptureRefused: With reason ``layout`` where the cache holds no bytes.
        """
        if cache.element_size() != 1:
            raise CaptureRefused("layout", f"an FP8 cache of {cache.dtype}")
        keys, values = self.inner.read(cache.view(torch.uint8), blocks, tokens)
        return (
            keys.contiguous().view(self.dtype).float() * float(self.layer._k_scale_float),  # noqa: SLF001 - the engine's name
            values.contiguous().view(self.dtype).float() * float(self.layer._v_scale_float),  # noqa: SLF001
        )


def cpu_reader_for(layer: Any, owner: Any) -> CacheReader:
    """Return the reader for a ``CPU_ATTN`` *layer* whose cache the layer *owner* writes.

    Raises:
        CaptureRefused: With reason ``cache_dtype`` or ``layout``.
    """
    name = str(getattr(layer.impl, "kv_cache_dtype", "auto"))
    dtype = _FP8.get(name)
    if dtype is None and getattr(layer.impl, "is_fp8_kv_cache", False):
        raise CaptureRefused("cache_dtype", f"cache dtype {name!r} is not supported")
    isa = getattr(owner, "isa", None)
    reader: CacheReader = CpuVectorReader() if isa in _KNOWN else _learnt(owner, isa, name)
    return reader if dtype is None else Fp8Reader(reader, layer, dtype)


def _learnt(owner: Any, isa: object, cache_dtype: str) -> LearntReader:
    """Return a reader for a layout that the backend's writer shows.

    Raises:
        CaptureRefused: With reason ``layout``.
    """
    cache = getattr(owner, "kv_cache", None)
    if not isinstance(isa, str) or cache is None or cache.dim() != _CACHE_DIMENSIONS:
        raise CaptureRefused("layout", f"CPU cache layout {isa!r} is not supported")
    from vllm import _custom_ops as ops  # noqa: PLC0415 - inside vLLM only

    def write(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor) -> None:
        ops.cpu_attn_reshape_and_cache(
            key, value, key_cache, value_cache, slots, isa, k_scale=1.0, v_scale=1.0, kv_cache_dtype=cache_dtype
        )

    _, _, tokens, width = cache.shape
    return LearntReader(learn(write, tokens, width // 2, owner.dtype, cache.dtype))
