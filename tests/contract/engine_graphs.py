"""vLLM's own dispatchers of CUDA graphs, built without a GPU, for the scripts beside this file."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from vllm.config import CompilationConfig, CUDAGraphMode
from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
from vllm.v1.worker.gpu import cudagraph_utils

SIZES = [1, 2, 4, 8, 16, 32]
MODES = ("FULL_AND_PIECEWISE", "FULL_DECODE_ONLY", "FULL", "PIECEWISE", "NONE")


def config(mode):
    """Return what the dispatchers read of a ``VllmConfig``: a real compilation configuration, and numbers."""
    compilation = CompilationConfig(
        mode=3, cudagraph_mode=mode, cudagraph_capture_sizes=SIZES, max_cudagraph_capture_size=SIZES[-1],
        splitting_ops=list(CompilationConfig._attention_ops),
    )
    return SimpleNamespace(
        compilation_config=compilation,
        scheduler_config=SimpleNamespace(max_num_seqs=16),
        parallel_config=SimpleNamespace(
            tensor_parallel_size=1, data_parallel_size=2, data_parallel_rank=0, num_ubatches=1,
            disable_nccl_for_dp_synchronization=True, use_ubatching=False, enable_dbo=False,
        ),
        cache_config=SimpleNamespace(use_kda_recoverssm=False),
        observability_config=SimpleNamespace(cudagraph_metrics=False),
        speculative_config=None, lora_config=None, num_speculative_tokens=0,
    )


def first(mode):
    """Return V1's ``CudagraphDispatcher`` for the mode of that name."""
    made = CudagraphDispatcher(config(CUDAGraphMode[mode]))
    made.initialize_cudagraph_keys(CUDAGraphMode[mode])
    return made


def second(mode):
    """Return V2's ``ModelCudaGraphManager`` for the mode of that name, as if its graphs had been captured."""
    cudagraph_utils.get_pp_group = lambda: SimpleNamespace(is_first_rank=True, is_last_rank=True)
    cudagraph_utils.current_platform = SimpleNamespace(get_global_graph_pool=lambda: None)
    made = cudagraph_utils.ModelCudaGraphManager(config(CUDAGraphMode[mode]), torch.device("cpu"), CUDAGraphMode[mode], 1)
    made._graphs_captured = True
    return made
