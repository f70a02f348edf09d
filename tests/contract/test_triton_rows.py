"""The Triton kernel: its numbers in the interpreter, its tables, and that it compiles for GPUs that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwatch.capture.cache.reader import CpuVectorReader
from headwatch.capture.kernels.base import LayerCall
from headwatch.capture.kernels.device_results import DeviceResults
from headwatch.capture.kernels.torch_rows import TorchRows
from headwatch.capture.kernels.triton_work import ITEM_FIELDS, ROW_FIELDS, TILE_FIELDS, Work, plan_work
from headwatch.capture.layers.attention import AttentionRule, RowSpans
from headwatch.capture.output.buffer import LayerSlot, allocate
from headwatch.capture.plan.step import RequestRows, SampledRequest
from headwatch.model import RequestContext

from .triton_rows_cases import CASES, LAYERS

BUDGET = 5e-7
"""Twice the largest error seen with logits of a few units."""
SHARP_BUDGET = 4e-6
"""Of logits that reach 60, which float32 rounds by 2e-6; 1.8e-6 was seen."""
HERE = Path(__file__).parent


def answer(program: str, **environment: str) -> str:
    """Return what *program* beside this file prints in a process of its own."""
    run = subprocess.run(
        [sys.executable, str(HERE / program)], capture_output=True, text=True, check=False, timeout=500,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(answer("triton_rows_cases.py", TRITON_INTERPRET="1"))
    return found


@pytest.mark.parametrize("name", CASES)
def test_all_features_and_masses_are_those_of_the_oracle_in_float64(errors: dict[str, dict[str, float]], name: str) -> None:
    found = {what: value for what, value in errors[name].items() if what != "undefined"}
    assert max(found.values()) < (SHARP_BUDGET if name == "sharp" else BUDGET), found


@pytest.mark.parametrize(
    ("name", "heads"),
    [("nan seen by one kv head", 6), ("nan seen by the later row", 3), ("nan behind the window", 0),
     ("nan after the last position", 0)],
)  # fmt: skip
def test_a_nan_spoils_the_heads_that_see_it_and_no_other(
    errors: dict[str, dict[str, float]], name: str, heads: int
) -> None:
    """Six heads, two KV heads, one or two rows."""
    assert errors[name]["undefined"] == heads


@pytest.mark.parametrize("layer", range(LAYERS))
def test_layers_with_different_windows_share_a_step(errors: dict[str, dict[str, float]], layer: int) -> None:
    assert max(errors[f"layer {layer}"].values()) < BUDGET


def test_kernels_compile_for_gpus() -> None:
    """Also E4M3 on a GPU without such a type; the interpreter accepts much that the compiler refuses."""
    sizes = dict(line.split(": ") for line in answer("triton_compile.py", TRITON_DEFAULT_FP_FUSION="1").splitlines())
    assert len(sizes) == 3
    assert all(int(size) > 4096 for size in sizes.values())


def sampled(spans: int, length: int) -> SampledRequest:
    ends = np.linspace(0, length, spans + 1)[1:].astype(np.int32)
    return SampledRequest(RequestContext("x", prompt_tokens=length, spans=[]), RowSpans(ends, np.zeros(spans, np.uint8)))


def test_a_layer_that_the_kernel_does_not_fit_is_summarised_by_the_oracle() -> None:
    from headwatch.capture.kernels.triton_rows import TritonRows

    generator = torch.Generator().manual_seed(3)
    cache, query = torch.randn(4, 2, 16, 32, generator=generator), torch.randn(1, 4, 16, generator=generator)
    table = torch.tensor([[2, 0, 3]], dtype=torch.int32)
    call = LayerCall(query, cache, table, query, CpuVectorReader(), AttentionRule(0.3))
    rows = [RequestRows(sampled(3, 30), 0, np.array([40]), np.array([0]), 41, 0, 0, np.ones(1))]
    buffers = [allocate((0,), 4, 1, 4, values=False) for _ in range(2)]
    TritonRows().summarise(call, rows, LayerSlot(buffers[0], 0), {})
    TorchRows().summarise(call, rows, LayerSlot(buffers[1], 0), {})
    np.testing.assert_array_equal(buffers[0].features, buffers[1].features)
    np.testing.assert_array_equal(buffers[0].span_mass, buffers[1].span_mass)


def test_fetching_again_leaves_what_another_kernel_wrote_meanwhile() -> None:
    """As when the self-check replaces a layer's kernel by the oracle in the middle of a step."""
    buffer = allocate((0, 1), 2, 1, 3, values=False)
    results = DeviceResults(buffer, torch.device("cpu"), None)
    results.arrays["features"].fill_(1.0)
    results.written(0)
    results.fetch()
    buffer.features[:, 0] = 5.0  # the oracle, for layer 0
    results.written(1)
    results.fetch()
    assert (buffer.features[:, 0] == 5.0).all()
    assert (buffer.features[:, 1] == 1.0).all()


def table(work: Work, number: int, fields: tuple[str, ...], rows: int) -> list[dict[str, int]]:
    start = work.starts[number]
    flat = work.flat[start : start + rows * len(fields)].reshape(rows, len(fields))
    return [dict(zip(fields, row, strict=True)) for row in flat.tolist()]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sets(st.integers(0, 700), min_size=1, max_size=9)), min_size=1, max_size=3),
    st.sampled_from([AttentionRule(1.0), AttentionRule(1.0, window=50), AttentionRule(1.0, chunk=64)]),
    st.integers(1, 8),
    st.integers(1, 40),
)
def test_each_position_of_each_row_is_read_once_and_each_sum_has_a_slot_of_its_own(
    batch: list[tuple[int, set[int]]], rule: AttentionRule, rows_per_tile: int, programs: int
) -> None:
    requests = []
    for number, (spans, found) in enumerate(batch):
        positions = np.array(sorted(found))
        requests.append(RequestRows(
            sampled(spans, 40 + 10 * number), number, positions, positions, int(positions[-1]) + 1, 0, 0,
            np.ones(len(positions)),
        ))  # fmt: skip
    work = plan_work(requests, rule, rows_per_tile, 2, programs, 64)
    rows = table(work, 0, ROW_FIELDS, work.rows)
    items = table(work, 2, ITEM_FIELDS, work.items)
    tiles = table(work, 1, TILE_FIELDS, max(item["tile"] for item in items) + 1)

    assert sorted((tiles[row["tile"]]["batch_index"], row["position"]) for row in rows) == [
        (number, position) for number, (_, found) in enumerate(batch) for position in sorted(found)
    ]
    used: set[int] = set()
    for number, tile in enumerate(tiles):
        read = [position for item in items if item["tile"] == number for position in range(item["start"], item["stop"])]
        assert read == list(range(tile["start"], tile["stop"]))
        mine = [row for row in rows if row["tile"] == number]
        assert 1 <= len(mine) == tile["rows"] <= rows_per_tile
        assert all(row["first"] == rule.first_visible(row["position"]) >= tile["start"] for row in mine)
        assert all(row["last"] < tile["stop"] for row in mine)
        ends = requests[tile["batch_index"]].request.spans.ends
        for k, item in enumerate(item for item in items if item["tile"] == number):
            spans = {int(np.searchsorted(ends, position, side="right")) for position in range(item["start"], item["stop"])}
            slots = {tile["first_slot"] + k + span for span in spans}
            assert item["slot"] == min(slots)
            assert item["span"] == min(spans)
            assert not slots & used
            used |= slots
    assert max(used) < work.slots
