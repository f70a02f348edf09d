"""The GPU kernel: one pass over K in Triton, on any strided paged cache (:mod:`headwatch.capture.cache.paged`).

Online softmax as in flash decoding: a running maximum and sums that are rescaled when it grows, so K is read once and no
weight is stored.  Query heads that share a KV head, and rows of a request that see the same positions, share the read.  A long
context is split over programs, and a second small kernel merges the splits; see :mod:`headwatch.capture.kernels.triton_device`
for what is summed and :mod:`headwatch.capture.kernels.triton_work` for who does what.

Cost per layer: two launches and no wait; K once, V as well where value masses are wanted; 24 bytes of partial sums for each
split, head and row, and 8 more for each span of it.  A span costs one sum over a tile of 64 positions where it ends, nothing
where it goes on.  Tables are uploaded once a step.  Results stay on the device until the sending thread fetches them
(:mod:`headwatch.capture.kernels.device_results`).  What it takes on a GPU, ``tests/gpu`` measures.

Error against a float64 run of the oracle on the same stored numbers, up to 600 positions, in Triton's interpreter: below 3e-7
for all features and masses with logits of a few units, 2e-6 where logits reach 60, which float32 rounds by as much.  It
does not grow with the context, whose sums are taken in tiles and splits.  Products of 16-bit and FP8 operands are exact,
summed in float32; the GPU's exp adds 2 ulp.

The first call for a layer's shape compiles, for seconds: :meth:`TritonRows.warm_up` does it when the engine starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import triton  # type: ignore[import-untyped]  # ships no type information
import triton.language as tl  # type: ignore[import-untyped]  # ships no type information

from headwatch.capture.cache.paged import PagedReader
from headwatch.capture.kernels import triton_device as device
from headwatch.capture.kernels.device_results import DeviceResults
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.capture.kernels.triton_work import Work, plan_work
from headwatch.capture.layers.attention import RowSpans
from headwatch.capture.output.buffer import LayerSlot, allocate
from headwatch.capture.plan.step import RequestRows, SampledRequest
from headwatch.model import RequestContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from headwatch.capture.kernels.base import LayerCall, Memo

_FP8 = {"e4m3": device.E4M3, "e5m2": device.E5M2}
_FP8_TYPES = {torch.float8_e4m3fn: device.E4M3, torch.float8_e5m2: device.E5M2}
_NATIVE = (torch.float32, torch.bfloat16, torch.float16)
_VECTORS = 64
"""Query vectors in one program: rows times the heads that share a KV head."""
_LEAST_VECTORS = 16
"""Of a matrix product on tensor cores."""
_TILE_TOKENS, _TILE_BYTES = 64, 32 * 1024
"""Positions of K taken at once, fewer where heads are so wide that a tile would be larger."""
_PROGRAMS_PER_PROCESSOR = 4


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer as the kernels want it."""

    query: Tensor
    keys: Tensor
    values: Tensor
    key_scale: Tensor | None
    value_scale: Tensor | None
    kv_heads: int
    heads: int
    """Query heads that share a KV head, taken in ``parts`` of ``part_heads``, a power of two."""
    parts: int
    part_heads: int
    dim: int
    value_dim: int
    tile_n: int
    query_form: int
    key_form: int
    dot_type: Any


def _fitted(call: LayerCall) -> _Layer | None:
    """Return the layer of *call*; None where the oracle must run."""
    if call.latent is not None or not isinstance(call.reader, PagedReader):
        return None
    views, query = call.reader.views(call.cache), call.query
    keys, values = views.keys, views.values
    _, all_heads, dim = query.shape
    kv_heads = keys.shape[2]
    key_form = device.NATIVE if views.fp8 is None else _FP8[views.fp8]
    query_form = _FP8_TYPES.get(query.dtype, device.NATIVE)
    known = query.dtype in (*_NATIVE, *_FP8_TYPES) and (key_form != device.NATIVE or keys.dtype in _NATIVE)
    adjacent = query.stride(2) == keys.stride(3) == values.stride(3) == 1
    if not known or not adjacent or all_heads % kv_heads or keys.shape[3] != dim or call.block_table.stride(1) != 1:
        return None
    heads = all_heads // kv_heads
    part_heads = min(_VECTORS, triton.next_power_of_2(heads))
    dot_type = _dot_type(query, keys, query_form, key_form)
    tile_bytes = _padded(dim) * (4 if dot_type == tl.float32 else 2)
    return _Layer(
        query.view(torch.uint8) if query_form != device.NATIVE else query, keys, values, views.key_scale, views.value_scale,
        kv_heads, heads, -(-heads // part_heads), part_heads, dim, values.shape[3],
        max(_LEAST_VECTORS, min(_TILE_TOKENS, _TILE_BYTES // tile_bytes)), query_form, key_form, dot_type,
    )  # fmt: skip


def _dot_type(query: Tensor, keys: Tensor, query_form: int, key_form: int) -> Any:
    """Return the narrowest type in which queries and keys are exact."""
    if query.device.type != "cuda":
        return tl.float32  # Triton's interpreter multiplies bfloat16 as if it were integers
    if query_form != device.NATIVE:
        return tl.float16 if key_form != device.NATIVE else tl.float32
    if query.dtype != torch.float32 and (key_form != device.NATIVE or keys.dtype == query.dtype):
        return tl.bfloat16 if query.dtype == torch.bfloat16 else tl.float16
    return tl.float32


def _padded(dim: int) -> int:
    return max(_LEAST_VECTORS, int(triton.next_power_of_2(dim)))


def _processors(where: torch.device) -> int:
    return int(torch.cuda.get_device_properties(where).multi_processor_count) if where.type == "cuda" else 1


class TritonRows:
    """The Triton kernel, with the oracle for what it does not fit."""

    name = "triton"
    carries_values = True

    def __init__(self, *, programs: int = 0, least_split: int = 128) -> None:
        """Start about *programs* programs a layer (0: as many as fill the GPU), none for less than *least_split* positions."""
        self._programs = programs
        self._least_split = least_split
        self._stream: torch.cuda.Stream | None = None
        self._one: Tensor | None = None
        self._torch = TorchRows()

    def summarise(self, call: LayerCall, rows: Sequence[RequestRows], slot: LayerSlot, memo: Memo) -> None:
        """Write the summaries of *rows* into *slot*, once ``slot.buffer.fetch()`` is called."""
        layer = _fitted(call)
        if layer is None:
            self._torch.summarise(call, rows, slot, memo)
            return
        several = any(len(request.positions) > 1 for request in rows)
        rows_per_tile = _VECTORS // layer.part_heads if several else 1
        work, tables = self._work(call, layer, rows, rows_per_tile, memo)
        results = self._results(call, slot, memo)
        tile_m = max(_LEAST_VECTORS, rows_per_tile * layer.part_heads)
        self._launch(call, layer, work, tables, results, slot.index, tile_m)
        results.written(slot.index)

    def again(self, *_: object) -> bool:
        """Return False: there is no shorter way."""
        return False

    def settle(self) -> float:
        """Return 0: results are fetched by the sending thread."""
        return 0.0

    def warm_up(self, call: LayerCall, *, values: bool) -> None:
        """Compile what layers like that of *call* need, for one row and for several.

        *call* must have two query tokens and one page; what they hold does not matter.
        """
        context = RequestContext("warm-up", prompt_tokens=1, spans=[])
        request = SampledRequest(context, RowSpans(np.ones(1, np.int32), np.ones(1, np.uint8)))
        for count in (1, 2):
            positions = np.arange(count)
            rows = RequestRows(request, 0, positions, positions, count, 0, 0, np.ones(count))
            slot = LayerSlot(allocate((0,), call.query.shape[1], count, 2 * count, values=values), 0)
            self.summarise(call, [rows], slot, {})

    def _work(
        self, call: LayerCall, layer: _Layer, rows: Sequence[RequestRows], rows_per_tile: int, memo: Memo
    ) -> tuple[Work, list[Tensor]]:
        """Return the work and its tables on the device; layers that hide the same positions share them."""
        rule, groups, where = call.rule, layer.kv_heads * layer.parts, call.query.device
        key = (TritonRows, rule.window, rule.chunk, rule.causal, groups, rows_per_tile, len(rows), rows[0].first_row)
        found: tuple[Work, list[Tensor]] | None = memo.get(key)
        if found is None:
            programs = self._programs or _PROGRAMS_PER_PROCESSOR * _processors(where)
            work = plan_work(rows, rule, rows_per_tile, groups, programs, self._least_split)
            flat = torch.from_numpy(work.flat)
            if where.type == "cuda":
                flat = flat.pin_memory().to(where, non_blocking=True)
            found = memo[key] = work, [flat[start:] for start in work.starts]
        return found

    def _results(self, call: LayerCall, slot: LayerSlot, memo: Memo) -> DeviceResults:
        key = (DeviceResults, id(slot.buffer))
        results: DeviceResults | None = memo.get(key)
        if results is None:
            where = call.query.device
            if where.type == "cuda" and self._stream is None:
                self._stream = torch.cuda.Stream(where)
            results = memo[key] = DeviceResults(slot.buffer, where, self._stream)
            slot.buffer.pending = results.fetch
        return results

    def _launch(
        self, call: LayerCall, layer: _Layer, work: Work, tables: list[Tensor], results: DeviceResults, index: int, tile_m: int
    ) -> None:
        query, rule = layer.query, call.rule
        rows, tiles, items, ends, documents = tables
        groups, carried = layer.kv_heads * layer.parts, "value_mass" in results.arrays
        stats = torch.empty(work.items * groups * device.STATS * tile_m, dtype=torch.float32, device=query.device)
        sums = torch.empty(work.slots * groups * (2 + carried) * tile_m, dtype=torch.float32, device=query.device)
        key_scale, value_scale = (self._scale(scale, query) for scale in (layer.key_scale, layer.value_scale))
        slopes, sinks = (stats if item is None else item.to(query.device) for item in (rule.alibi_slopes, rule.sinks))
        features, span_mass = results.arrays["features"], results.arrays["span_mass"]
        output_head_stride = call.output.stride(1) if call.output.dim() > 2 else layer.value_dim  # noqa: PLR2004
        device.partial_sums[work.items, groups](
            query, layer.keys, layer.values, call.block_table, key_scale, value_scale, slopes,
            rows, tiles, items, ends, stats, sums,
            query.stride(0), query.stride(1), call.block_table.stride(0),
            *layer.keys.stride()[:3], int(key_scale.numel() > 1), *layer.values.stride()[:3], int(value_scale.numel() > 1),
            rule.scale, rule.softcap, layer.heads,
            dim=layer.dim, value_dim=layer.value_dim, dim_pad=_padded(layer.dim), value_pad=_padded(layer.value_dim),
            page=layer.keys.shape[1], parts=layer.parts, part_heads=layer.part_heads, tile_m=tile_m, tile_n=layer.tile_n,
            query_form=layer.query_form, key_form=layer.key_form, dot_type=layer.dot_type,
            has_softcap=rule.softcap > 0, has_slopes=rule.alibi_slopes is not None, with_values=carried,
        )  # fmt: skip
        device.merge[work.rows, groups](
            stats, sums, sinks, call.output, rows, tiles, ends, documents,
            features, span_mass, results.arrays.get("value_mass", stats), results.arrays.get("output_norm", stats),
            call.output.stride(0), output_head_stride, features.stride(0), span_mass.stride(0),
            layer.heads, work.split, index,
            value_dim=layer.value_dim, value_pad=_padded(layer.value_dim), parts=layer.parts, part_heads=layer.part_heads,
            tile_m=tile_m, has_sinks=rule.sinks is not None, causal=rule.causal, with_values=carried,
        )  # fmt: skip

    def _scale(self, scale: Tensor | None, like: Tensor) -> Tensor:
        if scale is not None:
            return scale
        if self._one is None or self._one.device != like.device:
            self._one = torch.ones(1, dtype=torch.float32, device=like.device)
        return self._one
