"""Cases that hold the Triton kernel against the oracle in float64, on the CPU in Triton's interpreter and on a GPU.

Run as a program it prints what each case erred by.  The interpreter has to be chosen before Triton is imported
(TRITON_INTERPRET=1), and a process that chose it can compile nothing: so tests run this file in a process of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from headwatch.capture.cache.gpu import StridedReader
from headwatch.capture.kernels import oracle
from headwatch.capture.kernels.base import LayerCall
from headwatch.capture.layers.attention import AttentionRule, RowSpans
from headwatch.capture.output.buffer import LayerSlot, allocate
from headwatch.capture.plan.step import RequestRows, SampledRequest
from headwatch.model import FEATURES, RequestContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.capture.output.buffer import SummaryBuffer

LAYERS, LAYER = 3, 1
"""The kernel writes the middle one of three slots."""
PLAIN = AttentionRule(0.2)


@dataclass(frozen=True)
class Request:
    """Rows of one request; its spans alternate between plain text and documents, starting with plain text."""

    positions: tuple[int, ...]
    ends: tuple[int, ...]
    keys: int = 0
    """0: up to the last row."""


@dataclass(frozen=True)
class Case:
    """A layer, a batch, and what is wrong with it."""

    requests: tuple[Request, ...] = (Request((190,), (10, 11, 70, 160)),)
    heads: int = 6
    kv_heads: int = 2
    dim: int = 32
    page: int = 16
    rule: AttentionRule = PLAIN
    query: torch.dtype = torch.float32
    cache: torch.dtype = torch.float32
    scales: tuple[float, ...] = (1.0,)
    layout: str = "nhd"
    programs: int = 8
    values: bool = False
    spoil: Callable[[torch.Tensor, torch.Tensor], None] | None = None
    """Called with the cache, logical [blocks, KV, tokens, 2D], and the block table."""
    shift: float = 0.0
    """Added to all keys: makes logits large."""


def one(*positions: int, ends: tuple[int, ...] = (10, 11, 100, 260)) -> tuple[Request, ...]:
    return (Request(positions, ends),)


def nan_at(position: int, head: int) -> Callable[[torch.Tensor, torch.Tensor], None]:
    def spoil(cache: torch.Tensor, table: torch.Tensor) -> None:
        page = cache.shape[2]
        cache[table[0, position // page], head, position % page, 0] = float("nan")

    return spoil


SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.03, 0.01])
SINKS = torch.tensor([0.1, 2.0, -1.0, 0.5, 9.0, -20.0])
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2

CASES: dict[str, Case] = {
    "plain": Case(),
    "mha": Case(heads=3, kv_heads=3),
    "mqa": Case(heads=5, kv_heads=1),
    "one head": Case(heads=1, kv_heads=1),
    "more heads than a tile": Case(heads=70, kv_heads=1, dim=16, requests=one(40)),
    "softcap": Case(rule=AttentionRule(0.9, softcap=2.0)),
    "window": Case(rule=AttentionRule(0.2, window=100)),
    "window of one": Case(rule=AttentionRule(0.2, window=1)),
    "chunk": Case(rule=AttentionRule(0.2, chunk=64), requests=one(255, 256, 290)),
    "cross": Case(rule=AttentionRule(0.2, causal=False), requests=(Request((3, 150), (10, 90), keys=200),)),
    "alibi": Case(rule=AttentionRule(0.2, alibi_slopes=SLOPES)),
    "sinks": Case(rule=AttentionRule(0.2, sinks=SINKS)),
    "sinks of 16 bits": Case(rule=AttentionRule(0.2, sinks=SINKS.bfloat16()), query=BF16, cache=BF16),
    "window, softcap, sinks": Case(rule=AttentionRule(0.9, softcap=3.0, window=70, sinks=SINKS), values=True),
    "float16": Case(query=F16, cache=F16),
    "bfloat16": Case(query=BF16, cache=BF16, values=True),
    "e4m3": Case(query=BF16, cache=E4M3, scales=(0.5,), values=True),
    "e4m3, a scale for each head": Case(query=F16, cache=E4M3, scales=(0.5, 0.25), values=True),
    "e5m2": Case(query=F16, cache=E5M2, scales=(1.5,), values=True),
    "queries in e4m3": Case(query=E4M3, cache=E4M3, scales=(0.5,)),
    "float32 queries, bfloat16 cache": Case(query=F32, cache=BF16),
    "pages of 32, hnd": Case(page=32, layout="hnd"),
    "pages of 128, layers packed": Case(page=128, layout="packed"),
    "padded pages": Case(layout="padded", values=True),
    "head size 80": Case(dim=80),
    "head size 8": Case(dim=8),
    **{f"{n} positions": Case(requests=one(n - 1)) for n in (1, 2, 16, 17, 64, 65, 600)},
    "600 positions, one split": Case(requests=one(599), programs=1),
    "600 positions, ten splits": Case(requests=one(599), programs=64, heads=2, kv_heads=1, values=True),
    "five rows": Case(requests=one(0, 9, 100, 259, 290), values=True),
    "twenty rows": Case(requests=one(*range(100, 140, 2)), heads=4, kv_heads=1),
    "rows far apart in a window": Case(requests=one(10, 150, 290), rule=AttentionRule(0.2, window=30)),
    "two requests": Case(requests=(Request((290,), (10, 11, 100, 260)), Request((5, 130), (130,)))),
    "before the prompt's end": Case(requests=one(70)),
    "last row of the prompt": Case(requests=one(259)),
    "one span": Case(requests=one(200, ends=(150,))),
    "spans of one token": Case(requests=one(250, ends=tuple(range(1, 91))), values=True),
    "spans that end with splits": Case(requests=one(300, ends=(64, 128, 192, 256)), programs=64),
    "spans that end with the window": Case(requests=one(299, ends=(100, 200)), rule=AttentionRule(0.2, window=100)),
    "sharp": Case(rule=AttentionRule(3.0), values=True),
    "large logits": Case(shift=3.0),
    "nan seen by one kv head": Case(requests=one(200, 290), spoil=nan_at(150, 1)),
    "nan seen by the later row": Case(requests=one(200, 290), spoil=nan_at(250, 0)),
    "nan behind the window": Case(rule=AttentionRule(0.2, window=30), spoil=nan_at(150, 0)),
    "nan after the last position": Case(requests=one(258), spoil=nan_at(259, 0)),
}


def empty_cache(layout: str, blocks: int, kv_heads: int, page: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Return a cache, logical [blocks, KV, page, width], with the strides of one of the engine's layouts."""
    if layout == "nhd":
        return torch.zeros(blocks, page, kv_heads, width, dtype=dtype).transpose(1, 2)
    if layout == "hnd":
        return torch.zeros(blocks, kv_heads, page, width, dtype=dtype)
    if layout == "packed":
        return torch.zeros(blocks, 3, page, kv_heads, width, dtype=dtype)[:, 1].transpose(1, 2)
    size = kv_heads * page * width
    return torch.zeros(blocks, size + 256, dtype=dtype)[:, :size].view(blocks, kv_heads, page, width)


def build(case: Case, device: str = "cpu") -> tuple[LayerCall, list[RequestRows], int]:
    """Return the call, its rows and the number of its spans."""
    generator = torch.Generator().manual_seed(7)
    longest = max(request.keys or max(request.positions) + 1 for request in case.requests)
    pages = longest // case.page + 2
    blocks = pages * len(case.requests) + 3
    cache = empty_cache(case.layout, blocks, case.kv_heads, case.page, 2 * case.dim, case.cache)
    cache.copy_((torch.randn(cache.shape, generator=generator) + case.shift).to(case.cache))
    table = torch.randperm(blocks, generator=generator)[: pages * len(case.requests)].view(-1, pages).int()
    if case.spoil is not None:
        case.spoil(cache, table)
    if case.cache in {E4M3, E5M2}:
        cache = cache.view(torch.uint8)  # as the engine keeps it
    rows: list[RequestRows] = []
    first_row = first_span = 0
    for number, request in enumerate(case.requests):
        spans = RowSpans(
            np.array(request.ends, np.int32), np.array([place % 2 for place in range(len(request.ends))], np.uint8)
        )
        positions = np.array(request.positions, np.int64)
        sampled = SampledRequest(RequestContext(str(number), prompt_tokens=request.ends[-1], spans=[]), spans)
        rows.append(RequestRows(
            sampled, number, positions, first_row + np.arange(len(positions)), request.keys or int(positions[-1]) + 1,
            first_row, first_span, np.ones(len(positions)),
        ))  # fmt: skip
        first_row += len(positions)
        first_span += len(positions) * (spans.spans + 1)
    query = torch.randn(first_row, case.heads, case.dim, generator=generator).to(case.query)
    output = torch.randn(first_row, case.heads, case.dim, generator=generator)
    scales = torch.tensor(case.scales, device=device)
    layer = SimpleNamespace(_k_scale=scales, _v_scale=scales * 2)
    fp8 = {E4M3: "e4m3", E5M2: "e5m2"}.get(case.cache)
    reader = StridedReader(layer, case.kv_heads, case.dim, fp8)  # type: ignore[arg-type]
    storage = torch.empty_strided(cache.shape, cache.stride(), dtype=cache.dtype, device=device).copy_(cache)
    return (
        LayerCall(query.to(device), storage, table.to(device), output.to(device), reader, case.rule), rows, first_span
    )  # fmt: skip


def expected(call: LayerCall, rows: list[RequestRows]) -> dict[str, np.ndarray]:
    """Return what the oracle says in float64: features [R, H, 6], masses [Q, H], norms [R, H]."""
    found: dict[str, list[torch.Tensor]] = {"features": [], "span_mass": [], "value_mass": [], "output_norm": []}
    for request in rows:
        keys, values = call.reader.read(call.cache, call.block_table[request.batch_index], request.keys)
        query = call.query[torch.as_tensor(request.query_index, device=call.query.device)].double()
        positions = torch.as_tensor(request.positions, device=call.query.device)
        attention, sink = oracle.weights(query, keys.double(), positions, call.rule)
        features, mass = oracle.summarise(attention, sink, positions, request.request.spans, call.rule)
        carried = oracle.value_mass(attention, values.double(), request.request.spans)
        found["features"].append(features)
        found["span_mass"].append(mass.flatten(0, 1))
        found["value_mass"].append(carried.flatten(0, 1))
        found["output_norm"].append(call.output[torch.as_tensor(request.query_index)].double().norm(dim=-1))
    return {name: torch.cat(parts).cpu().numpy() for name, parts in found.items()}


def run(case: Case, device: str = "cpu") -> dict[str, float]:
    """Return the largest error of each feature and each mass; infinite where only one side is defined."""
    from headwatch.capture.kernels.triton_rows import TritonRows

    call, rows, spans = build(case, device)
    count = sum(len(request.positions) for request in rows)
    buffer = allocate(tuple(range(LAYERS)), case.heads, count, spans, values=case.values)
    buffer.features[:] = buffer.span_mass[:] = -7.0
    TritonRows(programs=case.programs, least_split=64).summarise(call, rows, LayerSlot(buffer, LAYER), {})
    buffer.fetch()
    others = [index for index in range(LAYERS) if index != LAYER]
    touched = np.abs(buffer.features[:, others] + 7).max() + np.abs(buffer.span_mass[:, others] + 7).max()
    return compare(call, rows, buffer, LAYER) | {"other layers": float(touched)}


def compare(call: LayerCall, rows: list[RequestRows], buffer: SummaryBuffer, layer: int) -> dict[str, float]:
    """Return the largest errors of one slot of *buffer*, and how many heads of its rows are undefined."""
    want = expected(call, rows)
    errors = {name: error(want["features"][..., i], buffer.features[:, layer, :, i]) for i, name in enumerate(FEATURES)}
    errors["span_mass"] = error(want["span_mass"], buffer.span_mass[:, layer])
    errors["undefined"] = float(np.isnan(buffer.features[:, layer, :, 1]).sum())
    if buffer.value_mass is not None and buffer.output_norm is not None:
        for name, got in (("value_mass", buffer.value_mass), ("output_norm", buffer.output_norm)):
            largest = max(1.0, float(np.nanmax(np.abs(want[name]), initial=0.0)))
            errors[name] = error(want[name] / largest, got[:, layer] / largest)
    return errors


def error(want: np.ndarray, got: np.ndarray) -> float:
    if (np.isnan(want) != np.isnan(got)).any():
        return float("inf")
    return float(np.nanmax(np.abs(want - got), initial=0.0))


def run_step(device: str = "cpu") -> dict[str, dict[str, float]]:
    """Return the errors of three layers with different rules that share the step's memo and buffer."""
    from headwatch.capture.kernels.triton_rows import TritonRows

    kernel, memo = TritonRows(programs=8, least_split=64), {}
    base = Case(requests=(Request((40, 190), (10, 70)), Request((99,), (30,))))
    rules = (PLAIN, AttentionRule(0.2, window=50), AttentionRule(0.4))
    calls = [build(replace(base, rule=rule), device) for rule in rules]
    _, rows, spans = calls[0]
    buffer = allocate(tuple(range(LAYERS)), base.heads, 3, spans, values=False)
    for layer, (call, _, _) in enumerate(calls):
        kernel.summarise(call, rows, LayerSlot(buffer, layer), memo)
    buffer.fetch()
    return {f"layer {layer}": compare(call, rows, buffer, layer) for layer, (call, _, _) in enumerate(calls)}


def warm_up(device: str = "cpu") -> None:
    """Do what an engine does when it starts."""
    from headwatch.capture.kernels.triton_rows import TritonRows

    call, _, _ = build(Case(requests=one(0, 1)), device)
    TritonRows().warm_up(call, values=True)


if __name__ == "__main__":
    import warnings

    warnings.filterwarnings("ignore", category=RuntimeWarning)  # numpy's, where the interpreter divides by 0 as a GPU does
    warm_up()
    print(json.dumps({name: run(case) for name, case in CASES.items()} | run_step()))  # noqa: T201 - its answer
