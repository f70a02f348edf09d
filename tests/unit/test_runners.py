"""The adapters read the runner's own buffers on the host, and the pages of the cache group that a layer belongs to.

The fakes have the shapes of vLLM 0.32's classes; tests/contract holds those against the installed release, and
tests/integration runs both runners for real.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from headwatch.capture.engine.runners.choose import choose_runner, target_layers
from headwatch.capture.engine.runners.v1 import V1Runner
from headwatch.capture.engine.runners.v2 import V2Runner
from headwatch.errors import CaptureRefused, EngineStateError

FULL, SLIDING = "model.layers.0.self_attn.attn", "model.layers.1.self_attn.attn"


class OnDevice:
    """Stands for a tensor on a device: whoever reads it makes the host wait."""

    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"a tensor on the device was read: {name}")


def group(*names: str, manager_block: int = 32, kernel_block: int | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        layer_names=list(names), kernel_block_size=kernel_block, kernel_block_table=None,
        kv_cache_spec=SimpleNamespace(block_size=manager_block),
    )


def groups() -> list[list[SimpleNamespace]]:
    """Two cache groups: full attention, and sliding windows."""
    return [[group(FULL)], [group(SLIDING)]]


def first_runner() -> SimpleNamespace:
    """Three requests, of which the second is prefilled: vLLM's ``GPUModelRunner`` of V1."""
    tables = [torch.arange(12, dtype=torch.int32).view(4, 3), 100 + torch.arange(12, dtype=torch.int32).view(4, 3)]
    return SimpleNamespace(
        input_batch=SimpleNamespace(
            req_ids=["a", "b", "c"],
            block_table=[SimpleNamespace(get_device_tensor=lambda count, table=table: table[:count]) for table in tables],
        ),
        query_start_loc=SimpleNamespace(np=np.array([0, 1, 6, 7, 7], np.int32), gpu=OnDevice()),
        optimistic_seq_lens_cpu=torch.tensor([40, 5, 9, 0]),
        seq_lens=OnDevice(),
        attn_groups=groups(),
        cudagraph_dispatcher=None,
    )


class SecondRunner:
    """vLLM's ``GPUModelRunner`` of V2, as far as it is looked at."""

    block_tables = None
    cudagraph_manager = None

    def __init__(self) -> None:
        self.attn_groups = groups()

    def prepare_attn(self, input_batch: Any) -> Any:
        pages = torch.arange(6, dtype=torch.int32).view(3, 2)
        return (pages, pages + 100), f"slots of {input_batch.num_reqs}"


def second_batch() -> SimpleNamespace:
    """Two requests, padded to three for a CUDA graph."""
    return SimpleNamespace(
        req_ids=["a", "b"], num_reqs=2, query_start_loc_np=np.array([0, 1, 5, 5], np.int32),
        num_computed_tokens_np=np.array([39, 0], np.int32), seq_lens=OnDevice(), query_start_loc=OnDevice(),
    )


def test_v1_has_the_batch_without_asking_the_device() -> None:
    batch = V1Runner(first_runner()).batch()
    assert batch.ids == ["a", "b", "c"]
    assert batch.query_starts == [0, 1, 6, 7]
    assert batch.sequence_lengths == [40, 5, 9]


def test_v2_has_the_batch_that_the_runner_prepared_without_asking_the_device() -> None:
    runner = SecondRunner()
    adapter = V2Runner(runner)
    assert runner.prepare_attn(second_batch())[1] == "slots of 2", "the runner gets what it would have got"
    batch = adapter.batch()
    assert batch.ids == ["a", "b"]
    assert batch.query_starts == [0, 1, 5]
    assert batch.sequence_lengths == [40, 4]


def test_v2_gives_a_batch_once_so_that_a_stale_one_is_never_taken() -> None:
    runner = SecondRunner()
    adapter = V2Runner(runner)
    runner.prepare_attn(second_batch())
    adapter.batch()
    with pytest.raises(EngineStateError, match="no batch"):
        adapter.batch()


def test_an_error_in_the_runner_stays_the_runner_s() -> None:
    runner = SecondRunner()
    runner.prepare_attn = lambda _: 1 / 0  # type: ignore[method-assign]
    V2Runner(runner)
    with pytest.raises(ZeroDivisionError):
        runner.prepare_attn(None)


@pytest.mark.parametrize("version", [1, 2])
def test_each_layer_reads_the_pages_of_its_own_cache_group(version: int) -> None:
    if version == 1:
        adapter: V1Runner | V2Runner = V1Runner(first_runner())
    else:
        runner = SecondRunner()
        adapter = V2Runner(runner)
        runner.prepare_attn(second_batch())
        adapter.batch()
    assert int(adapter.block_table(FULL)[0, 0]) == 0
    assert int(adapter.block_table(SLIDING)[0, 0]) == 100
    with pytest.raises(CaptureRefused, match="no group"):
        adapter.block_table("model.layers.9.self_attn.attn")


def test_groups_are_looked_up_anew_when_the_engine_allocates_its_cache_again() -> None:
    runner = first_runner()
    adapter = V1Runner(runner)
    assert int(adapter.block_table(SLIDING)[0, 0]) == 100
    runner.attn_groups = [[group(FULL, SLIDING)]]
    assert int(adapter.block_table(SLIDING)[0, 0]) == 0


def test_a_kernel_with_smaller_blocks_has_its_own_table() -> None:
    """Blocks of 32 in a kernel that wants 16: block b is the kernel's blocks 2b and 2b + 1."""
    runner = first_runner()
    small = group(FULL, kernel_block=16)
    small.kernel_block_table = torch.full((1, 8, 12), -1, dtype=torch.int32)
    small.kernel_block_table[0, :3, :6] = torch.arange(18).view(3, 6)
    runner.attn_groups = [[small]]
    table = V1Runner(runner).block_table(FULL)
    assert table.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17]]


@pytest.mark.parametrize(
    ("second", "runner", "lacking"),
    [(False, SimpleNamespace(), "input_batch"), (True, SimpleNamespace(attn_groups=[]), "prepare_attn")],
)
def test_a_model_runner_that_lacks_something_is_refused_by_what_it_lacks(second: bool, runner: object, lacking: str) -> None:
    worker = SimpleNamespace(model_runner=runner, use_v2_model_runner=second)
    with pytest.raises(CaptureRefused, match=f"types.SimpleNamespace is not supported.*{lacking}"):
        choose_runner(worker)


def test_the_worker_says_which_runner_it_has() -> None:
    assert choose_runner(SimpleNamespace(model_runner=first_runner())).name == "v1"
    assert choose_runner(SimpleNamespace(model_runner=SecondRunner(), use_v2_model_runner=True)).name == "v2"


@pytest.mark.parametrize(
    "drafter",
    [
        {"drafter": SimpleNamespace(_draft_attn_layer_names={"draft"})},
        {"speculator": SimpleNamespace(draft_attn_layer_names={"draft"})},
        {"drafter": SimpleNamespace(attn_layer_names=["draft"])},
    ],
)
def test_layers_of_a_draft_model_are_left_out(drafter: dict[str, object]) -> None:
    layers = {"model.layers.0": 1, "draft": 2}
    config = SimpleNamespace(compilation_config=SimpleNamespace(static_forward_context=layers))
    worker = SimpleNamespace(model_runner=SimpleNamespace(**drafter), vllm_config=config)
    assert list(target_layers(worker)) == ["model.layers.0"]
