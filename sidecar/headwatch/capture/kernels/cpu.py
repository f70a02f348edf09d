"""The CPU kernel: one pass over K in compiled C, for the layouts of vLLM's ``CPU_ATTN`` backend.

Query heads that share a KV head, and rows of one request, share the pass.  Work is split over heads and over the context
and runs on the engine's own OpenMP threads while they wait (vLLM's attention has just ended and the next layer has not
begun), so it never takes a core from the engine.  All features and masses come from sums that stream over the logits;
nothing needs a second pass over K.  See ``cpu_rows.c``.

Error against a float64 run on 2,048 positions: below 1e-6 for masses and 3e-6 for entropy with logits of a few units; it
grows with the logits' size, not with the length.  Memory: logits of the rows at work, 4 bytes · heads · context a row, and
no compiler is loaded into the process.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwatch.capture.cache.cpu import Fp8Reader
from headwatch.capture.cache.learnt import LearntReader
from headwatch.capture.cache.reader import CacheReader, CpuVectorReader
from headwatch.capture.kernels.compiler import compiled
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.errors import CaptureRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headwatch.capture.kernels.base import LayerCall, Memo
    from headwatch.capture.output.buffer import LayerSlot, SummaryBuffer
    from headwatch.capture.plan.step import RequestRows

SCRATCH_FLOATS = 1 << 22
"""Logits held at once, 16 MiB, unless a single row needs more."""
_ALIGNED_TOKENS = 16
_COLUMNS, _PAIRS = 0, 1
"""Layouts of the keys in a block, as ``cpu_rows.c`` numbers them."""
_CACHE_DIMENSIONS = 4

_QUERY_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_CACHE_TYPES = {**_QUERY_TYPES, torch.float8_e4m3fn: 3, torch.float8_e5m2: 4}
_POINTERS = (
    "query", "key", "value", "output", "block_table", "alibi", "sinks",
    "features", "span_mass", "value_mass", "output_norm",
)  # fmt: skip
_STRIDES = (
    "query_token_stride", "query_head_stride", "output_token_stride", "output_head_stride",
    "block_stride", "head_stride", "table_stride", "feature_row_stride", "mass_span_stride", "norm_row_stride",
)  # fmt: skip
_FLOATS = ("scale", "softcap", "key_scale", "value_scale")
_INTEGERS = (
    "query_type", "cache_type", "output_type", "heads", "kv_heads", "dim", "value_dim", "block_tokens",
    "window", "chunk", "threads", "layout",
)  # fmt: skip


class _Layer(ctypes.Structure):
    """``hw_layer`` of ``cpu_rows.c``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _STRIDES),
        *((name, ctypes.c_float) for name in _FLOATS),
        *((name, ctypes.c_int32) for name in _INTEGERS),
    )


class _Batch:
    """Tasks and rows of one call, ``hw_task`` and ``hw_row`` of ``cpu_rows.c``; shared by all layers of a step."""

    __slots__ = ("count", "first_row", "kept", "rows", "scratch_rows", "tasks")

    def __init__(self, pieces: list[tuple[RequestRows, int, int]]) -> None:
        """Take (request, first of its rows, number of rows) in the order of the step."""
        request, start, _ = pieces[0]
        self.first_row = request.first_row + start
        self.scratch_rows: list[tuple[int, int]] = []
        """(rows, keys) of each task."""
        tasks: list[tuple[int, ...]] = []
        rows: list[tuple[int, ...]] = []
        for number, (item, first, count) in enumerate(pieces):
            spans = item.request.spans
            keys = int(item.positions[first + count - 1]) + 1
            self.scratch_rows.append((count, keys))
            tasks.append((
                spans.ends.ctypes.data, spans.document.ctypes.data, spans.spans, item.batch_index, len(rows), count, keys,
            ))  # fmt: skip
            rows.extend(
                (number, int(item.query_index[r]), int(item.positions[r]), item.first_span + r * (spans.spans + 1))
                for r in range(first, first + count)
            )
        self.kept = np.array(tasks, np.int64), np.array(rows, np.int64)
        self.count = len(tasks)
        self.tasks, self.rows = (array.ctypes.data for array in self.kept)


class _Step:
    """What all layers of a step have in common: batches, and the addresses of a buffer's arrays, by (base, layer stride)."""

    __slots__ = (
        "batches", "feature_row_bytes", "features", "mass_layer_bytes", "mass_span_bytes", "masses", "norms", "values",
    )  # fmt: skip

    def __init__(self, batches: list[_Batch], buffer: SummaryBuffer, layer: _Layer) -> None:
        values = buffer.value_mass is not None
        self.batches = [(batch, _scratch(batch.scratch_rows, layer, values=values)) for batch in batches]
        self.features = buffer.features.ctypes.data, buffer.features.strides[1]
        self.feature_row_bytes = buffer.features.strides[0]
        self.masses = buffer.span_mass.ctypes.data
        self.mass_span_bytes, self.mass_layer_bytes = buffer.span_mass.strides[:2]
        self.values = 0
        self.norms: tuple[int, int, int] | None = None
        if buffer.value_mass is not None and buffer.output_norm is not None:
            self.values = buffer.value_mass.ctypes.data
            row_bytes, layer_bytes = buffer.output_norm.strides[:2]
            self.norms = buffer.output_norm.ctypes.data, row_bytes, layer_bytes


class CpuRows:
    """The compiled kernel, with the oracle for layers that it does not fit."""

    name = "cpu"
    carries_values = True

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._rows = library.hw_rows
        self._rows.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
        self._rows.restype = ctypes.c_int
        self._threads = threads
        self._layers: dict[int, tuple[Any, _Layer | None]] = {}
        """By the identity of a layer's rule, which lives as long as the layer does."""
        self._scratch: NDArray[np.float32] = np.empty(0, np.float32)
        self._scratch_address = 0
        self._torch = TorchRows()

    def summarise(self, call: LayerCall, rows: Sequence[RequestRows], slot: LayerSlot, memo: Memo) -> None:
        """Write the summaries of *rows* into *slot*."""
        known = self._layers.get(id(call.rule))
        if known is None or known[0] is not call.rule:
            known = self._layers[id(call.rule)] = (call.rule, self._describe(call))
        layer, buffer = known[1], slot.buffer
        if layer is None or (buffer.value_mass is not None and layer.layout != _COLUMNS):
            self._torch.summarise(call, rows, slot, memo)
            return
        key = (id(buffer), layer.geometry)
        step: _Step | None = memo.get(key)
        if step is None:
            step = memo[key] = _Step(_batches(rows, layer), buffer, layer)
        layer.feature_row_stride, layer.mass_span_stride = step.feature_row_bytes // 4, step.mass_span_bytes // 4
        query, output, table, index = call.query, call.output, call.block_table, slot.index
        layer.query, layer.query_token_stride, layer.query_head_stride = query.data_ptr(), query.stride(0), query.stride(1)
        layer.block_table, layer.table_stride = table.data_ptr(), table.stride(0)
        layer.key = call.cache.data_ptr()
        layer.span_mass = step.masses + index * step.mass_layer_bytes
        if isinstance(call.reader, Fp8Reader):
            scales = call.reader.layer
            layer.key_scale, layer.value_scale = float(scales._k_scale_float), float(scales._v_scale_float)  # noqa: SLF001 - the engine's names
        if step.norms is not None:
            layer.value = call.cache.data_ptr() + call.cache.element_size() * layer.block_tokens * layer.dim
            layer.value_mass = step.values + index * step.mass_layer_bytes
            layer.output = output.data_ptr()
            layer.output_token_stride, layer.output_head_stride = _output_strides(output, layer)
        else:
            layer.value = None
        address, (features, feature_layer_bytes) = ctypes.addressof(layer), step.features
        for batch, floats in step.batches:
            layer.features = features + index * feature_layer_bytes + batch.first_row * step.feature_row_bytes
            if step.norms is not None:
                norms, norm_row_bytes, norm_layer_bytes = step.norms
                layer.norm_row_stride = norm_row_bytes // 4
                layer.output_norm = norms + index * norm_layer_bytes + batch.first_row * norm_row_bytes
            if self._rows(address, batch.tasks, batch.count, batch.rows, self._room(floats)):
                raise MemoryError("no memory for the kernel's task list")

    def _room(self, floats: int) -> int:
        """Return the address of *floats* floats, whatever they hold."""
        if len(self._scratch) < floats:
            self._scratch = np.empty(floats, np.float32)
            self._scratch_address = self._scratch.ctypes.data
        return self._scratch_address

    def _describe(self, call: LayerCall) -> _Layer | None:
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
        layer = _Layer(
            scale=rule.scale, softcap=rule.softcap, key_scale=1.0, value_scale=1.0,
            query_type=_QUERY_TYPES[query.dtype], cache_type=_CACHE_TYPES[dtype],
            output_type=_QUERY_TYPES[call.output.dtype],
            heads=query.shape[1], kv_heads=kv_heads, dim=dim, value_dim=dim, block_tokens=size,
            window=rule.window, chunk=rule.chunk, threads=self._threads, layout=layout,
            block_stride=cache.stride(0), head_stride=cache.stride(1),
        )  # fmt: skip
        layer.geometry = layer.heads, layer.kv_heads, layer.dim, layer.block_tokens
        layer.kept = [_vector(rule.alibi_slopes), _vector(rule.sinks)]
        layer.alibi, layer.sinks = (None if item is None else item.ctypes.data for item in layer.kept)
        return layer


def load() -> CpuRows:
    """Return the kernel of this machine.

    Raises:
        CaptureRefused: With reason ``compiler``.
    """
    # Linked against libgomp.so.1, which torch has loaded: its pool of threads is used, and no second one is made.
    path = compiled(Path(__file__).with_name("cpu_rows.c"), ("-fopenmp",))
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise CaptureRefused("compiler", f"{path} cannot be loaded: {error}") from error
    return CpuRows(library, torch.get_num_threads())


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


def _batches(rows: Sequence[RequestRows], layer: _Layer) -> list[_Batch]:
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
                batches.append(_Batch(pieces))
                pieces, used = [], 0
                continue
            count = max(count, 1)
            pieces.append((request, first, count))
            used += count * row
            first += count
    return [*batches, _Batch(pieces)] if pieces else batches


def _scratch(tasks: list[tuple[int, int]], layer: _Layer, *, values: bool) -> int:
    """Return the floats that ``hw_rows`` needs, as it lays them out."""
    floats = 0
    for rows, keys in tasks:
        width = -(-keys // layer.block_tokens) * layer.block_tokens + 16
        floats += rows * layer.heads * (width + layer.dim)
        floats += layer.kv_heads * width if values else 0
    return floats


def _output_strides(output: torch.Tensor, layer: _Layer) -> tuple[int, int]:
    """Return the strides of (token, head) in *output*, [tokens, H, D] or [tokens, H · D]."""
    return output.stride(0), output.stride(1) if output.dim() > 2 else layer.value_dim  # noqa: PLR2004 - dimensions


def _vector(values: torch.Tensor | None) -> NDArray[np.float32] | None:
    return None if values is None else np.ascontiguousarray(values.detach().float().cpu().numpy())
