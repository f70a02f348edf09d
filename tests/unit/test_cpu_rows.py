"""The compiled CPU kernel against the oracle in float64."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from headwatch.capture.cache.cpu import Fp8Reader
from headwatch.capture.cache.learnt import Layout, LearntReader
from headwatch.capture.cache.reader import CpuVectorReader
from headwatch.capture.kernels import cpu, helper
from headwatch.capture.kernels.choose import choose
from headwatch.capture.layers.attention import AttentionRule
from headwatch.capture.output.buffer import LayerSlot
from headwatch.errors import CaptureRefused

from .scenes import Scene, Wanted, scene, worst

if TYPE_CHECKING:
    from collections.abc import Iterator

BUDGET = 4e-6
"""Against float64: rounding of float32 products in logits of a few units."""


@pytest.fixture(scope="module", params=[False, True], ids=["on the engine's threads", "beside the engine"])
def kernel(request: pytest.FixtureRequest) -> Iterator[cpu.CpuRows]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helper, "spare", lambda *_: os.sched_getaffinity(0))  # also where a machine has nothing to spare
        made = cpu.load(beside=request.param)
    yield made
    made.close()


def check(kernel: cpu.CpuRows, made: Scene, *, values: bool = False, bound: float = BUDGET) -> None:
    buffer, right = made.buffer(values=values), made.buffer(values=values)
    summarise(kernel, made, LayerSlot(buffer, 1), {})
    made.expected(LayerSlot(right, 1))
    assert worst(right.features[:, 1], buffer.features[:, 1]) <= bound
    assert worst(right.span_mass[:, 1], buffer.span_mass[:, 1]) <= bound
    if values:
        assert worst(right.value_mass[:, 1], buffer.value_mass[:, 1]) <= 8 * bound
        assert worst(right.output_norm[:, 1], buffer.output_norm[:, 1]) <= 8 * bound
    for array in (buffer.features, buffer.span_mass):
        assert (array[:, [0, 2]] == -7.0).all(), "another layer's slot was touched"


def summarise(kernel: cpu.CpuRows, made: Scene, slot: LayerSlot, memo: dict[Any, Any]) -> None:
    """Summarise; then, before the summaries are waited for, overwrite what the engine's next layer overwrites."""
    query, output = made.call.query.clone(), made.call.output.clone()
    kernel.summarise(made.call, made.rows, slot, memo)
    made.call.query.fill_(float("nan"))
    made.call.output.fill_(float("nan"))
    kernel.settle()
    made.call.query.copy_(query)
    made.call.output.copy_(output)


SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.03, 0.01])
RULES = {
    "plain": AttentionRule(0.25),
    "softcap": AttentionRule(0.25, softcap=3.0),
    "softcap of 50": AttentionRule(0.25, softcap=50.0),
    "window": AttentionRule(0.25, window=40),
    "window of one": AttentionRule(0.25, window=1),
    "chunk": AttentionRule(0.25, chunk=48),
    "alibi": AttentionRule(0.25, alibi_slopes=SLOPES),
    "sinks": AttentionRule(0.25, sinks=torch.tensor([0.1, 2.0, -1.0, 9.0, 30.0, -90.0])),
    "all": AttentionRule(0.25, softcap=5.0, window=70, alibi_slopes=SLOPES, sinks=SLOPES),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule(kernel: cpu.CpuRows, rule: AttentionRule) -> None:
    check(kernel, scene([Wanted(300, 250, 3), Wanted(33, 33, 2), Wanted(96, 20)], rule=rule), values=True)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 1), (9, 3), (10, 2), (7, 1), (16, 2)])
@pytest.mark.parametrize("block", [16, 32, 128])
def test_every_grouping_and_block_size(kernel: cpu.CpuRows, heads: int, kv_heads: int, block: int) -> None:
    made = scene([Wanted(515, 400, 2), Wanted(31, 30)], heads=heads, kv_heads=kv_heads, block=block)
    check(kernel, made, values=True)


@pytest.mark.parametrize("dim", [32, 80, 96, 112, 128, 256])
def test_every_head_size(kernel: cpu.CpuRows, dim: int) -> None:
    check(kernel, scene([Wanted(200, 150, 2)], dim=dim), values=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_is_read_exactly(kernel: cpu.CpuRows, dtype: torch.dtype) -> None:
    """The cache's own values are exact in float32, so only the arithmetic may err."""
    check(kernel, scene([Wanted(700, 640, 2)], dtype=dtype), values=True)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_keys_are_read_exactly(kernel: cpu.CpuRows, dtype: torch.dtype) -> None:
    check(kernel, scene([Wanted(300, 250, 2)], dtype=dtype, query_dtype=torch.float32))


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 31, 32, 33, 34, 63, 64, 65, 255, 256, 257, 1025])
def test_lengths_around_every_border(kernel: cpu.CpuRows, length: int) -> None:
    check(kernel, scene([Wanted(length, max(1, length - 3), parts=7)]), values=True)


def test_a_whole_prefill_of_many_rows(kernel: cpu.CpuRows) -> None:
    check(kernel, scene([Wanted(130, 130, 130), Wanted(64, 50, 64)]))


def test_rows_that_do_not_fit_the_scratch_are_taken_in_batches(
    kernel: cpu.CpuRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "SCRATCH_FLOATS", 6 * 300)
    check(kernel, scene([Wanted(130, 130, 5), Wanted(64, 50, 9), Wanted(300, 200, 2)]), values=True)


def test_a_long_context_keeps_its_digits(kernel: cpu.CpuRows) -> None:
    check(kernel, scene([Wanted(20000, 19000, parts=30)], heads=3, kv_heads=1, block=128))


def test_large_logits_err_by_their_rounding_only(kernel: cpu.CpuRows) -> None:
    check(kernel, scene([Wanted(500, 400)], spread=15.0), bound=4e-5)


def test_a_nan_in_a_visible_key_is_undefined_and_stays_in_its_kv_head(kernel: cpu.CpuRows) -> None:
    made = scene([Wanted(100, 90)])
    page = int(made.call.block_table[1, 1])
    made.call.cache.view(len(made.call.cache), 2, 2, -1)[page, 0, 0, 5] = float("nan")
    buffer = made.buffer()
    summarise(kernel, made, LayerSlot(buffer, 1), {})
    assert np.isnan(buffer.features[0, 1, :3, 0]).all()
    assert np.isfinite(buffer.features[0, 1, 3:]).all()


def test_strided_queries_are_read_where_they_stand(kernel: cpu.CpuRows) -> None:
    made = scene([Wanted(100, 90, 2)])
    wide = torch.zeros(made.call.query.shape[0], made.call.query.shape[1] + 4, made.call.query.shape[2])
    wide[:, :6] = made.call.query
    object.__setattr__(made.call, "query", wide[:, :6])
    check(kernel, made)


def test_fp8_scales_of_the_layer_are_applied_as_they_are_now(kernel: cpu.CpuRows) -> None:
    made = scene([Wanted(300, 250, 2)], dtype=torch.float8_e4m3fn, query_dtype=torch.float32)
    owner = SimpleNamespace(_k_scale_float=0.5, _v_scale_float=3.0)
    reader = Fp8Reader(CpuVectorReader(), owner, torch.float8_e4m3fn)
    call = replace(made.call, reader=reader, cache=made.call.cache.view(torch.uint8))
    for scale in (0.5, 1.5):
        owner._k_scale_float = scale
        scaled = Scene(call, made.rows, [keys.float() * scale for keys in made.keys], [v.float() * 3.0 for v in made.values])
        check(kernel, scaled, values=True)


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (5, 1), (2, 2)])
def test_pairs_of_bfloat16_in_groups_of_16_tokens(kernel: cpu.CpuRows, heads: int, kv_heads: int) -> None:
    """The key layout of isa amx: [tokens / 16][dim / 2][16][2]."""
    made = scene([Wanted(300, 250, 3), Wanted(33, 30)], heads=heads, kv_heads=kv_heads, dtype=torch.bfloat16)
    cache = made.call.cache
    blocks, _, size, width = cache.shape
    dim = width // 2
    halves = cache.view(blocks, kv_heads, 2, size * dim)
    columns = halves[:, :, 0].reshape(blocks, kv_heads, dim // 2, 2, size // 16, 16)
    packed = cache.clone()
    packed.view(blocks, kv_heads, 2, size * dim)[:, :, 0] = columns.permute(0, 1, 4, 2, 5, 3).flatten(2)
    token, number = torch.arange(size)[:, None], torch.arange(dim)[None, :]
    cells = token // 16 * 16 * dim + number // 2 * 32 + token % 16 * 2 + number % 2
    reader = LearntReader(Layout(cells.flatten(), torch.arange(size * dim)))
    assert torch.equal(reader.read(packed, made.call.block_table[1], 300)[0], made.keys[0])
    check(kernel, Scene(replace(made.call, cache=packed, reader=reader), made.rows, made.keys, made.values))


def test_layers_that_the_kernel_does_not_fit_go_to_the_oracle(kernel: cpu.CpuRows) -> None:
    """A block of 24 tokens is no whole number of vectors."""
    check(kernel, scene([Wanted(100, 90, 2)], block=24), values=True, bound=2e-5)


def test_two_layers_of_a_step_share_what_is_prepared(kernel: cpu.CpuRows) -> None:
    made, memo = scene([Wanted(100, 90, 2)]), {}
    buffer = made.buffer()
    kernel.summarise(made.call, made.rows, LayerSlot(buffer, 0), memo)
    kernel.summarise(made.call, made.rows, LayerSlot(buffer, 2), memo)
    kernel.settle()
    assert len(memo) == 1
    np.testing.assert_array_equal(buffer.features[:, 0], buffer.features[:, 2])


def test_without_a_compiler_the_oracle_runs_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert choose("cpu", [], values=False).name == "torch"
    assert "no C compiler" in caplog.text


def test_a_folder_that_others_may_write_to_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "headwatch" / "kernels").mkdir(parents=True)
    (tmp_path / "headwatch" / "kernels").chmod(0o777)
    with pytest.raises(CaptureRefused, match="written by others"):
        cpu.load()
