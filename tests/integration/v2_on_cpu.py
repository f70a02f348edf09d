"""Makes vLLM's V2 model runner run on a CPU without a Triton for CPUs: import it before vLLM.

vLLM 0.32 has a V2 runner for CPUs (``v1/worker/cpu/model_runner.py``), which wants triton-cpu; that is no package of the
index.  Triton's own interpreter runs the same kernels on CPU tensors, slowly and exactly.  What is put in place of CUDA's
streams, events and pinned memory does nothing, as V1's CPU runner does it too (``_torch_cuda_wrapper``).  The runner, the
scheduler, the attention backend and its cache are vLLM's own.
"""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace

os.environ["TRITON_INTERPRET"] = "1"
os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"

import numpy as np
import torch
import triton.backends
from triton.runtime.interpreter import InterpreterBuilder


class Nothing:
    """An event or a stream on a device that has neither: everything is done as soon as it is asked for."""

    device = torch.device("cpu")

    def __init__(self, *args, **kwargs):
        pass

    def __getattr__(self, name):
        return lambda *_, **__: None

    def record_event(self, *args):
        return self

    def query(self):
        return True

    def elapsed_time(self, other):
        return 0.0


def unpinned(make):
    """Return the tensor factory *make* that leaves ``pin_memory`` out."""
    def made(*args, **kwargs):
        kwargs.pop("pin_memory", None)
        return make(*args, **kwargs)
    return made


torch.cuda.Stream = torch.cuda.Event = torch.Event = Nothing
torch.cuda.current_stream = lambda *_: Nothing()
torch.cuda.set_stream = lambda *_: None
torch.cuda.stream = lambda _: contextlib.nullcontext()
torch.Tensor.pin_memory = torch.Tensor.cpu
torch.Tensor.record_stream = lambda *_: None
for name in ("zeros", "empty", "full", "ones", "arange", "tensor"):
    setattr(torch, name, unpinned(getattr(torch, name)))
# vLLM asks whether Triton has a backend named "cpu", and nothing more of it (triton_utils/importing.py).
triton.backends.backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True))
# A compiled kernel takes an integer where it expects a mask; the interpreter wants truth values.
load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store


def masked_load(self, ptrs, mask, *rest):
    mask.data = np.asarray(mask.data, bool)
    return load(self, ptrs, mask, *rest)


def masked_store(self, ptrs, value, mask, cache_policy):
    mask.data = np.asarray(mask.data, bool)
    return store(self, ptrs, value, mask, cache_policy)


InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store = masked_load, masked_store
