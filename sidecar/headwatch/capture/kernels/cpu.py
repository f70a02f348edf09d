"""The CPU kernel: one pass over K in compiled C, for the layouts of vLLM's ``CPU_ATTN`` backend.

Query heads that share a KV head, and rows of one request, share the pass.  Work is split over heads and over the context.
Where the engine leaves a core free, a thread there does it while the engine goes on with its next layers
(:mod:`headwatch.capture.kernels.helper`), and what it has not done when the step ends is done together.  Else, and for what it
has no place for, the engine's own OpenMP threads do it while they wait: vLLM's attention has just ended and the next layer
has not begun.  Neither takes a core from the engine.  All features and masses come from sums that stream over the logits;
nothing needs a second pass over K.  See ``native/rows.c``.

Error against a float64 run on 2,048 positions: below 1e-6 for masses and 3e-6 for entropy with logits of a few units; it
grows with the logits' size, not with the length.  Memory: logits of the rows at work, 4 bytes · heads · context a row, and
no compiler is loaded into the process.  With a helper twice as much, and a copy of the query rows of each layer.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwatch.capture.cache.cpu import Fp8Reader
from headwatch.capture.cache.learnt import LearntReader
from headwatch.capture.cache.reader import CacheReader, CpuVectorReader
from headwatch.capture.kernels import helper, native
from headwatch.capture.kernels.native import DONE, HANDED_OVER, Layer, Step
from headwatch.capture.kernels.torch_rows import TorchRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.capture.kernels.base import LayerCall, Memo
    from headwatch.capture.kernels.helper import Helper
    from headwatch.capture.kernels.native import Library
    from headwatch.capture.layers.attention import AttentionRule
    from headwatch.capture.output.buffer import LayerSlot, SummaryBuffer
    from headwatch.capture.plan.parts import StepPart
    from headwatch.capture.plan.step import RequestRows

SCRATCH_FLOATS = 1 << 22
"""Logits held at once, 16 MiB, unless a single row needs more."""
_ALIGNED_TOKENS = 16
_COLUMNS, _PAIRS = 0, 1
"""Layouts of the keys in a block, as ``native/layer.h`` numbers them."""
_CACHE_DIMENSIONS = 4
_PADDING = 16
"""Floats behind a row of logits, as ``native/job.h`` leaves them."""

_QUERY_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_CACHE_TYPES = {**_QUERY_TYPES, torch.float8_e4m3fn: 3, torch.float8_e5m2: 4}


class _Described:
    """A layer that the kernel knows how to read: what of it does not change from step to step."""

    __slots__ = ("_cache", "_output_strides", "_query_strides", "address", "geometry", "kept", "layer", "reads_values",
                 "scales")  # fmt: skip

    def __init__(self, layer: Layer, call: LayerCall, kept: tuple[NDArray[np.float32] | None, ...]) -> None:
        self.layer, self.kept = layer, kept
        self.address = ctypes.addressof(layer)
        self._cache, self._query_strides, self._output_strides = _layout_of(call.query, call.cache, call.output)
        self.reads_values = layer.layout == _COLUMNS
        self.geometry = layer.heads, layer.kv_heads, layer.dim, layer.block_tokens
        self.scales = call.reader.layer if isinstance(call.reader, Fp8Reader) else None
        """Whose scales are read in each step, where the cache has any."""

    def fits(self, query: torch.Tensor, cache: torch.Tensor, output: torch.Tensor) -> bool:
        """Return whether all three are laid out as they were."""
        return _layout_of(query, cache, output) == (self._cache, self._query_strides, self._output_strides)


class _Batch:
    """Rows of a step whose logits fit the scratch, for all layers that write to one buffer and share a block table."""

    __slots__ = ("address", "kept", "step")

    def __init__(
        self, pieces: list[tuple[RequestRows, int, int]], layer: Layer, buffer: SummaryBuffer, table: torch.Tensor
    ) -> None:
        """Take (request, first of its rows, number of rows) in the order of the step."""
        request, start, _ = pieces[0]
        first_row = request.first_row + start
        floats = 0
        tasks: list[tuple[int, ...]] = []
        rows: list[tuple[int, ...]] = []
        for number, (item, first, count) in enumerate(pieces):
            spans = item.request.spans
            keys = int(item.positions[first + count - 1]) + 1
            width = -(-keys // layer.block_tokens) * layer.block_tokens + _PADDING
            floats += width * (count * layer.heads + (0 if buffer.value_mass is None else layer.kv_heads))
            tasks.append((
                spans.ends.ctypes.data, spans.document.ctypes.data, spans.spans, item.batch_index, len(rows), count, keys,
            ))  # fmt: skip
            rows.extend(
                (number, int(item.query_index[r]), int(item.positions[r]), item.first_span + r * (spans.spans + 1))
                for r in range(first, first + count)
            )
        lists = np.array(tasks, np.int64), np.array(rows, np.int64)
        features, masses = buffer.features, buffer.span_mass
        self.step = step = Step(
            tasks=lists[0].ctypes.data, rows=lists[1].ctypes.data, count=len(tasks), floats=floats,
            block_table=table.data_ptr(), table_stride=table.stride(0),
            features=features.ctypes.data + first_row * features.strides[0], span_mass=masses.ctypes.data,
            feature_row_stride=features.strides[0] // 4, feature_layer_stride=features.strides[1] // 4,
            mass_span_stride=masses.strides[0] // 4, mass_layer_stride=masses.strides[1] // 4,
        )  # fmt: skip
        if buffer.value_mass is not None and buffer.output_norm is not None:
            norms = buffer.output_norm
            step.value_mass = buffer.value_mass.ctypes.data
            step.output_norm = norms.ctypes.data + first_row * norms.strides[0]
            step.norm_row_stride, step.norm_layer_stride = norms.strides[0] // 4, norms.strides[1] // 4
        self.kept = lists, table
        self.address = ctypes.addressof(step)


class CpuRows:
    """The compiled kernel, with the oracle for layers that it does not fit."""

    name = "cpu"
    carries_values = True

    def __init__(self, library: Library, threads: int, beside: Helper | None = None) -> None:
        self._threads = threads
        self._helper = beside
        self._pointer = None if beside is None else beside.pointer
        self._rows = library.rows if beside is None else library.rows_quickly
        self._handed_over = False
        """Whether the helper may have something of this step."""
        self._layers: dict[int, tuple[Any, _Described | None]] = {}
        """By the identity of a layer's rule, which lives as long as the layer does."""
        self._torch = TorchRows()

    def summarise(self, call: LayerCall, rows: Sequence[RequestRows], slot: LayerSlot, memo: Memo) -> None:
        """Write the summaries of *rows* into *slot*."""
        known = self._layers.get(id(call.rule))
        fits = known is not None and known[0] is call.rule and (
            known[1] is None or known[1].fits(call.query, call.cache, call.output)
        )
        if known is None or not fits:
            known = self._layers[id(call.rule)] = call.rule, self._describe(call)
        layer = known[1]
        if layer is None or (slot.buffer.value_mass is not None and not layer.reads_values):
            self._torch.summarise(call, rows, slot, memo)
            return
        self._run(layer, rows, slot.buffer, slot.index, call.query, call.output, call.block_table, memo)

    def again(
        self, rule: AttentionRule, part: StepPart, place: tuple[int, int], query: torch.Tensor, cache: torch.Tensor,
        output: torch.Tensor, block_table: torch.Tensor,
    ) -> bool:
        """Summarise all rows of *part* in a layer of which nothing has changed; return whether that is so."""
        known = self._layers.get(id(rule))
        if known is None or known[0] is not rule:
            return False
        layer, (group, index) = known[1], place
        buffer = part.buffers[group]
        if layer is None or not layer.fits(query, cache, output) or (buffer.value_mass is not None and not layer.reads_values):
            return False
        self._run(layer, part.rows, buffer, index, query, output, block_table, part.memo)
        return True

    def _run(
        self, layer: _Described, rows: Sequence[RequestRows], buffer: SummaryBuffer, index: int, query: torch.Tensor,
        output: torch.Tensor, table: torch.Tensor, memo: Memo,
    ) -> None:
        key = (id(buffer), layer.geometry, table.data_ptr())
        batches: list[_Batch] | None = memo.get(key)
        if batches is None:
            batches = memo[key] = _batches(rows, layer.layer, buffer, table)
        if layer.scales is not None:
            layer.layer.key_scale = float(layer.scales._k_scale_float)  # noqa: SLF001 - the engine's name
            layer.layer.value_scale = float(layer.scales._v_scale_float)  # noqa: SLF001
        for batch in batches:
            done = self._rows(self._pointer, layer.address, batch.address, index, query.data_ptr(), output.data_ptr())
            if done == HANDED_OVER:
                self._handed_over = True
            elif done != DONE:
                raise MemoryError("no memory for the kernel's logits")

    def settle(self) -> float:
        """Return once all summaries stand in their slots: the seconds that they took elsewhere than on this thread."""
        if self._helper is None or not self._handed_over:
            return 0.0
        self._handed_over = False
        return self._helper.settle()

    def close(self) -> None:
        """End the helper."""
        if self._helper is not None:
            self.settle()
            self._helper.stop()
            self._helper = self._pointer = None

    def _describe(self, call: LayerCall) -> _Described | None:
        """Return what does not change from step to step; None where the oracle must run."""
        cache, rule, query = call.cache, call.rule, call.query
        reader: CacheReader = call.reader
        dtype = cache.dtype
        if isinstance(reader, Fp8Reader):
            dtype = reader.dtype
            reader = reader.inner
        if not rule.causal or dtype not in _CACHE_TYPES or cache.dim() != _CACHE_DIMENSIONS:
            return None
        _, kv_heads, size, width = cache.shape
        dim = width // 2
        layout = _layout(reader, size, dim, dtype)
        if layout is None:
            return None
        inner = cache.stride(2) == width and cache.stride(3) == 1
        if not inner or size % _ALIGNED_TOKENS or dim % _ALIGNED_TOKENS or query.shape[1] % kv_heads:
            return None
        if query.shape[2] != dim or query.stride(2) != 1 or query.dtype not in _QUERY_TYPES:
            return None
        if call.output.dtype not in _QUERY_TYPES or call.block_table.dtype != torch.int32:
            return None
        kept = _vector(rule.alibi_slopes), _vector(rule.sinks)
        query_strides, output_strides = query.stride(), _output_strides(call.output, dim)
        layer = Layer(
            key=cache.data_ptr(), value=cache.data_ptr() + cache.element_size() * size * dim,
            alibi=_address(kept[0]), sinks=_address(kept[1]),
            query_token_stride=query_strides[0], query_head_stride=query_strides[1],
            output_token_stride=output_strides[0], output_head_stride=output_strides[1],
            block_stride=cache.stride(0), head_stride=cache.stride(1),
            scale=rule.scale, softcap=rule.softcap, key_scale=1.0, value_scale=1.0,
            query_type=_QUERY_TYPES[query.dtype], cache_type=_CACHE_TYPES[dtype],
            output_type=_QUERY_TYPES[call.output.dtype],
            heads=query.shape[1], kv_heads=kv_heads, dim=dim, value_dim=dim, block_tokens=size,
            window=rule.window, chunk=rule.chunk, threads=self._threads, layout=layout,
        )  # fmt: skip
        return _Described(layer, call, kept)


def load(*, beside: bool = False) -> CpuRows:
    """Return the kernel of this machine.

    *beside*: whether to summarise on a core that the engine leaves free, where there is one.

    Raises:
        CaptureRefused: With reason ``compiler``.
    """
    library, threads = native.load(), torch.get_num_threads()
    return CpuRows(library, threads, helper.start(library, helper.spare(library, threads) if beside else ()))


def _layout(reader: CacheReader, size: int, dim: int, dtype: torch.dtype) -> int | None:
    """Return how a block of *size* tokens keeps its keys; None where the kernel does not know the layout."""
    if isinstance(reader, CpuVectorReader):
        return _COLUMNS
    if not isinstance(reader, LearntReader):
        return None
    token, number = torch.arange(size)[:, None], torch.arange(dim)[None, :]
    keys, values = reader.layout.key_cells, reader.layout.value_cells
    in_columns = torch.equal(keys, (number * size + token).flatten())
    if in_columns and torch.equal(values, torch.arange(size * dim)):
        return _COLUMNS
    paired = token // 16 * 16 * dim + number // 2 * 32 + token % 16 * 2 + number % 2
    return _PAIRS if dtype == torch.bfloat16 and torch.equal(keys, paired.flatten()) else None


def _batches(
    rows: Sequence[RequestRows], layer: Layer, buffer: SummaryBuffer, table: torch.Tensor
) -> list[_Batch]:
    """Return *rows* in batches of bounded scratch, each of whole rows in their order."""
    batches: list[_Batch] = []
    pieces: list[tuple[RequestRows, int, int]] = []
    used = 0
    for request in rows:
        first = 0
        while first < len(request.positions):
            row = layer.heads * (request.keys + 2 * layer.block_tokens)
            count = min(len(request.positions) - first, max(0, SCRATCH_FLOATS - used) // row)
            if count == 0 and pieces:
                batches.append(_Batch(pieces, layer, buffer, table))
                pieces, used = [], 0
                continue
            count = max(count, 1)
            pieces.append((request, first, count))
            used += count * row
            first += count
    return [*batches, _Batch(pieces, layer, buffer, table)] if pieces else batches


def _layout_of(query: torch.Tensor, cache: torch.Tensor, output: torch.Tensor) -> tuple[int, Any, Any]:
    return cache.data_ptr(), query.stride(), output.stride()


def _output_strides(output: torch.Tensor, dim: int) -> tuple[int, int]:
    """Return the strides of (token, head) in *output*, [tokens, H, D] or [tokens, H · D]."""
    return output.stride(0), output.stride(1) if output.dim() > 2 else dim  # noqa: PLR2004 - dimensions


def _address(values: NDArray[np.float32] | None) -> int | None:
    return None if values is None else values.ctypes.data


def _vector(values: torch.Tensor | None) -> NDArray[np.float32] | None:
    return None if values is None else np.ascontiguousarray(values.detach().float().cpu().numpy())
