"""Which group of the KV cache a layer belongs to, and its pages as the layer's kernel counts them.

Layers of one model may keep different pages: full attention beside sliding windows, cross-attention beside
self-attention.  Backends do not agree on what of it their metadata shows (FlashInfer and MLA show no table, chunked local
attention one of its virtual batches), the runner's groups do.  Source: vLLM 0.32 ``v1/worker/utils.py: AttentionGroup``,
the same for both runners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from torch import Tensor


class CacheGroups:
    """The attention groups of one model runner, by layer name."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._source: Any = None
        self._groups: dict[str, tuple[int, Any]] = {}

    def of(self, layer_name: str) -> tuple[int, Any]:
        """Return (number of the cache group, vLLM ``AttentionGroup``) of a layer.

        Raises:
            CaptureRefused: With reason ``cache_group`` where no group holds the layer.
        """
        source = self._runner.attn_groups
        if source is not self._source:  # built anew whenever the engine allocates its cache again
            self._groups = {
                name: (number, group) for number, groups in enumerate(source) for group in groups for name in group.layer_names
            }
            self._source = source
        found = self._groups.get(layer_name)
        if found is None:
            raise CaptureRefused("cache_group", f"layer {layer_name} belongs to no group of the KV cache")
        return found


def kernel_pages(group: Any, pages: Tensor) -> Tensor:
    """Return *pages* [requests, pages], counted in the manager's blocks, in blocks of the group's kernel.

    A kernel that wants smaller blocks has its own table, which the group has filled when it built this step's metadata
    (vLLM 0.32 ``AttentionGroup.map_to_kernel_block_table``): it is read, not computed again.  Up to 0.31 the runner's table
    is in the kernel's blocks already.
    """
    if getattr(group, "kernel_block_size", None) is None:
        return pages
    rows, columns = pages.shape
    split = group.kv_cache_spec.block_size // group.kernel_block_size
    mapped: Tensor = group.kernel_block_table[0, :rows, : columns * split]
    return mapped
