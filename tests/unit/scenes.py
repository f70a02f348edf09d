"""Paged caches with known keys and values in them, and the rows to summarise: what every row kernel is tried on."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from headwatch.capture.cache.reader import CpuVectorReader
from headwatch.capture.kernels import oracle
from headwatch.capture.kernels.base import LayerCall
from headwatch.capture.layers.attention import AttentionRule, row_spans
from headwatch.capture.output.buffer import LayerSlot, SummaryBuffer, allocate
from headwatch.capture.plan.step import RequestRows, SampledRequest
from headwatch.model import RequestContext, Span


@dataclass
class Wanted:
    """One request: its rows are the last *rows* positions of *length*, the prompt ends at *prompt*."""

    length: int
    prompt: int
    rows: int = 1
    parts: int = 4
    """Spans of the prompt; every second one is a document."""


@dataclass
class Scene:
    """A layer call and everything needed to know the right answer."""

    call: LayerCall
    rows: list[RequestRows]
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def buffer(self, *, values: bool = False, layers: int = 3) -> SummaryBuffer:
        """Return a buffer full of a number that no kernel writes."""
        rows = sum(len(item.positions) for item in self.rows)
        spans = sum(len(item.positions) * (item.request.spans.spans + 1) for item in self.rows)
        buffer = allocate(tuple(range(layers)), self.call.query.shape[1], rows, spans, values=values)
        for array in (buffer.features, buffer.span_mass, buffer.value_mass, buffer.output_norm):
            if array is not None:
                array.fill(-7.0)
        return buffer

    def expected(self, slot: LayerSlot) -> None:
        """Write into *slot* what the oracle says in float64, from the keys as the cache holds them."""
        buffer, at = slot.buffer, slot.index
        for item, keys, values in zip(self.rows, self.keys, self.values, strict=True):
            query = self.call.query[torch.as_tensor(item.query_index)].double()
            positions = torch.as_tensor(item.positions)
            attention, sink = oracle.weights(query, keys[: item.keys].double(), positions, self.call.rule)
            spans = item.request.spans
            features, mass = oracle.summarise(attention, sink, positions, spans, self.call.rule)
            rows, count = len(positions), spans.spans + 1
            part = slice(item.first_row, item.first_row + rows)
            wide = slice(item.first_span, item.first_span + rows * count)
            buffer.features[part, at] = features.numpy()
            buffer.span_mass[wide, at] = mass.reshape(rows * count, -1).numpy()
            if buffer.value_mass is not None and buffer.output_norm is not None:
                carried = oracle.value_mass(attention, values[: item.keys].double(), spans)
                buffer.value_mass[wide, at] = carried.reshape(rows * count, -1).numpy()
                output = self.call.output[torch.as_tensor(item.query_index)].double()
                buffer.output_norm[part, at] = output.norm(dim=-1).numpy()


def scene(
    wanted: list[Wanted],
    *,
    heads: int = 6,
    kv_heads: int = 2,
    dim: int = 64,
    block: int = 32,
    dtype: torch.dtype = torch.float32,
    query_dtype: torch.dtype | None = None,
    rule: AttentionRule | None = None,
    seed: int = 0,
    spread: float = 2.0,
) -> Scene:
    """Return a scene in the layout of vLLM's CPU backend, isa ``vec``: pages scattered, and full of NaN where unused.

    *spread* is the standard deviation of a logit.
    """
    generator = torch.Generator().manual_seed(seed)
    pages = [-(-item.length // block) for item in wanted]
    cache = torch.full((sum(pages) + 2, kv_heads, block, 2 * dim), float("nan")).to(dtype)
    order = torch.randperm(sum(pages) + 2, generator=generator).tolist()
    table = torch.full((len(wanted) + 1, max(pages)), 2**30, dtype=torch.int32)
    tokens = sum(item.rows for item in wanted) + 1
    query = torch.randn(tokens, heads, dim, generator=generator).to(query_dtype or dtype)
    output = torch.randn(tokens, heads, dim, generator=generator).to(query_dtype or dtype)
    rule = rule or AttentionRule(spread / dim**0.5)
    rows: list[RequestRows] = []
    all_keys, all_values = [], []
    flat = cache.view(len(cache), kv_heads, 2, block * dim)
    token, first_row, first_span = 1, 0, 0
    for number, item in enumerate(wanted):
        mine, order = order[: pages[number]], order[pages[number] :]
        table[number + 1, : pages[number]] = torch.tensor(mine)
        keys = torch.randn(item.length, kv_heads, dim, generator=generator).to(dtype)
        values = (torch.rand(item.length, kv_heads, dim, generator=generator) - 0.5).to(dtype)
        for position in range(item.length):
            page, inside = mine[position // block], position % block
            flat[page, :, 0].view(kv_heads, dim, block)[:, :, inside] = keys[position]
            flat[page, :, 1].view(kv_heads, block, dim)[:, inside] = values[position]
        edges = np.unique(np.linspace(0, item.prompt, item.parts + 1).astype(int)).tolist()
        spans = [
            Span("document" if index % 2 else "user", start, end)
            for index, (start, end) in enumerate(pairwise(edges))
        ]
        request = SampledRequest(RequestContext(f"r{number}", item.prompt, spans), row_spans(spans))
        positions = np.arange(item.length - item.rows, item.length, dtype=np.int64)
        rows.append(
            RequestRows(
                request, number + 1, positions, positions - positions[0] + token, item.length, first_row, first_span,
                np.ones(item.rows),
            )
        )
        token += item.rows
        first_row += item.rows
        first_span += item.rows * (len(spans) + 1)
        all_keys.append(keys)
        all_values.append(values)
    return Scene(LayerCall(query, cache, table, output, CpuVectorReader(), rule), rows, all_keys, all_values)


def worst(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference; infinite where only one of the two is defined."""
    if (np.isnan(one) != np.isnan(other)).any():
        return float("inf")
    return float(np.nanmax(np.abs(one.astype(np.float64) - other), initial=0.0))
