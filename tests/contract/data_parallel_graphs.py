"""One of two data parallel ranks that agree on a CUDA graph: python data_parallel_graphs.py RANK STORE.

The dispatcher, the reduction between the ranks and what follows from it are vLLM's own; only the batch is made up.  Prints,
as JSON, which graph this rank would run when nobody samples, the first rank, the second, and both, for each runner and mode.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ.update(VLLM_LOGGING_LEVEL="ERROR", VLLM_LOGGING_STREAM="ext://sys.stderr", HEADWATCH_DISABLE="1")
sys.path.insert(0, str(Path(__file__).parent))

import engine_graphs
import numpy as np
import torch.distributed as dist

from headwatch.capture.engine import graphs

MODES = ("FULL_AND_PIECEWISE", "FULL_DECODE_ONLY", "FULL")
CASES = {"nobody": (), "first": (0,), "second": (1,), "both": (0, 1)}
REQUESTS = (3, 7)
"""Decoding requests on each rank: padded, they are 4 and 8."""


def v1(mode, rank, sampled):
    """Return a function that decides as V1's runner does."""
    from vllm.v1.worker import dp_utils
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    dp_utils.get_dp_group = group
    dispatcher = engine_graphs.first(mode)
    graphs.exclude_in_v1(dispatcher, sampled)
    config = dispatcher.vllm_config
    config.parallel_config.data_parallel_rank = rank
    runner = SimpleNamespace(
        cudagraph_dispatcher=dispatcher, vllm_config=config, parallel_config=config.parallel_config,
        model_config=SimpleNamespace(is_encoder_decoder=False),
        input_batch=SimpleNamespace(lora_id_to_lora_request={}), uniform_decode_query_len=1,
        _is_uniform_decode=lambda **_: True,
    )
    count = REQUESTS[rank]

    def decide():
        chosen, shape, *_ = GPUModelRunner._determine_batch_execution_and_padding(
            runner, num_tokens=count, num_reqs=count, num_scheduled_tokens_np=np.ones(count, np.int32),
            max_num_scheduled_tokens=1, allow_microbatching=False,
        )  # fmt: skip
        return chosen, shape.num_tokens
    return decide


def v2(mode, rank, sampled, *, told=True):
    """Return a function that decides as V2's runner does; not *told*: FULL graphs are left out, and that is all."""
    from vllm.v1.worker.gpu import dp_utils

    dp_utils.get_dp_group = group
    manager = engine_graphs.second(mode)
    graphs.exclude_in_v2(manager, sampled)
    dispatch = dp_utils.dispatch_cg_and_sync_dp
    if told:
        dispatch = graphs.telling_no_uniform_batch(dispatch, sampled)

    def decide():
        count = REQUESTS[rank]
        shape, agreed = dispatch(manager, count, count, 1, 2, rank, max_query_len=1)
        assert len(set(agreed.num_tokens_across_dp.tolist())) == 1 or shape.cg_mode.name == "NONE"
        return shape.cg_mode, shape.num_tokens
    return decide


def group():
    """Return what is used of vLLM's group of data parallel ranks."""
    return SimpleNamespace(cpu_group=dist.group.WORLD, device_group=dist.group.WORLD, device="cpu")


def decisions(decide, current):
    """Return what this rank decides in each case."""
    results = {}
    for case in CASES:
        current[:] = [case]
        chosen, tokens = decide()
        results[case] = [chosen.name, tokens if chosen.name != "NONE" else "unpadded"]
    return results


def main():
    rank, store = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    current = []

    def sampled():
        return rank in CASES[current[0]]

    makers = {"v1": v1, "v2": v2, "v2 untold": partial(v2, told=False)}
    results = {
        name: {mode: decisions(make(mode, rank, sampled), current) for mode in MODES} for name, make in makers.items()
    }
    json.dump(results, sys.stdout)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
