"""The Triton kernel on a real GPU: the cases of the interpreter, and its time against attention in torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from ..contract.triton_rows_cases import CASES, F32, Case, build, one, run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),  # Triton 3.9 announces a default of 3.10
]

BUDGET = 1e-5
"""The interpreter's budget and the GPU's exp, 2 ulp."""


@pytest.mark.parametrize("name", CASES)
def test_all_features_and_masses_are_those_of_the_oracle_in_float64(name: str) -> None:
    found = {what: value for what, value in run(CASES[name], "cuda").items() if what != "undefined"}
    assert max(found.values()) < BUDGET, found


def test_the_same_call_gives_the_same_bits() -> None:
    case = replace(CASES["600 positions, ten splits"], programs=0)
    assert run(case, "cuda") == run(case, "cuda")


@pytest.mark.parametrize("tokens", [2048, 8192, 32768])
@pytest.mark.parametrize("dtype", [torch.bfloat16, F32], ids=["bfloat16", "float32"])
def test_summarising_a_row_takes_no_longer_than_attending(
    tokens: int, dtype: torch.dtype, record_property: Callable[[str, object], None]
) -> None:
    """Time on the GPU of 32 layers in a row, against torch's attention over keys that are gathered already."""
    from headwatch.capture.kernels.triton_rows import TritonRows
    from headwatch.capture.output.buffer import LayerSlot, allocate

    case = Case(one(tokens - 1, ends=(100, 1000, 1500)), heads=32, kv_heads=8, dim=128, query=dtype, cache=dtype)
    call, rows, spans = build(case, "cuda")
    keys, values = call.reader.read(call.cache, call.block_table[0], tokens)
    query, keys, values = (item.transpose(0, 1)[None] for item in (call.query, keys, values))
    kernel, buffer, memo = TritonRows(), allocate(tuple(range(32)), 32, 1, spans, values=False), {}

    def summarise() -> None:
        for layer in range(32):
            kernel.summarise(call, rows, LayerSlot(buffer, layer), memo)

    def attend() -> None:
        for _ in range(32):
            torch.nn.functional.scaled_dot_product_attention(query, keys, values, enable_gqa=True)

    ours, theirs = seconds(summarise), seconds(attend)
    record_property("ratio", ours / theirs)
    print(f"{tokens} tokens, {dtype}: {ours / 32 * 1e6:.1f} us a layer, attention {theirs / 32 * 1e6:.1f} us")  # noqa: T201 - the figure is the point
    assert ours < theirs


def seconds(work: Callable[[], None], repeats: int = 10) -> float:
    """Return the least time of *work* on the GPU, replayed from a graph, so that no launch from Python is in it."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return min(times)
